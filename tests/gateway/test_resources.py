"""What the routes answer when all is well, and how commands behave when things are slow or away."""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from domain.telemetry import LogLine
from domain.work import Failed, PredictReply
from gateway.health import MAX_LAG
from gateway.logs import log_encoder
from gateway.pages import decode_cursor, encode_cursor
from gateway.problems import Problem
from projections.metrics import StepRow
from tests.gateway.world import AGENT, NOW, World


async def get(world: World, path: str, **query: Any) -> Any:
    async with world.client("viewer") as client:
        answer = await client.get(f"/api/v1{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def post(world: World, path: str, body: Any = None, **headers: str) -> Any:
    async with world.client("admin") as client:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(f"/api/v1{path}", json=body, headers=sent)


async def test_an_uploaded_dataset_is_answered_when_it_is_validated(world: World) -> None:
    dataset = await world.uploaded()

    shown = await get(world, f"/datasets/{dataset['id']}")
    rows = await get(world, f"/datasets/{dataset['id']}/rows", limit=2)
    assert shown == dataset
    assert dataset["status"] == "valid"
    assert dataset["name"] == "messages"
    assert dataset["labels"] == {"delivery": 20, "refund": 20}
    assert rows["items"] == [
        {"line": 2, "text": "message number 0", "label": "refund"},
        {"line": 3, "text": "message number 1", "label": "delivery"},
    ]


async def test_a_dataset_of_conversations_shows_what_is_learnt(world: World) -> None:
    turns = [("system", "Be brief."), ("user", "Where is it?"), ("assistant", "On its way.")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    async with world.client("editor") as client:
        uploaded = await client.post(
            "/api/v1/datasets",
            content=json.dumps(row).encode(),
            headers={"Content-Type": "application/x-ndjson"},
        )
    dataset = uploaded.json()

    shown = await get(world, f"/datasets/{dataset['id']}")
    rows = await get(world, f"/datasets/{dataset['id']}/rows")

    assert shown == dataset
    assert (dataset["kind"], dataset["messages"], dataset["supervised_messages"]) == ("chat", 3, 1)
    assert dataset["example"] == [
        {"text": "system: Be brief.", "supervised": False},
        {"text": "user: Where is it?", "supervised": False},
        {"text": "assistant: On its way.", "supervised": True},
    ]
    assert rows["items"] == [
        {
            "line": 1,
            "messages": [
                {"role": role, "content": content, "supervised": role == "assistant"}
                for role, content in turns
            ],
            "raw": False,
        }
    ]


async def test_a_deleted_dataset_is_listed_but_not_read_or_trained_on(world: World) -> None:
    dataset = await world.uploaded()
    async with world.client("admin") as client:
        deleted = await client.delete(f"/api/v1/datasets/{dataset['id']}")
        rows = await client.get(f"/api/v1/datasets/{dataset['id']}/rows")

    refused = await post(world, "/jobs", {"model": "m", "dataset_id": dataset["id"]})

    assert deleted.json()["status"] == "deleted"
    assert deleted.json()["sequence"] == world.events
    assert rows.status_code == 404
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_unusable")
    assert (await get(world, "/datasets"))["items"][0]["status"] == "deleted"


async def test_a_submitted_job_is_queued_and_can_be_read_at_once(world: World) -> None:
    dataset = await world.uploaded()
    body = {
        "model": "support",
        "dataset_id": dataset["id"],
        "seed": 7,
        "hyperparameters": {"epochs": 2, "lora": {"rank": 4}},
    }

    answer = await post(world, "/jobs", body)

    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["progress"]["epochs"] == 2
    assert job["spec"]["seed"] == 7
    assert job["spec"]["hyperparameters"]["lora"]["rank"] == 4
    assert "note" not in job
    assert await get(world, f"/jobs/{job['id']}") == job


async def test_the_log_names_who_asked_and_which_request_it_was(world: World) -> None:
    dataset = await world.uploaded()

    answer = await post(world, "/jobs", {"model": "support", "dataset_id": dataset["id"]})

    event = (await get(world, f"/jobs/{answer.json()['id']}/events"))["items"][-1]
    assert event["type"] == "JobSubmitted"
    assert event["actor"] == f"key:{world.keys['admin'].key_id}"
    assert event["source"] == "gateway"
    assert event["correlation_id"] == answer.headers["x-request-id"]


async def test_a_repeated_submission_with_the_same_key_is_one_job(world: World) -> None:
    body = {"model": "support", "dataset_id": (await world.uploaded())["id"]}

    first = await post(world, "/jobs", body, Idempotency_Key="monday")
    again = await post(world, "/jobs", body, Idempotency_Key="monday")
    other = await post(world, "/jobs", body, Idempotency_Key="tuesday")

    assert [one.status_code for one in (first, again, other)] == [202] * 3
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    assert len((await get(world, "/jobs"))["items"]) == 2


async def test_an_idempotency_key_belongs_to_a_key_and_a_route(world: World) -> None:
    body = {"model": "support", "dataset_id": (await world.uploaded())["id"]}
    mine = await post(world, "/jobs", body, Idempotency_Key="x")
    async with world.client("editor") as client:
        theirs = await client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "x"})

    assert mine.json()["id"] != theirs.json()["id"]


