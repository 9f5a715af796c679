"""Chunks of log lines over HTTP: those of a job, and those that a kernel outside of our agents wrote.

Such a chunk is taken into the job's log once. Its lines become telemetry of attempt 0 under ids that the chunk's hash gives, then the chunk is
recorded. Where that broke off, the next try puts only the lines that are not there yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid5

import msgspec
from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from domain.job_logs.chunks import BadChunk, read_lines
from domain.job_logs.commands import CHUNK_NAME, TakeLogChunk
from domain.subjects import telemetry_subject
from domain.telemetry import LogEmitted, LogLine
from gateway.authentication import Principal
from gateway.commanding import Caller, Commands
from gateway.log_archive import Kept, LogArchive
from gateway.logs import require_job
from gateway.pages import MAX_SEQUENCE, Limit, Page
from gateway.ports import Blobs, Feed
from gateway.problems import Problem, invalid

MAX_BYTES: Final = 8 * 1024 * 1024  # of a chunk as it is sent; half a minute of a busy job is less
LINES: Final = 100  # of one message
MESSAGE_BYTES: Final = 256 * 1024  # likewise: far below what the server takes
PAGE: Final = 500

After = Annotated[
    int, QueryParameter(ge=0, le=MAX_SEQUENCE, description="Chunks behind this one's `sequence`.")
]
Name = Annotated[
    str,
    QueryParameter(
        pattern=CHUNK_NAME, description="As the kernel calls it: `log_<time>.jsonl.gz`."
    ),
]


class TakenChunk(msgspec.Struct):
    """What has become of it; ``known`` when it was taken in before."""

    name: str
    sha256: str
    lines: int
    known: bool


class LogChunk(msgspec.Struct):
    """Lines that are kept for ever, as one file.

    `source` says who made the file. What was archived holds the telemetry from `first` to `last`;
    lines that were brought are archived once more, with all that was said beside them.
    """

    name: str
    source: Literal["archived", "brought"]
    sha256: str
    size: int
    lines: int
    first: int | None
    last: int | None
    time: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class ChunkIntake:
    feed: Feed
    blobs: Blobs
    archive: LogArchive
    commands: Commands
    workspace: str

    async def take(self, caller: Caller, job_id: UUID, name: str, data: bytes) -> TakenChunk:
        """Take in a chunk, or find that it was.

        Raises:
            Problem: It is no chunk, or another one was taken in under this name.
        """
        try:
            lines = read_lines(data)
        except BadChunk as problem:
            raise invalid("body", str(problem), "body") from problem
        async with self.blobs.writer() as writer:
            await writer.write(data)
            ref = writer.ref
            taken = await self.archive.taken(job_id)
            if ref.sha256 in taken.values():
                return TakenChunk(name, ref.sha256, len(lines), known=True)
            if name in taken:
                raise Problem(
                    "log_chunk_differs", f"A chunk {name} with other lines was taken in before."
                )
            await writer.commit()
        await self._say(job_id, ref.sha256, lines)
        through = await self.archive.through()
        command = TakeLogChunk(
            job_id=job_id, name=name, chunk=ref, lines=len(lines), through=through
        )
        await self.commands.send(caller, "job_log", job_id, command)
        return TakenChunk(name, ref.sha256, len(lines), known=False)

    async def _say(self, job_id: UUID, sha256: str, lines: Sequence[LogLine]) -> None:
        there = await self._said(job_id)
        for number, part in enumerate(_parts(lines)):
            id_ = uuid5(job_id, f"chunk {sha256} {number}")
            if str(id_) not in there:
                said = LogEmitted(lines=tuple(part))
                await self.feed.emit(self.workspace, job_id, said, message_id=id_)

    async def _said(self, job_id: UUID) -> set[str]:
        """Ids of everything that was brought from outside and has not been forgotten."""
        subject = telemetry_subject(self.workspace, "log", job_id, 0)
        found: set[str] = set()
        reached, more = 0, True
        while more:
            page, more = await self.feed.page("TELEMETRY", subject, reached, PAGE)
            for message in page:
                reached = message.sequence
                found.add(message.headers.get("ce-id", ""))
        return found


class LogChunksController(Controller):
    path = "/jobs/{job_id:uuid}/logs/chunks"
    tags = ("jobs",)

    @get("/")
    async def chunks(
        self,
        job_id: FromPath[UUID],
        feed: NamedDependency[Feed],
        log_archive: NamedDependency[LogArchive],
        workspace: NamedDependency[str],
        after: After = 0,
        limit: Limit = 20,
    ) -> Page[LogChunk]:
        """The chunks of a job's log, oldest first; `next` is `after` for the page behind."""
        await require_job(feed, workspace, job_id)
        found = await log_archive.kept(job_id, after, limit + 1)
        more = str(found[limit - 1].sequence) if len(found) > limit else None
        return Page([_log_chunk(kept) for kept in found[:limit]], more)

    @post("/", opt={"any_body": True}, status_code=201, request_max_body_size=MAX_BYTES)
    async def take(
        self,
        job_id: FromPath[UUID],
        request: Request[Principal, Any, Any],
        caller: NamedDependency[Caller],
        feed: NamedDependency[Feed],
        chunk_intake: NamedDependency[ChunkIntake],
        workspace: NamedDependency[str],
        name: Name,
    ) -> TakenChunk:
        """Take a chunk of JSON lines in gzip into a job's log; the same chunk is taken in once."""
        await require_job(feed, workspace, job_id)
        return await chunk_intake.take(caller, job_id, name, await request.body())


def _log_chunk(kept: Kept) -> LogChunk:
    return LogChunk(
        name=kept.name,
        source="brought" if kept.first is None else "archived",
        sha256=kept.blob.sha256,
        size=kept.blob.size,
        lines=kept.lines,
        first=kept.first,
        last=kept.last,
        time=kept.time,
        sequence=kept.sequence,
    )


def _parts(lines: Sequence[LogLine]) -> list[list[LogLine]]:
    parts: list[list[LogLine]] = []
    size = 0
    for line in lines:
        length = len(line.message.encode())
        if not parts or len(parts[-1]) >= LINES or size + length > MESSAGE_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += length
    return parts
