"""Runs projections over messages that a test holds, and looks at what became of them."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from projections.ports import EventSource, Message
from projections.projection import Projection
from projections.run import Runner
from projections.schema import ensure_tables
from tests.projections.histories import Stored

DEADLINE_S = 30.0
Rows = dict[str, list[str]]


class ListSource:
    """A stream in memory; ``sizes`` are those of the batches, the last one again and again."""

    def __init__(self, messages: Sequence[Stored], sizes: Sequence[int] = (1000,)) -> None:
        self.messages = list(messages)
        self._sizes = sizes

    async def last(self) -> int:
        return self.messages[-1].sequence if self.messages else 0

    async def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]:
        left = [message for message in self.messages if message.sequence > after]
        for size in (*self._sizes, *(self._sizes[-1],) * len(left)):
            if left:
                yield left[:size]
                left = left[size:]
        while True:
            await asyncio.sleep(0.02)
            yield []


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(runner: Runner[Any]) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def project(
    projection: Projection[Any], source: EventSource, dsn: str, until: int | None = None
) -> Runner[Any]:
    """Run until this sequence (or the source's last) is in Postgres, or the projection stops."""
    await make_tables(dsn, projection)
    wanted = await source.last() if until is None else until
    runner = Runner(projection, source, dsn)
    async with running(runner) as task:

        async def there() -> bool:
            return task.done() or runner.state.sequence >= wanted

        await eventually(there)
    return runner


async def make_tables(dsn: str, projection: Projection[Any]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await ensure_tables(connection, projection, replace=True)
    finally:
        await connection.close()


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def drop_everything(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        ours = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^finetrail'"
        for (schema,) in await connection.fetch(ours):
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    finally:
        await connection.close()


async def all_rows(dsn: str) -> Rows:
    """Every row of every table as text, without the checkpoints."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'finetrail'"
        )
        rows: Rows = {}
        for (table,) in found:
            if not table.startswith("projection_"):
                records = await connection.fetch(f"SELECT t::text FROM finetrail.{table} AS t")  # noqa: S608
                rows[table] = sorted(record[0] for record in records)
        return rows
    finally:
        await connection.close()