async def test_a_repeated_issue_of_a_key_gives_the_same_key(world: World) -> None:
    body = {"name": "nightly", "role": "editor"}

    first = await post(world, "/keys", body, Idempotency_Key="k")
    again = await post(world, "/keys", body, Idempotency_Key="k")
    other = await post(world, "/keys", body)

    assert first.status_code == again.status_code == 201
    assert first.json()["secret"] == again.json()["secret"] != other.json()["secret"]


@pytest.mark.parametrize("value", [" ", "x" * 256, "a\tb"])
async def test_an_idempotency_key_is_short_and_printable(world: World, value: str) -> None:
    answer = await post(world, "/keys", {"name": "n", "role": "viewer"}, Idempotency_Key=value)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_command_that_is_not_decided_in_time_is_said_to_be_safe(world: World) -> None:
    body = {"model": "support", "dataset_id": (await world.uploaded())["id"]}
    world.bus.silent = True

    answer = await post(world, "/jobs", body, Idempotency_Key="slow")

    world.bus.silent = False
    again = await post(world, "/jobs", body, Idempotency_Key="slow")
    assert answer.status_code == 202
    assert "safe" in answer.json()["note"]
    assert answer.json()["sequence"] == 0
    assert again.json()["id"] == answer.json()["id"]
    assert "note" not in again.json()


async def test_a_job_is_taken_while_postgres_is_away(world: World) -> None:
    body = {"model": "support", "dataset_id": (await world.uploaded())["id"]}
    world.queries.away = True

    answer = await post(world, "/jobs", body)

    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["sequence"]) == ("queued", world.events)
    assert "recorded" in answer.json()["note"]


async def test_a_log_that_is_away_is_503_with_a_time_to_ask_again(world: World) -> None:
    body = {"model": "support", "dataset_id": (await world.uploaded())["id"]}
    world.bus.away = True

    answer = await post(world, "/jobs", body)

    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    assert int(answer.headers["retry-after"]) > 0


