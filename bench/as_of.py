"""How long it takes to ask about the past: one thing, the registry's lists, a difference, by sequence and time.

python -m bench.as_of [EVENTS]

The log is that of `bench.projections`. Each figure is of questions about random things at random points, half of
them named by their time: from the text of the point to the rows. The last line is one JSON object.
"""

import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters.nats_connection import close, connect
from adapters.nats_feed import NatsFeed
from bench.projections import append, replay, synthetic
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from gateway.as_of import Past
from gateway.ports import Feed
from projections import tables as t
from projections.changes import KINDS
from projections.model_filter import ModelFilter
from projections.past import PastQueries
from projections.projection import registry
from projections.queries import Queries, open_queries
from projections.schema import ensure_tables

TIMES: Final = 300  # that each question is asked: a p95 of 15 slower ones
SEED: Final = 20_261_121
PAGE: Final = 20

Thing = tuple[str, UUID]  # its workspace and its id
Question = Callable[[PastQueries, Thing], Awaitable[object]]


async def measure(settings: Settings, events: int | None = None) -> dict[str, Any]:
    """Figures in ms over a log that is projected already, as far as it is or up to an event."""
    login = settings.nats_login("gateway")
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="bench as-of",
        inbox_prefix=login.inbox_prefix,
    )
    things = await _things(settings.postgres_dsn)
    try:
        async with open_queries(settings.postgres_dsn) as queries:
            events = events or await queries.position()
            asking = _Asking(queries, NatsFeed(nc), events, things)
            figures = {
                name: await asking.times(kind, ask) for name, (kind, ask) in QUESTIONS.items()
            }
            figures["diff"] = await asking.differences()
    finally:
        await close(nc)
    return {
        "events": events,
        "as_of_p95_ms": max(figures[name]["p95_ms"] for name in SINGLE),
        "as_of_list_p95_ms": max(figures[name]["p95_ms"] for name in LISTS),
        "questions": figures,
    }


async def _job(past: PastQueries, thing: Thing) -> object:
    return await past.job(*thing), await past.job_epochs(*thing)


READY: Final = ModelFilter(status="ready")
QUESTIONS: Final[dict[str, tuple[str, Question]]] = {
    "job": ("job", _job),
    "model": ("model", lambda past, thing: past.model(*thing)),
    "version": ("model", lambda past, thing: past.version(*thing, thing[1].int % 50 + 1)),
    "evaluation": ("evaluation", lambda past, thing: past.evaluation(*thing)),
    "dataset": ("dataset", lambda past, thing: past.dataset(*thing)),
    "models": ("model", lambda past, thing: past.models(thing[0], limit=PAGE + 1)),
    "models_ready": ("model", lambda past, thing: past.models(thing[0], READY, limit=PAGE + 1)),
    "versions": ("model", lambda past, thing: past.versions(*thing, limit=PAGE + 1)),
    "evaluations": ("model", lambda past, thing: past.evaluations(thing[0], limit=PAGE + 1)),
}
SINGLE: Final = ("job", "model", "version", "evaluation", "dataset")
LISTS: Final = ("models", "models_ready", "versions")


class _Asking:
    """Asks about random things at random points."""

    def __init__(
        self, queries: Queries, feed: Feed, events: int, things: Mapping[str, list[Thing]]
    ) -> None:
        self._queries = queries
        self._feed = feed
        self._events = events
        self._things = things
        self._chance = random.Random(SEED)

    async def times(self, kind: str, ask: Question) -> dict[str, float]:
        return _of([await self._time(kind, ask) for _ in range(TIMES)])

    async def _time(self, kind: str, ask: Question) -> float:
        thing = self._chance.choice(self._things[kind])
        past = Past(self._queries, self._feed, thing[0])
        point = str(self._chance.randint(1, self._events))
        if (
            self._chance.random() < 0.5
        ):  # events of the bench are a second apart, also in the future
            row = await self._queries.event(thing[0], int(point))
            point = row.time.isoformat() if row and row.time < datetime.now(UTC) else point
        began = time.perf_counter()
        await ask(self._queries.at(await past.point(point)), thing)
        return time.perf_counter() - began

    async def differences(self) -> dict[str, float]:
        took = []
        for _ in range(TIMES // 10):
            workspace, _ = self._chance.choice(self._things["model"])
            since, until = sorted(self._chance.sample(range(self._events + 1), 2))
            began = time.perf_counter()
            await self._queries.changes(workspace, since, until).page(range(len(KINDS)), None, PAGE)
            took.append(time.perf_counter() - began)
        return _of(took)


async def _things(dsn: str) -> dict[str, list[Thing]]:
    connection = await asyncpg.connect(dsn)
    try:
        return {
            table.name: [
                (row[0], row[1])
                for row in await connection.fetch(f"SELECT workspace, id FROM {table.fullname}")  # noqa: S608 - our own name
            ]
            for table in (t.job, t.model, t.evaluation, t.dataset)
        }
    finally:
        await connection.close()


def _of(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 2),
        "p95_ms": round(1000 * ordered[int(0.95 * len(ordered))], 2),
        "worst_ms": round(1000 * ordered[-1], 2),
    }


async def _alone(events: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given = Settings(data_dir=Path(folder) / "data", gateway=GatewaySettings(port=0))
        async with EmbeddedStack(given) as stack:
            await append(stack.settings, synthetic(events))
            connection = await asyncpg.connect(stack.settings.postgres_dsn)
            await ensure_tables(connection, registry, replace=True)
            await connection.close()
            await replay(stack.settings, registry, events)
            return await measure(stack.settings, events)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_alone(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000))))
