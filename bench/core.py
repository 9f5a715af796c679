"""What everything else stands on, measured: commands, appends, streams, lists, replay and downloads.

    python -m bench.core [--json] [--quick]

It starts servers of its own. The last line is one JSON object: milliseconds, and counts a second, and
what the machine itself gave before and after.
"""

import argparse
import asyncio
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
from nats.aio.client import Client

from adapters.event_records import encode_records
from adapters.jetstream_event_store import JetStreamEventStore
from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import connect
from bench import projections
from bench.machine import machine
from bench.main_job import ROOT
from domain.messages import Command, Envelope, StreamId
from domain.models.commands import CreateModel
from domain.models.events import ModelCreated
from domain.subjects import REACTION_SOURCE
from finetrail.owner import issue_key
from finetrail.projections import create_tables
from finetrail.settings import GatewaySettings, NatsRole, Settings
from finetrail.stack.supervisor import CORE, EmbeddedStack

WORKSPACE: Final = "default"
AT_ONCE: Final = 64  # appends in flight
LINES_PER_S: Final = 20
CLIENTS: Final = 200


@dataclass(frozen=True, slots=True)
class Size:
    commands: int
    lines: int  # read by each client
    appends: int
    lists: int
    replayed: int  # events
    zip_mib: int
    zip_runs: int


FULL: Final = Size(
    commands=1000, lines=300, appends=5000, lists=500, replayed=40_000, zip_mib=512, zip_runs=5
)
QUICK: Final = Size(
    commands=100, lines=40, appends=500, lists=50, replayed=5000, zip_mib=32, zip_runs=2
)


def at(share: float, values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def in_ms(share: float, seconds: Sequence[float]) -> float:
    return round(at(share, seconds) * 1e3, 2)


async def logged_in(settings: Settings, role: NatsRole, ends: AsyncExitStack) -> Client:
    login = settings.nats_login(role)
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="bench",
        inbox_prefix=login.inbox_prefix,
    )
    ends.push_async_callback(nc.close)
    return nc


def creation(number: int) -> Envelope[Command]:
    model_id = uuid4()
    return Envelope(
        id=uuid4(),
        stream=StreamId(WORKSPACE, "model", model_id),
        source=REACTION_SOURCE,
        actor=REACTION_SOURCE,
        correlation_id=uuid4(),
        causation_id=None,
        sent_at=datetime.now(UTC),
        command=CreateModel(model_id=model_id, name=f"bench-{number}", base_model="bench"),
    )


async def timed(actions: int, act: Callable[[int], Awaitable[object]]) -> list[float]:
    """Seconds of each, one after the other."""
    took = []
    for number in range(actions):
        began = time.perf_counter()
        await act(number)
        took.append(time.perf_counter() - began)
    return took


async def command_times(settings: Settings, number: int) -> list[float]:
    """Seconds from sending a command to hearing that its event is committed."""
    async with AsyncExitStack() as ends:
        bus = NatsCommandBus(await logged_in(settings, "handlers", ends))

        async def send(one: int) -> None:
            outcome = await bus.send(creation(one))
            if outcome.status != "recorded":
                raise SystemExit(f"a command was {outcome.status}: {outcome.message}")

        await timed(20, send)  # the first ones load code
        return await timed(number, send)


async def append_rates(settings: Settings, number: int) -> tuple[float, float]:
    """Appends a second through the event store, and bare publishes of the same bytes."""
    async with AsyncExitStack() as ends:
        nc = await logged_in(settings, "handlers", ends)
        store, js = JetStreamEventStore(nc), nc.jetstream()

        async def append(cause: Envelope[Command]) -> None:
            await store.append(
                cause.stream,
                [created(cause.stream.id)],
                expected_revision=0,
                cause=cause,
                recorded_at=datetime.now(UTC),
            )

        async def publish(cause: Envelope[Command]) -> None:
            ((_, headers, body),) = encode_records(
                [created(cause.stream.id)], cause, datetime.now(UTC)
            )
            await js.publish(cause.stream.subject, body, headers=headers, timeout=10)

        rates = [await _rate(number, act) for act in (append, publish, append, publish)]
        return max(rates[::2]), max(rates[1::2])


def created(model_id: UUID) -> ModelCreated:
    return ModelCreated(model_id=model_id, name=f"bench-{model_id.hex}", base_model="bench")