async def test_lists_come_in_pages_that_new_rows_do_not_shift(world: World) -> None:
    made = [(await world.submitted(f"m{n}"))["id"] for n in range(5)]

    seen: list[str] = []
    cursor = None
    for _ in range(5):
        page = await get(world, "/jobs", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [job["id"] for job in page["items"]]
        cursor = page["next"]
        await world.submitted("later")
        if cursor is None:
            break

    assert seen == made[::-1]


async def test_jobs_are_chosen_by_status_and_model(world: World) -> None:
    done = await world.trained("done")
    waiting = await world.submitted("waiting")

    assert [job["id"] for job in (await get(world, "/jobs", status="queued"))["items"]] == [
        waiting["id"]
    ]
    assert [job["id"] for job in (await get(world, "/jobs", model="done"))["items"]] == [done["id"]]


async def test_a_cancelled_job_says_so(world: World) -> None:
    job = await world.submitted()

    answer = await post(world, f"/jobs/{job['id']}/cancel")
    again = await post(world, f"/jobs/{job['id']}/cancel")

    assert [answer.status_code, answer.json()["status"]] == [202, "cancelled"]
    assert again.status_code == 202


async def test_metrics_are_steps_in_order(world: World) -> None:
    job = await world.submitted()
    world.queries.steps = [
        StepRow("default", UUID(job["id"]), n, n, 1, 0.1 * n, 1.0 / n, 0.001, 1.0, 2000.0, 1.0, NOW)
        for n in range(1, 4)
    ]

    page = await get(world, f"/jobs/{job['id']}/metrics", points=10)

    assert [step["step"] for step in page["items"]] == [1, 2, 3]
    assert page["next"] is None


async def test_log_lines_are_read_in_pages_that_may_end_within_a_message(world: World) -> None:
    job = await world.submitted()
    job_id = UUID(job["id"])
    for n in range(4):
        world.feed.log(job_id, *(f"message {n} line {m}" for m in range(5)), attempt=1)

    seen: list[str] = []
    after = None
    while True:
        query = {"limit": 3} | ({"after": after} if after else {})
        page = await get(world, f"/jobs/{job['id']}/logs", **query)
        assert len(page["items"]) <= 3
        seen += [line["message"] for line in page["items"]]
        after = page["next"]
        if after is None:
            break

    assert seen == [f"message {n} line {m}" for n in range(4) for m in range(5)]


async def test_log_lines_are_chosen_by_level_and_position(world: World) -> None:
    job = await world.submitted()
    job_id = UUID(job["id"])
    for level in ("INFO", "ERROR", "DEBUG", "WARNING"):
        world.feed.log(job_id, LogLine(time=NOW, level=level, message=level), attempt=2)  # type: ignore[arg-type]

    page = await get(world, f"/jobs/{job['id']}/logs", level="WARNING")
    later = await get(world, f"/jobs/{job['id']}/logs", after=page["items"][0]["sequence"])

    assert [line["level"] for line in page["items"]] == ["ERROR", "WARNING"]
    assert page["items"][0]["text"] == "[17:43:05] [ERROR] ERROR"
    assert page["items"][0]["attempt"] == 2
    assert [line["level"] for line in later["items"]] == ["DEBUG", "WARNING"]


@pytest.mark.parametrize("time", ["yesterday", "0001-01-01T00:00:00+14:00"])
async def test_lines_that_cannot_be_read_hide_no_others(world: World, time: str) -> None:
    job = await world.submitted()
    job_id = UUID(job["id"])
    world.feed.log(job_id, "strange")
    said = world.feed.telemetry.pop()
    strange = json.dumps({"lines": [{"time": time, "message": "strange"}]}).encode()
    world.feed.telemetry.append(replace(said, data=strange))
    world.feed.log(job_id, "true")

    page = await get(world, f"/jobs/{job_id}/logs")
    encoded = [log_encoder("DEBUG")(message) for message in world.feed.telemetry]

    assert [item["message"] for item in page["items"]] == ["true"]
    assert [b"true" in each for each in encoded] == [False, True]


async def test_people_can_write_into_a_jobs_log(world: World) -> None:
    job = await world.submitted()
    lines = {"lines": [{"message": "hello"}, {"level": "WARNING", "message": "careful"}]}

    written = await post(world, f"/jobs/{job['id']}/logs", lines, Idempotency_Key="l")
    again = await post(world, f"/jobs/{job['id']}/logs", lines, Idempotency_Key="l")

    page = await get(world, f"/jobs/{job['id']}/logs")
    assert written.status_code == 201
    assert written.json() == again.json() == {"sequence": 1, "lines": 2}
    assert [(line["level"], line["message"], line["attempt"]) for line in page["items"]] == [
        ("INFO", "hello", 0),
        ("WARNING", "careful", 0),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"message": ""}],
        [{"message": "x" * 8193}],
        [{"message": "é" * 5000}],
        [{"message": "x", "level": "LOUD"}],
        [{"message": "x"}] * 101,
        [{"message": "x", "time": "now"}],
    ],
)
async def test_lines_that_are_none_are_refused(world: World, lines: Any) -> None:
    job = await world.submitted()

    answer = await post(world, f"/jobs/{job['id']}/logs", {"lines": lines})

    assert answer.status_code == 400
    assert answer.json()["errors"]
    assert world.feed.telemetry == []


async def test_logs_are_read_while_postgres_is_away(world: World) -> None:
    job = await world.submitted()
    world.feed.log(UUID(job["id"]), "still here")
    world.queries.away = True

    page = await get(world, f"/jobs/{job['id']}/logs")

    assert page["items"][0]["message"] == "still here"


