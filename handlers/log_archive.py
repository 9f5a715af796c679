"""Keeps what telemetry says of jobs for ever: chunks of log lines become blobs that events name.

It may run in several processes: each job's stream decides which chunk is next, so every line is
archived once. Where to begin is told by the last such event; what was read before is passed over.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Protocol, Self
from uuid import UUID

from nats.errors import Error as NatsError
from pydantic import ValidationError

from domain.blobs import BlobRef
from domain.errors import BusUnavailable, CommandTimeout, StoreUnavailable
from domain.job_logs.chunks import Said, chunk_name, pack
from domain.job_logs.commands import ArchiveLogs
from domain.job_logs.job_log import decider
from domain.messages import Envelope, StreamId, follow_up_id
from domain.subjects import REACTION_SOURCE
from domain.telemetry import LogEmitted
from handlers.histories import Histories
from handlers.ports import Clock, CommandBus, Message

MAX_WAITING: Final = 8 * 1024 * 1024  # bytes in memory; then chunks are made before their time
MAX_CHUNK: Final = 4 * 1024 * 1024  # bytes of messages in one chunk
RETRY_S: Final = 2.0
AWAY: Final = (StoreUnavailable, BusUnavailable, CommandTimeout, NatsError, OSError)

_log = logging.getLogger(__name__)


class Telemetry(Protocol):
    """Log lines of a workspace, in order; a batch is empty when nothing came for a second."""

    def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]: ...


class ChunkWriter(Protocol):
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    async def write(self, chunk: bytes) -> None: ...
    async def commit(self) -> BlobRef: ...


class ChunkStore(Protocol):
    def writer(self) -> ChunkWriter: ...


class LogArchiver:
    """Gathers lines by job, and every ``every_s`` makes a chunk of what has come."""

    def __init__(
        self,
        workspace: str,
        telemetry: Telemetry,
        blobs: ChunkStore,
        histories: Histories,
        bus: CommandBus,
        clock: Clock,
        *,
        begin: Callable[[], Awaitable[int]],
        every_s: float,
    ) -> None:
        self._workspace = workspace
        self._telemetry = telemetry
        self._blobs = blobs
        self._histories = histories
        self._bus = bus
        self._clock = clock
        self._begin = begin
        self._every_s = every_s
        self._waiting: dict[UUID, list[Said]] = {}
        self._bytes = 0
        self._reached = 0
        self._through = 0
        self._due = 0.0

    def wake(self) -> None:
        """A job has ended: its last lines are not kept waiting."""
        self._due = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until ``stop``; what is in memory then is read again at the next start."""
        while not stop.is_set():
            try:
                await self._follow(stop)
            except AWAY as problem:
                _log.warning("log lines wait to be archived: %s", problem)
            except Exception:  # noqa: BLE001 - the top of the loop, which outlives everything
                _log.exception("log lines could not be archived; they are tried again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await stop.wait()

    async def _follow(self, stop: asyncio.Event) -> None:
        self._waiting.clear()
        self._bytes = 0
        self._through = self._reached = await self._begin()
        self._due = time.monotonic() + self._every_s
        async with aclosing(self._telemetry.follow(self._reached)) as batches:
            async for batch in batches:
                for message in batch:
                    self._take(message)
                if time.monotonic() >= self._due or self._bytes >= MAX_WAITING:
                    await self._flush()
                if stop.is_set():
                    return

    def _take(self, message: Message) -> None:
        self._reached = message.sequence
        tokens = message.subject.split(".")
        try:
            said = LogEmitted.model_validate_json(message.data)
            job_id, attempt = UUID(tokens[3]), int(tokens[4])
        except (ValidationError, ValueError, IndexError) as problem:
            _log.warning("telemetry %d is not archived: %s", message.sequence, problem)
            return
        if said.lines:
            waiting = self._waiting.setdefault(job_id, [])
            waiting.append(Said(message.sequence, attempt, said.lines))
            self._bytes += len(message.data)

    async def _flush(self) -> None:
        """Make chunks of everything that waits."""
        for job_id, messages in list(self._waiting.items()):
            await self._archive(job_id, messages, is_last=len(self._waiting) == 1)
            del self._waiting[job_id]
        self._through, self._bytes = self._reached, 0
        self._due = time.monotonic() + self._every_s

    async def _archive(self, job_id: UUID, messages: Sequence[Said], *, is_last: bool) -> None:
        stream = StreamId(self._workspace, "job_log", job_id)
        known = (await self._histories.load(stream, decider)).state
        new = [message for message in messages if message.sequence > known.archived]
        parts = _parts(new)
        for part in parts:
            # With the last one everything that was read is archived.
            through = self._reached if is_last and part is parts[-1] else self._through
            chunk = await self._stored(pack(part))
            first, last = part[0].sequence, part[-1].sequence
            id_ = follow_up_id(job_id, f"archive {first} {last}")
            command = ArchiveLogs(
                job_id=job_id,
                name=chunk_name(part),
                chunk=chunk,
                first=first,
                last=last,
                lines=sum(len(message.lines) for message in part),
                through=through,
            )
            outcome = await self._bus.send(
                Envelope(
                    id=id_,
                    stream=stream,
                    source=REACTION_SOURCE,
                    actor="log-archive",
                    correlation_id=id_,
                    causation_id=None,
                    sent_at=self._clock(),
                    command=command,
                )
            )
            if outcome.status in {"rejected", "failed"}:
                # Another archiver has some of these lines: begin again behind what is archived.
                raise StoreUnavailable(f"lines of job {job_id}: {outcome.message}")

    async def _stored(self, data: bytes) -> BlobRef:
        async with self._blobs.writer() as writer:
            await writer.write(data)
            return await writer.commit()


def _parts(messages: Sequence[Said]) -> list[list[Said]]:
    """Parts of bounded size; one message stays in one part."""
    parts: list[list[Said]] = []
    size = MAX_CHUNK
    for message in messages:
        length = sum(len(line.message) for line in message.lines)
        if size + length > MAX_CHUNK:
            parts.append([])
            size = 0
        parts[-1].append(message)
        size += length
    return parts
