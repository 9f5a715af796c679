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
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters.nats_connection import close, connect
from adapters.nats_feed import NatsFeed
from bench.projections import append, replay, synthetic
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from gateway.as_of import Past
from projections import tables as t
from projections.model_filter import ModelFilter
from projections.past import PastQueries
from projections.projection import registry
from projections.queries import open_queries
from projections.schema import ensure_tables

QUESTIONS: Final = 300  # of each sort: a p95 of 15 slower ones
SEED: Final = 20_261_121
PAGE: Final = 20
WORKSPACE: Final = "default"

Question = Callable[[PastQueries], Awaitable[object]]


async def measure(settings: Settings, events: int) -> dict[str, Any]:
    """Figures in ms over a log of so many events that is projected already."""
    login = settings.nats_login("gateway")
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="bench as-of",
        inbox_prefix=login.inbox_prefix,
    )
    things = await _things(settings.postgres_dsn)
    chance = random.Random(SEED)
    try:
        async with open_queries(settings.postgres_dsn) as queries:
            past = Past(queries, NatsFeed(nc), WORKSPACE)
            figures = {}
            for name, ask in _questions(things, chance).items():
                took = [await _timed(past, chance, events, ask) for _ in range(QUESTIONS)]
                figures[name] = _of(took)
            took = []
            for _ in range(QUESTIONS // 10):
                since, until = sorted(chance.sample(range(events + 1), 2))
                began = time.perf_counter()
                await queries.changes(WORKSPACE, since, until).page(range(7), None, PAGE)
                took.append(time.perf_counter() - began)
            figures["diff"] = _of(took)
    finally:
        await close(nc)
    one = [figures[name]["p95_ms"] for name in ("job", "model", "version", "evaluation", "dataset")]
    lists = [figures[name]["p95_ms"] for name in ("models", "models_ready", "versions")]
    return {
        "events": events,
        "as_of_p95_ms": max(one),
        "as_of_list_p95_ms": max(lists),
        "questions": figures,
    }


def _questions(things: dict[str, list[Any]], chance: random.Random) -> dict[str, Question]:
    def some(kind: str) -> Any:
        return chance.choice(things[kind])

    async def job(past: PastQueries) -> object:
        id_ = some("job")
        return await past.job(WORKSPACE, id_), await past.job_epochs(WORKSPACE, id_)

    async def version(past: PastQueries) -> object:
        return await past.version(WORKSPACE, some("model"), chance.randint(1, 100))

    return {
        "job": job,
        "model": lambda past: past.model(WORKSPACE, some("model")),
        "version": version,
        "evaluation": lambda past: past.evaluation(WORKSPACE, some("evaluation")),
        "dataset": lambda past: past.dataset(WORKSPACE, some("dataset")),
        "models": lambda past: past.models(WORKSPACE, limit=PAGE + 1),
        "models_ready": lambda past: past.models(
            WORKSPACE, ModelFilter(status="ready"), limit=PAGE + 1
        ),
        "versions": lambda past: past.versions(WORKSPACE, some("model"), limit=PAGE + 1),
        "evaluations": lambda past: past.evaluations(WORKSPACE, limit=PAGE + 1),
    }


async def _timed(past: Past, chance: random.Random, events: int, ask: Question) -> float:
    point = str(chance.randint(1, events))
    if chance.random() < 0.5:  # the log of the bench has an event a second
        row = await past.queries.event(WORKSPACE, int(point))
        point = row.time.isoformat() if row and row.time < datetime.now(UTC) else point
    began = time.perf_counter()
    await ask(past.queries.at(await past.point(point)))
    return time.perf_counter() - began


async def _things(dsn: str) -> dict[str, list[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return {
            table.name: [
                row[0] for row in await connection.fetch(f"SELECT id FROM {table.fullname}")
            ]  # noqa: S608 - our own name
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