async def test_a_model_shows_versions_with_lineage_training_and_evaluation(world: World) -> None:
    job = await world.trained()

    model = await get(world, "/models/support")
    version = (await get(world, "/models/support/versions"))["items"][0]

    shown = await get(world, f"/jobs/{job['id']}")
    assert (model["versions"], model["latest"], model["active"]) == (1, 1, None)
    assert version == await get(world, "/models/support/versions/1")
    assert version["job_id"] == job["id"]
    assert version["lineage"]["dataset_id"] == job["dataset_id"]
    assert version["lineage"]["threads"] == 2
    assert version["training"]["validation_accuracy"] == 0.97
    assert version["evaluation"]["status"] == "completed"
    assert version["evaluation"]["p_value"] == 0.5
    assert shown["version"] == {"model": "support", "number": 1, "id": version["id"]}
    assert shown["evaluation_id"] == version["evaluation"]["id"]


async def test_activating_a_version_puts_it_into_service_and_back(world: World) -> None:
    await world.trained()
    await world.trained()

    second = await post(world, "/models/support/activate", {"version": 2})
    first = await post(world, "/models/support/activate", {"version": 1})

    assert second.json()["active"]["number"] == 2
    assert first.json()["active"]["number"] == 1
    assert first.json()["active"]["activated_by"] == f"key:{world.keys['admin'].key_id}"


async def test_a_version_that_is_not_ready_is_neither_activated_asked_nor_loaded(
    world: World,
) -> None:
    await world.trained(ready=False)

    activated = await post(world, "/models/support/activate", {"version": 1})
    asked = await post(world, "/models/support/predict", {"texts": ["x"], "version": 1})
    async with world.client() as client:
        loaded = await client.get("/api/v1/models/support/versions/1/download")
    evaluated = await post(world, "/evaluations", {"model": "support", "version": 1})

    answers = [activated, asked, loaded, evaluated]
    assert [(one.status_code, one.json()["code"]) for one in answers] == [
        (409, "version_not_ready")
    ] * 4


async def test_predictions_come_from_the_active_version_or_the_one_named(world: World) -> None:
    await world.trained()
    await world.trained()
    nothing = await post(world, "/models/support/predict", {"texts": ["a"]})
    await post(world, "/models/support/activate", {"version": 2})

    active = await post(world, "/models/support/predict", {"texts": ["a", "b"]})
    named = await post(world, "/models/support/predict", {"texts": ["a"], "version": 1})

    assert (nothing.status_code, nothing.json()["code"]) == (409, "no_active_version")
    assert active.status_code == 200
    assert active.json()["version"] == 2
    assert (
        active.json()["predictions"]
        == [{"label": "delivery", "score": 1.0, "scores": {"delivery": 1.0, "refund": 0.0}}] * 2
    )
    assert named.json()["version"] == 1
    request = world.inference.asked[0]
    assert {file.path for file in request.adapter} == {"adapter_config.json", "labels.json"}
    assert (request.labels, request.max_length) == (("delivery", "refund"), 128)


@pytest.mark.parametrize(
    ("code", "retryable", "status", "problem"),
    [
        ("no_agent", True, 503, "inference_unavailable"),
        ("timed_out", True, 503, "inference_unavailable"),
        ("busy", True, 503, "inference_unavailable"),
        ("adapter_damaged", False, 500, "prediction_failed"),
    ],
)
async def test_a_prediction_that_fails_says_whether_to_ask_again(
    world: World, code: str, retryable: bool, status: int, problem: str
) -> None:
    await world.trained()
    failed = Failed(code=code, message="because", retryable=retryable)
    world.inference.reply = PredictReply(request_id="x", error=failed)

    answer = await post(world, "/models/support/predict", {"texts": ["a"], "version": 1})

    assert (answer.status_code, answer.json()["code"]) == (status, problem)
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    "body",
    [{"texts": []}, {"texts": [""]}, {"texts": ["x" * 20_001]}, {"texts": ["x"] * 257}, {"texts": "x"}],
)  # fmt: skip
async def test_texts_are_bounded(world: World, body: Any) -> None:
    answer = await post(world, "/models/support/predict", body)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].startswith("texts")


