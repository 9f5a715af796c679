"""Archives messages that a test holds, with a key in a folder."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from adapters.audit_files import AuditFolder
from adapters.nats_event_source import LogMessage
from finetrail.audit.key_file import FOLDER, KEY_FILE, KeyFile
from projections.archive import Archiver, Pace
from projections.archive_store import heads
from tests.projections.histories import Log, Stored, everything
from tests.projections.support import eventually, execute

LENGTH = 107
SLOW = Pace(seconds=3600, events=1_000_000)


@dataclass
class Messages:
    """A log in memory, whole again and again; ``size`` is that of the batches."""

    messages: list[LogMessage]
    size: int = 7

    async def last(self) -> int:
        return self.messages[-1].sequence if self.messages else 0

    async def follow(self, after: int) -> AsyncGenerator[Sequence[LogMessage], None]:
        while True:
            left = [message for message in self.messages if message.sequence > after]
            await asyncio.sleep(0.005)
            yield left[: self.size]
            after = left[: self.size][-1].sequence if left else after


def wire(stored: Stored) -> LogMessage:
    return LogMessage(stored.sequence, stored.subject, block(stored.headers), stored.data, 0)


def block(headers: Mapping[str, str]) -> bytes:
    """Headers as they stand on the wire."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()


def history() -> list[LogMessage]:
    """A log of so many events, however many types there will be."""
    return [wire(stored) for stored in Log().add(*everything()).messages[:LENGTH]]


def archiver(
    dsn: str, messages: list[LogMessage], folder: Path, pace: Pace = SLOW, size: int = 7
) -> Archiver:
    kept = folder / FOLDER
    key = KeyFile(folder / KEY_FILE, kept)
    return Archiver(Messages(messages, size), dsn, key, [AuditFolder(kept, own=True)], pace)


@asynccontextmanager
async def running(runner: Archiver) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def archive(runner: Archiver, until: int) -> Archiver:
    """Run until this sequence is archived or the runner has stopped; it ends cleanly."""
    async with running(runner) as task:

        async def there() -> bool:
            return task.done() or runner.state.sequence >= until

        await eventually(there)
    return runner


async def forget_archive(dsn: str) -> None:
    await execute(dsn, "DROP SCHEMA IF EXISTS archive CASCADE")


async def signed(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [head.sequence for head in await heads(connection)]
    finally:
        await connection.close()
