"""People over HTTP: sealed on the way in, opened on the way out, and forgotten everywhere at once."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from adapters.xchacha_sealer import XChaChaSealer
from gateway.app import Config, Gateway
from gateway.metrics import ADDRESSES_LEFT_OUT
from gateway.sealing import Sealing
from tests.gateway.world import PEPPER, W, World, csv_rows, running_world

NAME, LAPTOP, MAIL = "Ana Díaz", "Ana's laptop", "mail of Ana"
ADDRESS = "127.0.0.1"  # of the client of every test


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with world.client() as opened:
        yield opened


async def add(client: httpx.AsyncClient, name: str = NAME) -> str:
    answer = await client.post("/api/v1/people", json={"name": name})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def issue(client: httpx.AsyncClient, person: str | None, name: str = LAPTOP) -> Any:
    body = {"name": name, "role": "editor", "person_id": person}
    answer = await client.post("/api/v1/keys", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def upload(client: httpx.AsyncClient, person: str, name: str = MAIL) -> Any:
    answer = await client.post(
        "/api/v1/datasets",
        params={"name": name, "person_id": person},
        content=csv_rows(),
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


async def forget(client: httpx.AsyncClient, person: str) -> Any:
    answer = await client.post(f"/api/v1/people/{person}/forget", json={"reason": "asked"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def logged(world: World) -> str:
    return repr(world.store._log)


async def everywhere(client: httpx.AsyncClient, dataset: str, sequence: int) -> str:
    """All that is answered in which a name may stand."""
    paths = [
        "/people",
        "/keys",
        "/datasets",
        f"/datasets/{dataset}",
        "/events?after=0&limit=100",
        "/events/diff?from=0&limit=100",
        f"/events/{sequence}/why",
        f"/datasets?as_of={sequence}",
        f"/keys?as_of={sequence}",
        f"/people?as_of={sequence}",
    ]
    return "".join([(await client.get(f"/api/v1{path}")).text for path in paths])


async def test_names_and_addresses_stand_in_no_event_and_in_the_answers(
    world: World, client: httpx.AsyncClient
) -> None:
    person = await add(client)
    key = await issue(client, person)
    dataset = await upload(client, person)

    listed = (await client.get("/api/v1/keys")).json()["items"]
    mine = next(one for one in listed if one["key_id"] == key["key_id"])
    why = (await client.get(f"/api/v1/events/{dataset['sequence'] - 1}/why")).json()

    assert not any(text in logged(world) for text in (NAME, LAPTOP, MAIL, ADDRESS))
    assert (mine["name"], mine["person_id"], mine["forgotten"]) == (LAPTOP, person, False)
    assert (dataset["name"], dataset["person_id"]) == (MAIL, person)
    assert why["began"]["address"] == ADDRESS
    assert why["chain"][0]["event"]["data"]["name"] == MAIL


async def test_a_key_of_nobody_in_particular_is_sealed_under_a_holder_of_its_own(
    world: World, client: httpx.AsyncClient
) -> None:
    key = await issue(client, None, "nightly")

    people = (await client.get("/api/v1/people")).json()["items"]

    assert "nightly" not in logged(world)
    assert key["person_id"] in {one["id"] for one in people}
    assert (await client.get(f"/api/v1/people/{key['person_id']}")).json()["held"]["keys"] == [
        {"key_id": key["key_id"], "name": "nightly", "status": "active"}
    ]


async def test_who_is_forgotten_is_so_in_every_answer_of_every_gateway(
    world: World, client: httpx.AsyncClient
) -> None:
    other = Gateway(
        Config(W, PEPPER, 1_000_000),
        bus=world.bus,
        queries=world.queries,
        feed=world.feed,
        blobs=world.blobs,
        inference=world.inference,
        requests=world.requests,
        webhooks=world.webhooks,
        sender=world.receivers,
        marks=world.webhooks,
        person_keys=world.person_keys,
        sealer=XChaChaSealer(),
    )
    other.keyring = world.gateway.keyring
    person = await add(client)
    await issue(client, person)
    dataset = await upload(client, person)
    sequence = world.events
    before = await everywhere(client, dataset["id"], sequence)
    log = list(world.store._log)

    done = await forget(client, person)
    after = await everywhere(client, dataset["id"], sequence)

    assert all(text in before for text in (NAME, LAPTOP, MAIL))
    assert not any(text in after for text in (NAME, LAPTOP, MAIL))
    assert (done["name"], done["forgotten"], done["held"]["sealed"]) == (None, True, "destroyed")
    assert world.store._log[: len(log)] == log
    opened = await other_sealing(other).opened(
        [("person.name", row.name) for row in await world.queries.people(W)], [UUID(person)]
    )
    assert opened.texts == {}
    assert UUID(person) in opened.forgotten


def other_sealing(gateway: Gateway) -> Sealing:
    return gateway.sealing


async def test_rows_of_who_is_forgotten_are_not_shown_nor_got_by_a_link(
    world: World, client: httpx.AsyncClient
) -> None:
    person = await add(client)
    dataset = await upload(client, person)
    path = f"/api/v1/datasets/{dataset['id']}"
    link = (await client.post(f"{path}/links", json={})).json()["url"]
    assert (await client.get(link)).status_code == 200
    assert (await client.get(f"{path}/rows")).status_code == 200

    await forget(client, person)

    answers = [await client.get(url) for url in (f"{path}/rows", f"{path}/content", link)]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert (await client.get(path)).json()["forgotten"] is True


async def test_an_answer_that_a_client_holds_is_no_longer_the_right_one(
    world: World, client: httpx.AsyncClient
) -> None:
    person = await add(client)
    dataset = await upload(client, person)
    path = f"/api/v1/datasets/{dataset['id']}"
    tag = {"If-None-Match": (await client.get(path)).headers["ETag"]}
    assert (await client.get(path, headers=tag)).status_code == 304

    await forget(client, person)

    assert (await client.get(path, headers=tag)).json()["name"] is None


async def test_what_forgetting_would_touch_is_told_before(
    world: World, client: httpx.AsyncClient
) -> None:
    person = await add(client)
    key = await issue(client, person)
    dataset = await upload(client, person)

    held = (await client.get(f"/api/v1/people/{person}")).json()["held"]

    assert held["sealed"] == "readable"
    assert [one["key_id"] for one in held["keys"]] == [key["key_id"]]
    assert [one["id"] for one in held["datasets"]] == [dataset["id"]]
    assert [(one["sha256"], one["of"]) for one in held["blobs"]] == [(dataset["sha256"], "dataset")]


async def test_forgetting_twice_is_no_error_and_nothing_is_made_for_them_after(
    world: World, client: httpx.AsyncClient
) -> None:
    person = await add(client)
    await forget(client, person)
    events = world.events

    await forget(client, person)

    assert world.events == events
    body = {"name": LAPTOP, "role": "viewer", "person_id": person}
    refused = [
        await client.post("/api/v1/keys", json=body),
        await client.post("/api/v1/datasets", params={"person_id": person}, content=csv_rows()),
    ]
    assert {answer.json()["code"] for answer in refused} == {"person_forgotten"}


async def test_a_person_who_is_not_known_is_not_found(client: httpx.AsyncClient) -> None:
    nobody = UUID(int=5)
    body = {"name": LAPTOP, "role": "viewer", "person_id": str(nobody)}
    answers = [
        await client.get(f"/api/v1/people/{nobody}"),
        await client.post(f"/api/v1/people/{nobody}/forget", json={}),
        await client.post("/api/v1/keys", json=body),
    ]

    assert {answer.json()["code"] for answer in answers} == {"not_found"}


async def test_only_admins_are_told_what_people_are_called(world: World) -> None:
    async with world.client() as client:
        await add(client)
    async with world.client("viewer") as client:
        events = await client.get("/api/v1/events", params={"after": 0, "limit": 100})
        diff = await client.get("/api/v1/events/diff", params={"from": 0, "limit": 100})

        assert (await client.get("/api/v1/people")).status_code == 403
    assert "PersonAdded" in events.text
    assert '"person"' in diff.text
    assert NAME not in events.text + diff.text


async def test_without_the_database_a_name_waits_and_an_address_is_left_out(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path) as world, world.client() as client:
        world.person_keys.away = True
        left_out = ADDRESSES_LEFT_OUT._value.get()

        refused = await client.post("/api/v1/people", json={"name": NAME})
        taken = await client.post(
            "/api/v1/datasets", content=csv_rows(), headers={"Content-Type": "text/csv"}
        )

        assert (refused.status_code, refused.json()["code"]) == (503, "people_unavailable")
        assert taken.status_code == 201
        assert all("ce-clientaddress" not in headers for _, headers, _ in world.store._log)
        assert ADDRESSES_LEFT_OUT._value.get() == left_out + 1


async def test_a_key_that_was_used_before_seals_on_without_the_database(
    world: World, client: httpx.AsyncClient
) -> None:
    await add(client)
    world.person_keys.away = True

    await client.post("/api/v1/datasets", content=csv_rows(), headers={"Content-Type": "text/csv"})

    (_, headers, _) = next(
        one for one in world.store._log if one[1]["ce-type"] == "DatasetRegistered"
    )
    assert headers["ce-clientaddress"].startswith("sealed:v1:")
