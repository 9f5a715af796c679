"""The log's promises, measured: appends, rebuilds beside a reader, switches, and questions about the past.

    python -m bench.log [--json] [--events N]

It starts servers of its own. The last line is one JSON object: counts a second, milliseconds, what
raw servers gave in the same run, and what the machine itself gave before and after.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

import asyncpg
import psutil

from bench.core import append_rates
from bench.machine import machine
from bench.projections import append, synthetic
from finetrail.projections import create_tables
from finetrail.rebuilding import Progress, rebuild
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack, Role
from projections.projection import registry
from tests.projections.histories import Stored

EVENTS: Final = 1_000_000
DISTINCT: Final = 50_000  # events that are made; more are the same ones in other workspaces
APPENDS: Final = 2000
ROWS: Final = 100_000  # of one raw COPY; as many of these as the log has events
SAMPLE_S: Final = 0.5
POINTS: Final = 20  # of the memory curve

PROJECTIONS: Final = Role("projections", (sys.executable, "-m", "finetrail", "projections"))


@dataclass
class Watched:
    """What a reader saw and how much memory was held, while rebuilds ran."""

    reads: int = 0
    wrong: int = 0  # a row was missing, or older than before
    slowest_ms: float = 0.0
    rss_mib: list[int] = field(default_factory=list)


def copies(messages: Sequence[Stored], events: int) -> Iterator[list[Stored]]:
    """As many events as asked for, a workspace at a time."""
    for start in range(0, events, len(messages)):
        name = f"w{start // len(messages)}"
        yield [_in_workspace(message, name) for message in messages[: events - start]]


def _in_workspace(message: Stored, name: str) -> Stored:
    events, _, rest = message.subject.split(".", 2)
    id_ = str(uuid5(NAMESPACE_OID, f"{name} {message.headers['ce-id']}"))
    headers = {**message.headers, "ce-id": id_, "Nats-Msg-Id": id_}
    return replace(message, subject=f"{events}.{name}.{rest}", headers=headers)


async def caught_up(dsn: str, last: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        find = "SELECT sequence FROM finetrail.projection_checkpoint WHERE name = 'registry'"
        while await connection.fetchval(find) < last:  # noqa: ASYNC110 - it only looks
            await asyncio.sleep(SAMPLE_S)
    finally:
        await connection.close()


@asynccontextmanager
async def watching(dsn: str, pid: int) -> Any:
    watched = Watched()
    tasks = [asyncio.create_task(_read(dsn, watched)), asyncio.create_task(_weigh(pid, watched))]
    try:
        yield watched
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one in ended:
        if not isinstance(one, asyncio.CancelledError):
            raise SystemExit(f"the reader ended: {one!r}")


async def _read(dsn: str, watched: Watched) -> None:
    """The newest page of jobs and of the timeline, again and again."""
    connection = await asyncpg.connect(dsn)
    jobs = "SELECT id, sequence FROM finetrail.job WHERE workspace = 'w0' ORDER BY created_sequence DESC LIMIT 50"
    events = "SELECT sequence FROM finetrail.timeline WHERE workspace = 'w0' ORDER BY sequence DESC LIMIT 50"
    try:
        first = await connection.fetch(jobs), await connection.fetch(events)
        while True:
            began = time.perf_counter()
            found = await connection.fetch(jobs), await connection.fetch(events)
            watched.slowest_ms = max(watched.slowest_ms, (time.perf_counter() - began) * 1e3)
            watched.reads += 1
            watched.wrong += found != first
            await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def _weigh(pid: int, watched: Watched) -> None:
    process = psutil.Process(pid)
    while True:
        watched.rss_mib.append(process.memory_info().rss // 1024**2)
        await asyncio.sleep(SAMPLE_S)


def processor_s(pid: int) -> float:
    """What a process has used, with the children that it has and had."""
    process = psutil.Process(pid)
    its = process.cpu_times()
    used = its.user + its.system + its.children_user + its.children_system
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            used += sum(child.cpu_times()[:2])
    return used


class Used:
    """Processor time of each server since it was last asked, which other work does not change much."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = {name: pids[name] for name in ("projections", "postgres", "nats")}
        self._before = self._now()

    def us_for_each(self, events: int) -> dict[str, float]:
        now, before = self._now(), self._before
        self._before = now
        return {name: round((now[name] - before[name]) * 1e6 / events, 1) for name in now}

    def _now(self) -> dict[str, float]:
        return {name: processor_s(pid) for name, pid in self._pids.items()}