async def test_a_version_is_evaluated_again_and_the_evaluation_cancelled(world: World) -> None:
    await world.trained()

    asked = await post(world, "/evaluations", {"model": "support", "version": 1})
    cancelled = await post(world, f"/evaluations/{asked.json()['id']}/cancel")

    listed = await get(world, "/evaluations", model="support", version=1)
    examples = await get(world, f"/evaluations/{listed['items'][1]['id']}/examples")
    assert asked.status_code == 202
    assert asked.json()["status"] == "queued"
    assert cancelled.json()["status"] == "cancelled"
    assert [one["status"] for one in listed["items"]] == ["cancelled", "completed"]
    assert "examples" not in listed["items"][1]["summary"]
    assert examples["items"][0]["winner"] == "fine_tuned"


async def test_events_are_read_forward_or_the_newest(world: World) -> None:
    await world.trained()

    newest = await get(world, "/events", limit=3)
    first = await get(world, "/events", after=0, limit=3)
    second = await get(world, "/events", after=first["next"], limit=3)
    keys = await get(world, "/events", aggregate="access", after=0)
    mine = await get(world, "/events", actor=f"key:{world.keys['editor'].key_id}", after=0)

    assert [e["sequence"] for e in newest["items"]] == list(
        range(world.events - 2, world.events + 1)
    )
    assert newest["next"] is None
    assert [e["sequence"] for e in first["items"] + second["items"]] == [1, 2, 3, 4, 5, 6]
    assert {e["type"] for e in keys["items"]} == {"KeyIssued"}
    assert {e["type"] for e in mine["items"]} == {"DatasetRegistered", "JobSubmitted"}


async def test_an_agent_is_drained_and_the_queue_shows_what_waits(world: World) -> None:
    await world.enrolled()

    drained = await post(world, f"/agents/{AGENT}/drain")

    assert drained.status_code == 202
    assert drained.json()["status"] == "draining"
    assert (await get(world, "/agents"))["items"][0]["name"] == "box"
    assert (await get(world, "/queue"))["items"][0]["position"] == 1


async def ready(world: World) -> Any:
    async with world.client(None) as client:
        return await client.get("/health/ready")


async def test_ready_says_by_name_what_is_missing(world: World) -> None:
    good = await ready(world)
    world.queries.away = True
    without_postgres = await ready(world)
    world.queries.away, world.feed.away = False, True
    without_log = await ready(world)
    world.feed.away = False
    world.gateway.drain()
    draining = await ready(world)

    assert (good.status_code, good.json()) == (200, {"status": "ready"})
    assert without_postgres.json()["reasons"] == {"read model": "it does not answer"}
    assert set(without_log.json()["reasons"]) == {"event log", "read model"}
    assert set(draining.json()["reasons"]) == {"gateway"}
    answers = [without_postgres, without_log, draining]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(503, "not_ready")] * 3


async def test_ready_names_the_views_that_stand_still(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def parked(*_: object) -> dict[str, int]:
        return {"job": 16}

    monkeypatch.setattr(world.queries, "parked", parked)
    found = await ready(world)

    assert (found.status_code, found.json()) == (200, {"status": "ready", "parked": {"job": 16}})


async def test_a_read_model_that_is_far_behind_is_not_ready(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def far_behind(*_: object) -> int:
        return world.events - MAX_LAG - 1

    monkeypatch.setattr(world.queries, "position", far_behind)

    assert "behind" in (await ready(world)).json()["reasons"]["read model"]


async def test_alive_asks_nothing(world: World) -> None:
    world.queries.away = world.feed.away = world.bus.away = True
    async with world.client(None) as client:
        answer = await client.get("/health/live")

    assert answer.json() == {"status": "alive"}


def test_a_cursor_is_read_as_it_was_written() -> None:
    assert [decode_cursor(encode_cursor(n)) for n in (1, 20, 2**40)] == [1, 20, 2**40]
    assert decode_cursor(None) is None
    with pytest.raises(Problem):
        decode_cursor("AAAA====")


async def test_nobody_is_let_in_before_a_short_log_too_has_become_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore: an empty read model is not a thousand events behind, and shows nothing."""
    reached = 0

    async def position(name: str = "registry") -> int:
        return reached

    monkeypatch.setattr(world.queries, "position", position)
    last = (await world.feed.state("EVENTS")).last
    assert last > 0
    async with world.client(None) as client:
        empty = await client.get("/health/ready")
        reached = last
        filled = await client.get("/health/ready")
        reached = last - 1
        behind = await client.get("/health/ready")

    assert [empty.status_code, filled.status_code, behind.status_code] == [503, 200, 200]
    assert f"{last} events behind" in empty.json()["detail"]
