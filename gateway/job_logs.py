"""A job's log over HTTP: read, follow, write."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from domain.telemetry import Level, LogEmitted, LogLine
from gateway.authentication import Principal
from gateway.commanding import Caller
from gateway.following import LastEventId, Streams, position_of, wants_stream
from gateway.log_archive import JobArchive, LogArchive
from gateway.logs import LogPage, log_reading, log_topic, read_page, require_job
from gateway.ports import Feed
from gateway.problems import invalid

MAX_LINE_BYTES = 8192

Follow = Annotated[bool, QueryParameter(description="A stream, whatever `Accept` says.")]


class LineBody(msgspec.Struct, forbid_unknown_fields=True):
    """A line of at most 8 KiB of UTF-8."""

    message: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LINE_BYTES)]
    level: Level = "INFO"


class LinesBody(msgspec.Struct, forbid_unknown_fields=True):
    lines: Annotated[list[LineBody], msgspec.Meta(min_length=1, max_length=100)]


class Written(msgspec.Struct):
    """Where the lines stand in the log."""

    sequence: int
    lines: int


class JobLogsController(Controller):
    path = "/jobs/{job_id:uuid}/logs"
    tags = ("jobs",)

    @get("/")
    async def read(
        self,
        job_id: FromPath[UUID],
        request: Request[Principal, Any, Any],
        feed: NamedDependency[Feed],
        log_archive: NamedDependency[LogArchive],
        streams: NamedDependency[Streams],
        workspace: NamedDependency[str],
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
        level: Annotated[Level, QueryParameter(description="The lowest level shown.")] = "DEBUG",
        after: Annotated[str | None, QueryParameter(max_length=40)] = None,
        last_event_id: LastEventId = None,
        *,
        follow: Follow = False,
    ) -> LogPage | Stream:
        """Lines behind a position, as a page of JSON or as a stream that ends with the job.

        `Accept: text/event-stream` asks for the stream; so does `follow=true`, for plain curl.
        """
        await require_job(feed, workspace, job_id)
        archive = JobArchive(log_archive, job_id)
        if not wants_stream(request, follow=follow):
            topic = log_topic(workspace, job_id)
            return await read_page(feed, archive, topic, after=after, limit=limit, level=level)
        position = position_of(last_event_id, after)
        reading = log_reading(feed, archive, workspace, job_id, after=position, level=level)
        return streams.open(request, reading)

    @post("/", status_code=201)
    async def write(
        self,
        job_id: FromPath[UUID],
        data: JSONBody[LinesBody],
        caller: NamedDependency[Caller],
        feed: NamedDependency[Feed],
        workspace: NamedDependency[str],
    ) -> Written:
        """Add lines of your own to a job's log, as attempt 0."""
        await require_job(feed, workspace, job_id)
        lines = _lines(data)
        sequence = await feed.emit(workspace, job_id, lines, message_id=caller.command_id)
        return Written(sequence, len(lines.lines))


def _lines(body: LinesBody) -> LogEmitted:
    for index, line in enumerate(body.lines):
        if len(line.message.encode()) > MAX_LINE_BYTES:
            raise invalid(f"lines[{index}].message", f"at most {MAX_LINE_BYTES:,} bytes", "body")
    now = datetime.now(UTC)
    source: Literal["system"] = "system"
    return LogEmitted(
        lines=tuple(
            LogLine(time=now, level=line.level, message=line.message, source=source)
            for line in body.lines
        )
    )