async def rebuilt(settings: Settings, view: str | None) -> list[Progress]:
    done: Sequence[Progress] = ()
    async for progress in rebuild(settings, view):
        done = progress
    for one in done:
        if one.status != "switched" or one.differences:
            raise SystemExit(f"{one.views} {one.status}: {one.error} {one.differences}")
    return list(done)


async def copied(dsn: str, events: int) -> float:
    """Rows of the timeline a second by COPY into a bare table, without an index."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(f"SELECT * FROM finetrail.timeline LIMIT {ROWS}")  # noqa: S608
        records = [tuple(record) for record in found]
        await connection.execute("CREATE TABLE bare (LIKE finetrail.timeline)")
        began, rows = time.perf_counter(), 0
        while rows < events:
            await connection.copy_records_to_table("bare", records=records)
            rows += len(records)
        took = time.perf_counter() - began
        await connection.execute("DROP TABLE bare")
        return rows / took
    finally:
        await connection.close()


async def past(settings: Settings) -> dict[str, Any]:
    """What questions about the past take, where this build has that measurement."""
    try:
        found = importlib.import_module("bench.as_of")
    except ModuleNotFoundError:
        return {"as_of_p95_ms": None, "as_of_list_p95_ms": None}
    measured: dict[str, Any] = await found.measure(settings)
    return measured


async def measure(events: int, say: Callable[[str], None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given = Settings(data_dir=Path(folder) / "data", gateway=GatewaySettings(port=0))

        async def prepare(settings: Settings) -> None:
            await create_tables(settings.postgres_dsn)

        async with EmbeddedStack(given, roles=(PROJECTIONS,), prepare_tables=prepare) as stack:
            settings, dsn = stack.settings, stack.settings.postgres_dsn
            say("appends")
            appends, raw = await append_rates(settings, APPENDS)
            say("filling the log")
            for number, messages in enumerate(copies(synthetic(min(events, DISTINCT)), events)):
                await append(settings, messages)
                say(f"  {(number + 1) * DISTINCT:,}")
            last = events + 4 * APPENDS
            began = time.perf_counter()
            await caught_up(dsn, last)
            say(f"followed; {time.perf_counter() - began:.0f} s after the last append")
            views: dict[str, Any] = {}
            switches: list[float] = []
            async with watching(dsn, stack.pids["projections"]) as watched:
                used = Used(stack.pids)
                for name in (view.name for view in registry.views):
                    (done,) = await rebuilt(settings, name)
                    views[name] = {
                        "filled_per_s": done.events_per_s,
                        "seconds": done.seconds,
                        "cpu_us": used.us_for_each(last),
                    }
                    switches.append(done.switch_ms or 0.0)
                    say(f"{name}: {views[name]}")
                alone = len(watched.rss_mib)
                everything = (await rebuilt(settings, None))[0]
                all_us = used.us_for_each(last)
                switches.append(everything.switch_ms or 0.0)
                say(f"all: {everything.events_per_s}/s, {everything.seconds} s")
            if watched.wrong:
                raise SystemExit(f"{watched.wrong} of {watched.reads} reads saw less than before")
            say("raw COPY")
            copy_rate = await copied(dsn, events)
            say("the past")
            asked = await past(settings)
    slowest = min(view["filled_per_s"] for view in views.values())
    curve = watched.rss_mib[alone:]
    return {
        "events": last,
        "appends_per_s": round(appends),
        "raw_appends_per_s": round(raw),
        "rebuild_events_per_s": round(slowest),
        "copy_rows_per_s": round(copy_rate),
        "rebuild_per_copy": round(slowest / copy_rate, 3),
        **asked,
        "switch_ms": round(max(switches), 1),
        "views": views,
        "all_views_s": everything.seconds,
        "all_views_events_per_s": everything.events_per_s,
        "all_views_cpu_us": all_us,
        "reads": watched.reads,
        "slowest_read_ms": round(watched.slowest_ms, 1),
        "rss_mib": curve[:: max(1, len(curve) // POINTS)],
        "rss_peak_mib": max(watched.rss_mib),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    parser.add_argument("--events", type=int, default=EVENTS, help="in the log")
    asked = parser.parse_args()

    def say(what: str) -> None:
        if not asked.json:
            print(what, flush=True)

    before = machine()
    found = asyncio.run(measure(asked.events, say))
    print(json.dumps({**found, "before": before, "after": machine()}))


if __name__ == "__main__":
    main()