async def _rate(number: int, act: Callable[[Envelope[Command]], Awaitable[None]]) -> float:
    causes = iter([creation(one) for one in range(number)])

    async def work() -> None:
        for cause in causes:
            await act(cause)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return number / (time.perf_counter() - began)


async def stream_times(http: httpx.AsyncClient, key: str, clients: int, lines: int) -> Any:
    """What so many readers in another process say of the way from a written line to them."""
    path = f"/api/v1/jobs/{await _queued_job(http)}/logs"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.sse_clients"),
        *(f"{http.base_url}".rstrip("/") + path, key, str(clients), str(lines)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()  # it is ready
    began = time.monotonic()
    for number in range(lines):
        await asyncio.sleep(max(0.0, began + number / LINES_PER_S - time.monotonic()))
        line = {"message": f"sent={time.monotonic():.6f}"}
        (await http.post(path, json={"lines": [line]})).raise_for_status()
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"the readers failed with exit status {process.returncode}")
    found = json.loads(output)
    if found["arrived"] != clients * lines:
        raise SystemExit(f"{found['arrived']} of {clients * lines} lines arrived")
    return found


async def _queued_job(http: httpx.AsyncClient) -> str:
    """A job that waits for ever: no agent is there."""
    rows = "".join(f"message {n},{'yes' if n % 2 else 'no'}\n" for n in range(40))
    dataset = await http.post(
        "/api/v1/datasets", params={"filename": "bench.csv"}, content=f"text,label\n{rows}"
    )
    body = {"model": "bench", "dataset_id": dataset.raise_for_status().json()["id"]}
    job = await http.post("/api/v1/jobs", json=body)
    return str(job.raise_for_status().json()["id"])


async def list_times(http: httpx.AsyncClient, number: int) -> list[float]:
    """Seconds of the first page of models, of which there are many."""

    async def page(_: int) -> None:
        answer = await http.get("/api/v1/models", params={"limit": 50})
        if len(answer.raise_for_status().json()["items"]) < 50:
            raise SystemExit("the list of models is shorter than a page")

    await timed(10, page)
    return await timed(number, page)


async def serving(size: Size, say: Callable[[str], None]) -> dict[str, Any]:
    """What is measured on a stack as `finetrail up` runs it, but without an agent."""
    with tempfile.TemporaryDirectory() as folder:
        given = Settings(data_dir=Path(folder) / "data", gateway=GatewaySettings(port=0))

        async def prepare(settings: Settings) -> None:
            await create_tables(settings.postgres_dsn)

        async with AsyncExitStack() as ends:
            stack = await ends.enter_async_context(
                EmbeddedStack(given, roles=(CORE,), prepare_tables=prepare)
            )
            settings = stack.settings
            key = await issue_key(settings, name="bench", role="admin")
            http = await ends.enter_async_context(
                httpx.AsyncClient(
                    base_url=settings.gateway_url,
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=30,
                    trust_env=False,
                )
            )
            say("commands")
            commands = await command_times(settings, size.commands)
            say("streams")
            one = await stream_times(http, key, 1, size.lines)
            many = await stream_times(http, key, CLIENTS, size.lines)
            say("lists")
            lists = await list_times(http, size.lists)
            say("appends")
            appends, raw = await append_rates(settings, size.appends)
    return {
        "command_p50_ms": in_ms(0.5, commands),
        "command_p99_ms": in_ms(0.99, commands),
        "sse_1_p99_ms": one["p99_ms"],
        f"sse_{CLIENTS}_p50_ms": many["p50_ms"],
        f"sse_{CLIENTS}_p99_ms": many["p99_ms"],
        "appends_per_s": round(appends),
        "raw_appends_per_s": round(raw),
        "http_list_p95_ms": in_ms(0.95, lists),
    }


def zip_ratio(size: Size) -> float | None:
    """None where this build has no such measurement."""
    try:
        found = importlib.import_module("bench.zip")
    except ModuleNotFoundError:
        return None
    return round(float(found.zip_ratio(size.zip_mib, size.zip_runs)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    parser.add_argument("--quick", action="store_true", help="few of everything: does it work?")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL

    def say(what: str) -> None:
        if not asked.json:
            print(what, flush=True)

    before = machine()
    found = asyncio.run(serving(size, say))
    say("replay")
    found["replay_per_s"] = asyncio.run(projections.measure(size.replayed))
    say("downloads")
    found["zip_ratio"] = zip_ratio(size)
    print(json.dumps({**found, "before": before, "after": machine()}))


if __name__ == "__main__":
    main()
