"""Every route against every kind of caller, and how a key is read."""

import re
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from litestar.routes import HTTPRoute

from gateway.access_matrix import ACCESS, RANK
from gateway.api_keys import _checksum, new_key, parse_key, same_secret, secret_hmac
from gateway.tickets import ArchiveTicket, Ticket, Tickets, ticket_key
from tests.gateway.world import PEPPER, World, csv_rows, running_world

SAMPLES = {
    "type": "Nothing",
    "file": "1.json",
    "dataset_id": "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58",
    "job_id": "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58",
    "evaluation_id": "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58",
    "agent_id": "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58",
    "name": "nothing",
    "model_id": "nothing:1",
    "number": "1",
    "path": "README.md",
    "key_id": "00000000",
    "sequence": "7",
    "event": "7",
    "webhook_id": "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58",
    "person_id": "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58",
}


def path_of(template: str, method: str) -> str:
    tickets = Tickets(ticket_key(PEPPER))
    leave = Ticket("PUT" if method == "PUT" else "GET", "0" * 64, 2**40, size=1)
    samples = SAMPLES | {"ticket": tickets.issue(leave)}
    if template.endswith("/archives/{ticket}"):
        samples["ticket"] = tickets.issue_archive(ArchiveTicket("nothing", 1, UUID(int=1), 2**40))
    return re.sub(r"{(\w+)}", lambda match: samples[match[1]], template)


def routes(world: World) -> set[tuple[str, str]]:
    return {
        (method, route.path_format)
        for route in world.gateway.litestar.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS"
    }


def forged(world: World) -> str:
    """The id of an admin's key with another secret and the checksum that fits."""
    _, key_id, _, _ = world.keys["admin"].text.split("_")
    secret = new_key(PEPPER, "another").text.split("_")[2]
    body = f"fpk_{key_id}_{secret}"
    return f"{body}_{_checksum(body)}"


async def test_every_route_has_an_entry_and_every_entry_a_route(world: World) -> None:
    assert routes(world) == set(ACCESS)


@pytest.mark.parametrize(("method", "template"), sorted(ACCESS))
async def test_a_route_answers_whom_the_matrix_names_and_nobody_else(
    world: World, method: str, template: str
) -> None:
    needed = ACCESS[method, template]
    statuses = {}
    for caller in ("none", "wrong", "viewer", "editor", "admin"):
        role = caller if caller in RANK else None
        async with world.client(role) as client:
            if caller == "wrong":
                client.headers["Authorization"] = f"Bearer {forged(world)}"
            answer = await client.request(method, path_of(template, method))
        statuses[caller] = answer.status_code

    refused = {
        caller for caller, status in statuses.items() if status == (403 if caller in RANK else 401)
    }
    expected = set()
    if needed != "public":
        expected = {"none", "wrong"} | {role for role in RANK if RANK[role] < RANK[needed]}
    assert refused == expected, statuses
    assert 500 not in statuses.values()


async def test_a_method_that_is_not_in_the_matrix_is_closed_to_admins_too(world: World) -> None:
    async with world.client("admin") as client:
        answer = await client.options("/api/v1/jobs")

    assert answer.status_code == 403


@pytest.mark.parametrize(
    "header",
    [
        "{key}",
        "Basic {key}",
        "Token {key}",
        "Bearer",
        "Bearer ",
        "Bearer {key}x",
        "Bearer {key} {key}",
        "Bearer fpk_short",
        "Bearer ÿÿÿÿ",
    ],
)
async def test_only_a_whole_key_after_bearer_is_taken(world: World, header: str) -> None:
    async with world.client(None) as client:
        value = header.format(key=world.keys["admin"].text)
        answer = await client.get(
            "/api/v1/jobs", headers=[("Authorization", value.encode("latin-1"))]
        )

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "unauthenticated"


async def test_the_id_of_a_key_is_worth_nothing_without_its_secret(world: World) -> None:
    never_issued = new_key(PEPPER, "never issued").text
    async with world.client(None) as client:
        answers = [
            await client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {text}"})
            for text in (forged(world), never_issued)
        ]

    assert parse_key(forged(world)) is not None
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]


async def test_two_authorization_headers_are_none(world: World) -> None:
    text = world.keys["admin"].text
    async with world.client(None) as client:
        both = [("Authorization", f"Bearer {text}")] * 2
        answer = await client.get("/api/v1/jobs", headers=both)

    assert answer.status_code == 401


