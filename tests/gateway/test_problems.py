"""Every error is a problem with a stable code, and says nothing that is not the caller's."""

import re
from pathlib import Path
from typing import Any

import pytest

from domain import catalog
from domain.errors import Rejected
from gateway.problems import STATUS, Problem, as_problem
from tests.gateway.world import World

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "problems.md"
NO_ID = "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58"
JOB = {"model": "support", "dataset_id": NO_ID}


async def problem(world: World, method: str, path: str, **request: Any) -> dict[str, Any]:
    async with world.client("admin") as client:
        answer = await client.request(method, path, **request)
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    assert body["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
    assert body["type"] == f"urn:finetrail:problem:{body['code']}"
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "route_not_found"),
        ("GET", "/api/v1/jobs/not-an-id", 404, "route_not_found"),
        ("GET", "/api/v1/jobs/%00", 404, "route_not_found"),
        ("GET", "/api/v1/models/%00", 404, "not_found"),
        ("GET", f"/api/v1/jobs/{NO_ID}", 404, "not_found"),
        ("GET", f"/api/v1/jobs/{NO_ID}/logs", 404, "not_found"),
        ("GET", f"/api/v1/jobs/{NO_ID}/metrics", 404, "not_found"),
        ("GET", f"/api/v1/jobs/{NO_ID}/events", 404, "not_found"),
        ("POST", f"/api/v1/jobs/{NO_ID}/cancel", 404, "not_found"),
        ("GET", f"/api/v1/datasets/{NO_ID}", 404, "not_found"),
        ("DELETE", f"/api/v1/datasets/{NO_ID}", 404, "not_found"),
        ("GET", f"/api/v1/evaluations/{NO_ID}", 404, "not_found"),
        ("GET", f"/api/v1/evaluations/{NO_ID}/examples", 404, "not_found"),
        ("POST", f"/api/v1/evaluations/{NO_ID}/cancel", 404, "not_found"),
        ("GET", "/api/v1/models/nothing", 404, "not_found"),
        ("GET", "/api/v1/models/nothing/versions/1", 404, "not_found"),
        ("GET", "/api/v1/models/nothing/versions/1/download", 404, "not_found"),
        ("DELETE", "/api/v1/keys/00000000", 404, "not_found"),
        ("DELETE", "/api/v1/keys/short", 404, "not_found"),
        ("POST", f"/api/v1/agents/{NO_ID}/drain", 404, "not_found"),
        ("PUT", "/api/v1/jobs", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_is_told_apart(
    world: World, method: str, path: str, status: int, code: str
) -> None:
    found = await problem(world, method, path)

    assert (found["status"], found["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "model"),
        ({"model": "support"}, "dataset_id"),
        (JOB | {"model": "No Such"}, "model"),
        (JOB | {"model": "-x"}, "model"),
        (JOB | {"model": "support\n"}, "model"),
        (JOB | {"dataset_id": "x"}, "dataset_id"),
        (JOB | {"seed": -1}, "seed"),
        (JOB | {"seed": 2**32}, "seed"),
        (JOB | {"method": "magic"}, "method"),
        (JOB | {"epochs": 3}, "epochs"),
        (JOB | {"trust_remote_code": True}, "trust_remote_code"),
        (JOB | {"hyperparameters": {"epochs": 0}}, "epochs"),
        (JOB | {"hyperparameters": {"lora": {"rank": 0}}}, "lora.rank"),
        (JOB | {"hyperparameters": {"speed": 1}}, "speed"),
        (JOB | {"split": {"test_fraction": 2}}, "test_fraction"),
        ([], "body"),
        (None, "body"),
    ],
)
async def test_a_wrong_field_of_a_job_is_named(world: World, body: Any, field: str) -> None:
    found = await problem(world, "POST", "/api/v1/jobs", json=body)

    assert (found["status"], found["code"]) == (400, "invalid_request")
    assert [error["field"] for error in found["errors"]] == [field]
    assert found["errors"][0]["message"]
    assert world.bus.sent == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/jobs?limit=0", "limit"),
        ("/api/v1/jobs?limit=101", "limit"),
        ("/api/v1/jobs?limit=many", "limit"),
        ("/api/v1/jobs?status=done", "status"),
        ("/api/v1/jobs?cursor=%21", "cursor"),
        ("/api/v1/jobs?cursor=LTE", "cursor"),
        ("/api/v1/events?after=-1", "after"),
        ("/api/v1/events?aggregate=nobody", "aggregate"),
        ("/api/v1/events?id=x", "id"),
        ("/api/v1/evaluations?version=0", "version"),
    ],
)
async def test_a_wrong_query_parameter_is_named(world: World, path: str, field: str) -> None:
    found = await problem(world, "GET", path)

    assert (found["status"], found["code"]) == (400, "invalid_request")
    assert found["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "content",
    [b'{"model": ', b'{"model": "\xff"}', b"[" * 100_000, b'{"model": "\\ud800"}'],
    ids=["cut off", "not utf-8", "too deep", "half a character"],
)
async def test_json_that_cannot_be_read_is_a_bad_request(world: World, content: bytes) -> None:
    found = await problem(
        world,
        "POST",
        "/api/v1/jobs",
        content=content,
        headers={"Content-Type": "application/json"},
    )

    assert (found["status"], found["code"]) == (400, "bad_request")


