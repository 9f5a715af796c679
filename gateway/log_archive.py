"""A job's log lines as chunks keep them: read back when the stream has forgotten, taken in when brought."""

import errno
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from domain.blobs import BlobRef
from domain.errors import StoreUnavailable
from domain.job_logs.chunks import BadChunk, Said, unpack
from domain.messages import StreamId
from domain.subjects import telemetry_subject
from domain.telemetry import LogEmitted
from gateway.ports import Blobs, Feed, FeedMessage

PAGE: Final = 500
CHUNKS: Final = frozenset({"LogsArchived", "LogChunkTaken"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArchivedMessage:
    """As the stream had it, but for the agent that said it."""

    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    name: str
    blob: BlobRef
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk as the log tells of it. What was brought from outside has no place in telemetry."""

    sequence: int  # of the event
    time: datetime
    name: str
    blob: BlobRef
    lines: int
    first: int | None
    last: int | None


class LogArchive:
    """Asks the log itself, so that it needs no read model."""

    def __init__(self, feed: Feed, blobs: Blobs, workspace: str) -> None:
        self._feed = feed
        self._blobs = blobs
        self._workspace = workspace

    async def through(self) -> int:
        """Up to this telemetry sequence every line is archived.

        Raises:
            StoreUnavailable: The log is away.
        """
        last = await self._feed.last("EVENTS", f"events.{self._workspace}.job_log.*")
        return int(json.loads(last.data)["through"]) if last else 0

    async def taken(self, job_id: UUID) -> dict[str, str]:
        """Hash by name of every chunk that was brought from outside.

        Raises:
            StoreUnavailable: The log is away.
        """
        return {
            said["name"]: said["chunk"]["sha256"]
            async for message, said in self._events(job_id)
            if message.headers.get("ce-type") == "LogChunkTaken"
        }

    async def kept(self, job_id: UUID, after: int, limit: int) -> list[Kept]:
        """Chunks of both kinds behind an event, oldest first.

        Raises:
            StoreUnavailable: The log is away.
        """
        found: list[Kept] = []
        async with aclosing(self._events(job_id, after)) as events:
            async for message, said in events:
                if message.headers.get("ce-type") in CHUNKS:
                    found.append(_kept(message, said))
                if len(found) == limit:
                    break
        return found

    async def messages(self, job_id: UUID, after: int, before: int) -> AsyncIterator["Recalled"]:
        """Messages between two sequences, a chunk at a time.

        Raises:
            StoreUnavailable: The log or the blobs are away.
        """
        async for chunk in self._chunks(job_id):
            if chunk.last <= after or chunk.first >= before:
                continue
            try:
                found = unpack(await self._read(chunk.blob))
            except (FileNotFoundError, BadChunk) as problem:
                _log.error("%s of job %s cannot be read: %s", chunk.name, job_id, problem)
                yield Recalled((), after=min(chunk.last, before - 1), lost=True)
                continue
            wanted = [said for said in found if after < said.sequence < before]
            yield Recalled([self._message(job_id, said) for said in wanted])

    def _message(self, job_id: UUID, said: Said) -> ArchivedMessage:
        return ArchivedMessage(
            said.sequence,
            telemetry_subject(self._workspace, "log", job_id, said.attempt),
            LogEmitted(lines=said.lines).model_dump_json().encode(),
        )

    async def _read(self, blob: BlobRef) -> bytes:
        try:
            return b"".join([piece async for piece in self._blobs.read(blob.sha256)])
        except FileNotFoundError:
            raise
        except OSError as problem:
            if problem.errno == errno.EIO:
                raise BadChunk("its bytes were altered") from problem
            raise StoreUnavailable(f"the blobs cannot be read: {problem}") from problem

    async def _chunks(self, job_id: UUID) -> AsyncIterator[Chunk]:
        async for message, said in self._events(job_id):
            if message.headers.get("ce-type") == "LogsArchived":
                yield _chunk(said)

    async def _events(
        self, job_id: UUID, after: int = 0
    ) -> AsyncGenerator[tuple[FeedMessage, dict[str, Any]], None]:
        subject = StreamId(self._workspace, "job_log", job_id).subject
        reached, more = after, True
        while more:
            page, more = await self._feed.page("EVENTS", subject, reached, PAGE)
            for message in page:
                reached = message.sequence
                yield message, json.loads(message.data)


@dataclass(frozen=True, slots=True)
class JobArchive:
    """The archive of one job."""

    archive: LogArchive
    job_id: UUID

    async def forgotten(self, after: int, feed: Feed) -> AsyncIterator["Recalled"]:
        """What the stream no longer holds behind ``after``, until it holds what follows."""
        first = (await feed.state("TELEMETRY")).first
        while after + 1 < first:
            async for recalled in self.archive.messages(self.job_id, after, first):
                yield recalled
            lost = await self.archive.through() + 1 < first
            yield Recalled((), after=first - 1, lost=lost)
            after = first - 1
            first = (await feed.state("TELEMETRY")).first  # it forgets while it is read


@dataclass(frozen=True, slots=True)
class Recalled:
    messages: Sequence[FeedMessage]
    after: int = 0  # there is nothing up to here; 0: as far as the messages go
    lost: bool = False  # because it cannot be had any more


def _kept(message: FeedMessage, said: dict[str, Any]) -> Kept:
    return Kept(
        sequence=message.sequence,
        time=datetime.fromisoformat(message.headers["ce-time"]),
        name=said["name"],
        blob=BlobRef.model_validate(said["chunk"]),
        lines=int(said["lines"]),
        first=said.get("first"),
        last=said.get("last"),
    )


def _chunk(said: dict[str, Any]) -> Chunk:
    blob = BlobRef.model_validate(said["chunk"])
    return Chunk(said["name"], blob, int(said["first"]), int(said["last"]))
