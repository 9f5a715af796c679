"""A core on real servers as those see it who watch it: traces, figures, and requests over time."""

import asyncio
import contextlib
import gzip
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from typing_extensions import override

from adapters.postgres_request_store import PostgresRequestStore
from domain.request_figures import RequestFigures
from finetrail.core import run_core
from finetrail.metrics import served
from finetrail.owner import issue_key
from finetrail.projections import create_tables
from finetrail.settings import Settings
from finetrail.stack.supervisor import EmbeddedStack
from finetrail.tracing import traced
from tests.infra import free_port
from tests.stack.support import settings_in

pytestmark = pytest.mark.infra

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass
class Receiver:
    """Takes spans as a collector does."""

    spans: list[Any] = field(default_factory=list)
    url: str = ""

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    received.spans += scope.spans
            self.send_response(200)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        received.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        yield received
        server.shutdown()


@pytest.fixture(scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    settings = settings_in(tmp_path_factory.mktemp("watched"))

    async def prepare(resolved: Settings) -> None:
        await create_tables(resolved.postgres_dsn)

    async with EmbeddedStack(settings, prepare_tables=prepare) as stack:
        yield stack


@contextlib.asynccontextmanager
async def core(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway, handlers and projections in this process."""
    stop = asyncio.Event()
    running = asyncio.create_task(run_core(settings, stop))
    client = httpx.AsyncClient(
        base_url=settings.gateway_url,
        trust_env=False,
        timeout=20,
    )
    try:
        async with client, asyncio.timeout(30):
            while not await is_ready(client):
                assert not running.done(), running
                await asyncio.sleep(0.02)
            key = await issue_key(settings, name="watcher", role="admin")
            client.headers["Authorization"] = f"Bearer {key}"
            while (await client.get("/api/v1/agents")).status_code == 401:
                await asyncio.sleep(0.02)
            yield client
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await running


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).is_success
    except httpx.TransportError:
        return False


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_one_trace_leads_from_the_request_to_the_row(
    servers: EmbeddedStack, receiver: Receiver
) -> None:
    settings = servers.settings
    port = free_port()
    with traced("core", receiver.url):
        async with core(settings) as client, served("127.0.0.1", port):
            traceparent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            body = {"name": "traced", "role": "viewer"}
            issued = await client.post("/api/v1/keys", json=body, headers=traceparent)
            async with asyncio.timeout(10):
                while not (events := await key_events(client, issued.json()["sequence"])):
                    await asyncio.sleep(0.02)
            metrics = await client.get("/metrics")
            own = await client.get(f"http://127.0.0.1:{port}/metrics")
            shown = await client.get("/api/v1/admin/requests", params={"step": 86400})

    assert issued.status_code == 201
    assert [event["type"] for event in events] == ["KeyIssued"]
    (request,) = receiver.named("POST /api/v1/keys")
    (decided,) = receiver.named("decide IssueKey")[-1:]
    projected = [s for s in receiver.named("project KeyIssued") if s.trace_id.hex() == TRACE]
    assert {span.trace_id.hex() for span in (request, decided, *projected)} == {TRACE}
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    assert decided.parent_span_id == request.span_id
    assert [span.parent_span_id for span in projected] == [decided.span_id]
    headers = await event_headers(settings, issued.json()["sequence"])
    assert headers["traceparent"] == f"00-{TRACE}-{decided.span_id.hex()}-01"

    found = samples(metrics.text)
    issue = (("command", "IssueKey"), ("outcome", "recorded"))
    assert found["finetrail_commands_total", issue] >= 1
    assert found["finetrail_projection_running", (("projection", "registry"),)] == 1
    sequence = found["finetrail_projection_sequence", (("projection", "registry"),)]
    assert sequence >= issued.json()["sequence"]
    assert ("process_cpu_seconds_total", ()) in found
    assert found["finetrail_tasks", ()] > 10
    assert set(samples(own.text)) >= {name for name in found if "http" not in name[0]}
    counts = {(one["route"], one["status"]): one["count"] for one in shown.json()["items"]}
    assert counts["/api/v1/keys", "2xx"] == 1


async def key_events(client: httpx.AsyncClient, sequence: int) -> list[dict[str, Any]]:
    answer = await client.get("/api/v1/events", params={"after": sequence - 1, "limit": 1})
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def event_headers(settings: Settings, sequence: int) -> dict[str, str]:
    from finetrail.bootstrap import admin_connection

    async with admin_connection(settings) as nc:
        message = await nc.jetstream().get_msg("EVENTS", sequence)
    return dict(message.headers or {})


def minute(after: int, count: int, seconds: float, route: str = "/r") -> RequestFigures:
    buckets = [0] * 15
    buckets[4] = count
    at = NOON + timedelta(minutes=after)
    return RequestFigures(at, "GET", route, "2xx", count, seconds, seconds, tuple(buckets))


async def test_requests_of_all_gateways_add_up_and_survive_them(servers: EmbeddedStack) -> None:
    dsn = servers.settings.postgres_dsn
    one, other = PostgresRequestStore(dsn), PostgresRequestStore(dsn)
    await asyncio.gather(
        one.write(UUID(int=1), [minute(0, 3, 0.3), minute(1, 1, 0.1)]),
        other.write(UUID(int=2), [minute(0, 5, 0.5)]),
    )
    await one.write(UUID(int=1), [minute(0, 4, 0.4), minute(0, 9, 0.9, "/other")])  # it has grown

    read = PostgresRequestStore(dsn).read
    by_minute = await read(NOON, NOON + timedelta(minutes=2), 60, "/r")
    together = await read(NOON, NOON + timedelta(hours=1), 3600, None)

    assert [(one.time, one.count) for one in by_minute] == [
        (NOON, 9),
        (NOON + timedelta(minutes=1), 1),
    ]
    assert by_minute[0].buckets[4] == 9
    assert (by_minute[0].seconds, by_minute[0].slowest_s) == pytest.approx((0.9, 0.5))
    assert {(one.route, one.count, sum(one.buckets)) for one in together} == {
        ("/other", 9, 9),
        ("/r", 10, 10),
    }


async def test_statistics_that_are_too_old_are_deleted(servers: EmbeddedStack) -> None:
    store = PostgresRequestStore(servers.settings.postgres_dsn)
    await store.write(UUID(int=3), [minute(100, 1, 0.1), minute(200, 1, 0.1)])

    await store.forget(NOON + timedelta(minutes=150))

    left = await store.read(NOON, NOON + timedelta(days=1), 60, "/r")
    assert [one.time for one in left] == [NOON + timedelta(minutes=200)]


async def test_a_database_that_is_away_is_said_to_be(servers: EmbeddedStack) -> None:
    dsn = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none"

    with pytest.raises(ConnectionError):
        await PostgresRequestStore(dsn).write(UUID(int=1), [minute(0, 1, 0.1)])


async def test_read_models_and_statistics_lie_in_schemas_of_their_own(
    servers: EmbeddedStack,
) -> None:
    await PostgresRequestStore(servers.settings.postgres_dsn).forget(NOON)
    connection = await asyncpg.connect(servers.settings.postgres_dsn)
    try:
        found = await connection.fetch(
            "SELECT table_schema FROM information_schema.tables WHERE table_name = 'request_minutes'"
        )
    finally:
        await connection.close()

    assert [record[0] for record in found] == ["state"]