async def test_a_key_in_the_query_is_not_looked_at(world: World) -> None:
    async with world.client(None) as client:
        answer = await client.get(f"/api/v1/jobs?key={world.keys['admin'].text}")

    assert answer.status_code == 401


async def test_a_key_works_from_its_issue_to_its_revocation(world: World) -> None:
    async with world.client("admin") as admin, world.client(None) as client:
        issued = (await admin.post("/api/v1/keys", json={"name": "n", "role": "viewer"})).json()
        client.headers["Authorization"] = f"Bearer {issued['secret']}"
        before = await client.get("/api/v1/jobs")
        revoked = await admin.delete(f"/api/v1/keys/{issued['key_id']}")
        after = await client.get("/api/v1/jobs")
        listed = (await admin.get("/api/v1/keys")).json()["items"]

    assert [before.status_code, revoked.status_code, after.status_code] == [200, 200, 401]
    assert issued["key_id"] not in {key["key_id"] for key in listed}


async def test_a_key_is_not_called_wrong_before_the_keys_have_been_read(world: World) -> None:
    world.gateway.keyring.loaded = False

    async with world.client("viewer") as client:
        answer = await client.get("/api/v1/keys")

    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "Retry-After" in answer.headers


async def test_keys_work_while_postgres_is_away(world: World) -> None:
    world.queries.away = True
    async with world.client("admin") as admin:
        listed = await admin.get("/api/v1/jobs")
        issued = await admin.post("/api/v1/keys", json={"name": "n", "role": "viewer"})

    assert listed.status_code == 503
    assert issued.status_code == 201
    assert parse_key(issued.json()["secret"]) is not None


async def test_no_answer_holds_a_hash_of_a_secret(world: World) -> None:
    hashes = {key.secret_hmac for key in world.keys.values()}
    async with world.client("admin") as admin:
        said = (await admin.get("/api/v1/events?after=0&limit=100")).text
        said += (await admin.get("/api/v1/keys")).text

    assert "KeyIssued" in said
    assert not any(one in said for one in hashes)


def test_keys_have_an_id_a_secret_and_a_checksum() -> None:
    key = new_key(PEPPER)

    presented = parse_key(key.text)

    assert re.fullmatch(r"fpk_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", key.text)
    assert presented is not None
    assert presented.key_id == key.key_id
    assert same_secret(PEPPER, presented.secret, key.secret_hmac)
    assert not same_secret(b"other", presented.secret, key.secret_hmac)
    assert key != new_key(PEPPER)


def test_a_mistyped_key_is_found_out_by_its_checksum() -> None:
    text = new_key(PEPPER, "x").text
    swapped = [
        text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]
        for place in range(4, len(text))
        if text[place] != "_"
    ]

    assert [parse_key(one) for one in swapped] == [None] * len(swapped)


def test_the_same_request_makes_the_same_key_and_another_pepper_another() -> None:
    assert new_key(PEPPER, "r") == new_key(PEPPER, "r")
    assert new_key(PEPPER, "r") != new_key(b"other", "r")
    assert secret_hmac(PEPPER, "s") != secret_hmac(b"other", "s")


def test_principals_are_told_apart_in_the_log() -> None:
    from gateway.authentication import Principal

    principal = Principal("3f9a2c1b", "viewer")

    assert principal.actor == "key:3f9a2c1b"
    assert replace(principal, role="admin") != principal


async def test_gateways_of_one_process_know_neither_keys_nor_data_of_one_another(
    world: World, tmp_path: Path
) -> None:
    async with (
        running_world(tmp_path / "other") as other,
        world.client("admin") as here,
        other.client("admin") as there,
    ):
        issued = await here.post("/api/v1/keys", json={"name": "only here", "role": "viewer"})
        assert issued.status_code == 201, issued.text
        uploaded = await here.post(
            "/api/v1/datasets", content=csv_rows(), headers={"Content-Type": "text/csv"}
        )
        assert uploaded.status_code == 201, uploaded.text
        dataset = f"/api/v1/datasets/{uploaded.json()['id']}"
        only_here = {"Authorization": f"Bearer {issued.json()['secret']}"}
        asked = (
            await here.get(dataset, headers=only_here),
            await there.get(dataset, headers=only_here),
            await there.get(dataset),
        )

    assert [answer.status_code for answer in asked] == [200, 401, 404]