async def test_a_form_is_not_taken_for_json(world: World) -> None:
    found = await problem(
        world,
        "POST",
        "/api/v1/keys",
        content=b'{"name": "n", "role": "admin"}',
        headers={"Content-Type": "text/plain"},
    )

    assert (found["status"], found["code"]) == (415, "unsupported_media_type")
    assert world.bus.sent == []


async def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    found = await problem(
        world,
        "POST",
        "/api/v1/models/support/predict",
        content=b" " * (16 * 1024 * 1024 + 1),
        headers={"Content-Type": "application/json"},
    )

    assert (found["status"], found["code"]) == (413, "too_large")


async def test_405_says_what_is_allowed(world: World) -> None:
    async with world.client("admin") as client:
        answer = await client.put("/api/v1/jobs")

    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))


async def test_a_refusal_of_the_rules_is_a_conflict_with_its_code(world: World) -> None:
    found = await problem(world, "POST", "/api/v1/jobs", json=JOB)

    assert (found["status"], found["code"]) == (409, "dataset_unusable")
    assert "does not exist" in found["detail"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil", ""])
async def test_another_host_name_gets_nothing(world: World, host: str) -> None:
    async with world.client("admin") as client:
        answer = await client.get("/health/live", headers={"Host": host})

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8420", "[::1]:8420"])
async def test_loopback_names_are_taken_with_any_port(world: World, host: str) -> None:
    async with world.client("admin") as client:
        answer = await client.get("/health/live", headers={"Host": host})

    assert answer.status_code == 200


async def test_our_own_mistake_is_logged_once_and_says_nothing_inside(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(world.queries, "jobs", broken)
    found = await problem(world, "GET", "/api/v1/jobs")

    assert (found["status"], found["code"]) == (500, "internal_error")
    assert "secret of the house" not in str(found)
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == 1
    assert found["instance"].removeprefix("urn:uuid:") in logged[0].getMessage()


@pytest.mark.parametrize("path", ["/health/live", "/nothing", "/api/v1/jobs", "/api/v1/keys"])
async def test_every_answer_has_the_security_headers(world: World, path: str) -> None:
    async with world.client("viewer") as client:
        answer = await client.get(path)

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers


def every_rejection() -> set[str]:
    assert catalog.COMMANDS  # the whole domain is imported with it
    import handlers.authority  # noqa: F401 - the refusals that are not the domain's

    found, waiting = set(), [Rejected]
    while waiting:
        class_ = waiting.pop()
        found.add(class_.code)
        waiting += class_.__subclasses__()
    return found


def test_every_refusal_has_a_status() -> None:
    assert every_rejection() <= set(STATUS)


def test_every_code_is_documented_with_its_status_and_nothing_else_is() -> None:
    documented = dict(re.findall(r"^### `(\w+)` \((\d{3})\)$", DOCS.read_text(), re.MULTILINE))

    assert {code: int(status) for code, status in documented.items()} == dict(STATUS)


def test_a_full_disk_is_told_apart_from_our_mistakes() -> None:
    full = as_problem(OSError(28, "No space left on device"))

    assert isinstance(full, Problem)
    assert full.status == 507
    assert as_problem(OSError(5, "Input/output error")) is None
