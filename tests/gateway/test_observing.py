"""What a gateway tells of its requests: lines, figures, statistics over time, and the trace they carry."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from domain.context import current
from domain.tracing import read_traceparent
from gateway.metrics import BUCKETS_S, REGISTRY, page
from gateway.observing import UNMATCHED
from gateway.request_statistics import RequestStatistics, quantile_s
from tests.gateway.real_server import listening
from tests.gateway.world import MemoryRequests, World

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REQUESTS = "/api/v1/admin/requests"


def counted(method: str, route: str, status: str) -> float:
    labels = {"method": method, "route": route, "status": status}
    return REGISTRY.get_sample_value("finetrail_http_requests_total", labels) or 0.0


def fields(record: logging.LogRecord) -> Mapping[str, Any]:
    found: Mapping[str, Any] = vars(record)["fields"]
    return found


async def test_every_request_has_a_line_without_what_its_caller_wrote(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = world.keys["viewer"]
    with caplog.at_level(logging.INFO, "gateway.access"):
        async with world.client("viewer") as client:
            await client.get("/api/v1/jobs", params={"limit": 3, "q": "my-secret-query"})
            await client.get(f"/api/v1/jobs/{UUID(int=5)}")
            await client.get("/no/such/secret-path")
            await client.get("/health/live")

    lines = [fields(record) for record in caplog.records]
    assert [line["route"] for line in lines] == ["/api/v1/jobs", "/api/v1/jobs/{job_id}", UNMATCHED]
    assert [line["status"] for line in lines] == [200, 404, 404]
    assert lines[0]["key_id"] == key.key_id
    assert lines[0]["bytes"] > 0
    assert "secret" not in caplog.text
    assert key.text not in caplog.text
    assert f"GET /api/v1/jobs 200 {lines[0]['ms']:.1f} ms" in caplog.text


async def test_what_a_request_logs_carries_its_id(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    wait_for = world.queries.wait_for

    async def watching(sequence: int, timeout_s: float) -> bool:
        seen.append(current().correlation_id)
        return await wait_for(sequence, timeout_s)

    monkeypatch.setattr(world.queries, "wait_for", watching)
    async with world.client("admin") as client:
        answer = await client.post("/api/v1/keys", json={"name": "n", "role": "viewer"})

    assert seen
    assert set(seen) == {answer.headers["x-request-id"]}
    assert current().correlation_id == ""


async def test_requests_are_counted_by_template_and_never_by_path(world: World) -> None:
    before = counted("GET", "/api/v1/jobs/{job_id}", "404"), counted("GET", UNMATCHED, "404")
    async with world.client("viewer") as client:
        for number in range(3):
            await client.get(f"/api/v1/jobs/{UUID(int=number)}")
            await client.get(f"/{number}/{'x' * number}")
        await client.request("BREW", "/api/v1/jobs")

    after = counted("GET", "/api/v1/jobs/{job_id}", "404"), counted("GET", UNMATCHED, "404")
    assert (after[0] - before[0], after[1] - before[1]) == (3, 3)
    text = page().decode()
    assert str(UUID(int=2)) not in text
    assert "BREW" not in text


async def test_metrics_are_for_whoever_has_a_key(world: World) -> None:
    async with world.client(None) as client:
        refused = await client.get("/metrics")
    async with world.client("viewer") as client:
        answer = await client.get("/metrics")

    assert refused.status_code == 401
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"finetrail_http_requests", "finetrail_http_request_seconds"} <= names


async def test_open_streams_are_counted_while_they_are_open(world: World) -> None:
    def streams() -> float:
        return REGISTRY.get_sample_value("finetrail_http_streams_open") or 0.0

    before = streams()
    headers = world.header("viewer") | {"Accept": "text/event-stream"}
    async with (
        listening(world) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
        client.stream("GET", "/api/v1/events", headers=headers) as answer,
    ):
        await anext(answer.aiter_bytes())
        opened = streams()

    assert opened == before + 1
    assert streams() == before


async def test_a_request_s_trace_is_carried_by_its_command_and_events(world: World) -> None:
    async with world.client("admin") as client:
        for traceparent in (TRACEPARENT, "00-nonsense", ""):
            client.headers["traceparent"] = traceparent
            body = {"name": traceparent or "none", "role": "viewer"}
            assert (await client.post("/api/v1/keys", json=body)).status_code == 201

    sent = [envelope.traceparent for envelope in world.bus.sent]
    recorded = [headers["traceparent"] for _, headers, _ in world.store._log[-3:]]
    assert sent == recorded
    assert sent[0] == TRACEPARENT
    assert all(read_traceparent(one) == one for one in sent)
    assert len({one.split("-")[1] for one in sent}) == 3


async def test_requests_can_be_asked_for_over_time(world: World) -> None:
    async with world.client("admin") as client:
        for _ in range(3):
            await client.get("/api/v1/jobs")
        await client.get(f"/api/v1/jobs/{UUID(int=1)}")
        answer = (await client.get(REQUESTS)).json()
        only = (await client.get(REQUESTS, params={"route": "/api/v1/jobs/{job_id}"})).json()

    found = {(one["route"], one["status"]): one for one in answer["items"]}
    assert found["/api/v1/jobs", "2xx"]["count"] == 3
    assert found["/api/v1/jobs/{job_id}", "4xx"]["count"] == 1
    one = found["/api/v1/jobs", "2xx"]
    assert 0 < one["p50_ms"] <= one["p95_ms"] <= one["max_ms"]
    assert [one["route"] for one in only["items"]] == ["/api/v1/jobs/{job_id}"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"from": "2026-01-02T00:00:00"}, "from"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z", "step": 60}, "step"),
        ({"step": 5}, "step"),
        ({"to": "yesterday"}, "to"),
        ({"to": "0001-01-01T00:00:00Z"}, "to"),
        ({"from": "9999-12-31T23:59:59-12:00"}, "from"),
    ],
)
async def test_a_span_that_makes_no_sense_is_refused_with_the_reason(
    world: World, asked: dict[str, Any], field: str
) -> None:
    async with world.client("admin") as client:
        answer = await client.get(REQUESTS, params=asked)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field


async def test_a_span_of_seconds_is_answered_with_a_step_of_a_minute(world: World) -> None:
    asked = {"from": "2026-11-20T12:00:10Z", "to": "2026-11-20T12:00:45Z"}
    async with world.client("admin") as client:
        answer = await client.get(REQUESTS, params=asked)

    assert (answer.status_code, answer.json()["step_s"]) == (200, 60)


async def test_the_step_that_a_refusal_names_is_accepted(world: World) -> None:
    asked: dict[str, Any] = {"from": "2026-11-20T00:00:00Z", "to": "2026-11-21T01:00:30Z"}
    async with world.client("admin") as client:
        refused = await client.get(REQUESTS, params={**asked, "step": 60})
        (named,) = [int(word) for word in refused.json()["detail"].split() if word.isdecimal()]
        answer = await client.get(REQUESTS, params={**asked, "step": named})

    assert (refused.status_code, answer.status_code) == (400, 200)


async def test_requests_go_on_while_statistics_cannot_be_kept(world: World) -> None:
    world.requests.away = True
    async with world.client("admin") as client:
        await client.get("/api/v1/jobs")
        while_away = await client.get(REQUESTS)
        world.requests.away = False
        answer = (await client.get(REQUESTS)).json()

    assert while_away.status_code == 503
    assert while_away.json()["code"] == "statistics_unavailable"
    found = {(one["route"], one["status"]): one["count"] for one in answer["items"]}
    assert found["/api/v1/jobs", "2xx"] == 1
    assert found[REQUESTS, "5xx"] == 1


class Clock:
    now = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)

    def __call__(self) -> float:
        return self.now.timestamp()


async def test_what_is_written_twice_is_counted_once_and_gateways_add_up() -> None:
    store, clock = MemoryRequests(), Clock()
    one, other = RequestStatistics(store, clock), RequestStatistics(store, clock)

    for statistics in (one, other, one):
        statistics.observe("GET", "/r", "2xx", 0.002)
        assert await statistics.flush()
        assert await statistics.flush()

    assert sorted(kept.count for kept in store.kept.values()) == [1, 2]


async def test_a_minute_that_is_over_and_written_is_forgotten_here() -> None:
    store, clock = MemoryRequests(), Clock()
    statistics = RequestStatistics(store, clock)
    statistics.observe("GET", "/r", "2xx", 0.002)
    await statistics.flush()
    kept_for_the_minute = len(statistics._cells)
    clock.now += timedelta(minutes=1)

    statistics.observe("GET", "/r", "2xx", 0.002)
    await statistics.flush()

    assert (kept_for_the_minute, len(statistics._cells), len(store.kept)) == (1, 1, 2)


async def test_memory_is_bounded_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.request_statistics.MAX_CELLS", 2)
    store, clock = MemoryRequests(), Clock()
    store.away = True
    statistics = RequestStatistics(store, clock)
    for _ in range(4):
        clock.now += timedelta(minutes=1)
        statistics.observe("GET", "/r", "2xx", 0.002)

    assert not await statistics.flush()
    store.away = False
    await statistics.flush()

    latest = [clock.now - timedelta(minutes=1, seconds=30), clock.now - timedelta(seconds=30)]
    assert [kept.time for kept in store.kept.values()] == latest
    assert "2 minutes and routes are dropped" in caplog.text


def test_quantiles_are_read_off_buckets() -> None:
    buckets = [0] * (len(BUCKETS_S) + 1)
    buckets[3], buckets[-1] = 90, 10  # 5 to 10 ms; and beyond the last bound

    assert quantile_s(tuple(buckets), 40.0, 0.45) == pytest.approx(0.0075)
    assert quantile_s(tuple(buckets), 40.0, 0.95) == pytest.approx(35.0)
    assert quantile_s(tuple(buckets), 0.006, 0.9) == 0.006
    assert quantile_s((0,) * len(buckets), 0.0, 0.5) == 0.0


async def test_the_answer_is_json_that_says_what_it_covers(world: World) -> None:
    asked = {"from": "2026-11-20T10:00:30Z", "to": "2026-11-20T12:00:00Z", "step": 90}
    async with world.client("admin") as client:
        answer = json.loads((await client.get(REQUESTS, params=asked)).text)

    assert answer == {
        "since": "2026-11-20T10:00:00Z",
        "until": "2026-11-20T12:00:00Z",
        "step_s": 120,
        "items": [],
    }
