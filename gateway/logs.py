"""A job's log lines: as pages of JSON, and as server-sent events."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import cache
from typing import Final
from uuid import UUID

import msgspec
from pydantic import ValidationError

from domain.messages import StreamId
from domain.telemetry import LEVELS, Level, LogEmitted, LogLine
from gateway.hub import Encoder
from gateway.log_archive import JobArchive
from gateway.ports import Feed, FeedMessage
from gateway.problems import Problem, invalid
from gateway.sse import Reading, encode

PAGE: Final = 256
ENDS: Final = {"JobSucceeded": "succeeded", "JobFailed": "failed", "JobCancelled": "cancelled"}

_log = logging.getLogger(__name__)


class LogItem(msgspec.Struct):
    """One line. Several of them may have come in one message, and share its sequence."""

    sequence: int
    time: datetime
    level: Level
    message: str
    source: str
    text: str  # [HH:MM:SS] [LEVEL] message, in UTC
    attempt: int


class LogPage(msgspec.Struct):
    items: list[LogItem]
    next: str | None  # pass it as `after`; null when there is no more now


def log_topic(workspace: str, job_id: UUID) -> str:
    return f"telemetry.{workspace}.log.{job_id}"


def human(line: LogLine) -> str:
    return f"[{line.time.astimezone(UTC):%H:%M:%S}] [{line.level}] {line.message}"


async def read_page(
    feed: Feed, archive: JobArchive, topic: str, *, after: str | None, limit: int, level: Level
) -> LogPage:
    """At most ``limit`` lines of at least this level; a message is never read twice or half."""
    reached, known = parse_position(after)
    partly = reached + 1  # the message of which the first ``known`` lines were read
    items: list[LogItem] = []
    async with aclosing(_messages(feed, archive, topic, reached)) as pages:
        async for message in pages:
            skip = known if message.sequence == partly else 0
            for index, line in enumerate(lines_of(message)):
                if index < skip or not _at_least(line, level):
                    continue
                if len(items) == limit:
                    position = f"{message.sequence}.{index}" if index else str(reached)
                    return LogPage(items, position)
                items.append(_item(message, line))
            reached = message.sequence
    return LogPage(items, None)


async def _messages(
    feed: Feed, archive: JobArchive, topic: str, after: int
) -> AsyncGenerator[FeedMessage, None]:
    """All that was said behind a sequence, from the archive where the stream has forgotten it."""
    async for recalled in archive.forgotten(after, feed):
        for message in recalled.messages:
            yield message
        after = max(after, recalled.after)
    more = True
    while more:
        messages, more = await feed.page("TELEMETRY", f"{topic}.>", after, PAGE)
        for message in messages:
            after = message.sequence
            yield message


def parse_position(after: str | None) -> tuple[int, int]:
    """``<sequence>``: behind that message; ``<sequence>.<n>``: its first n lines are known."""
    sequence, _, line = (after or "0").partition(".")
    known = sequence.isdecimal() and len(sequence) <= 18 and (line.isdecimal() or not line)
    if not known or (line and int(sequence) < 1):
        raise invalid("after", "a sequence, or `next` of the page before")
    return (int(sequence) - 1, int(line)) if line else (int(sequence), 0)


def lines_of(message: FeedMessage) -> Sequence[LogLine]:
    """None of a message that cannot be read: an agent may say anything of the work that it holds."""
    try:
        return LogEmitted.model_validate_json(message.data).lines
    except ValidationError as problem:
        _log.warning("telemetry %d is passed over: %s", message.sequence, problem)
        return ()


def _item(message: FeedMessage, line: LogLine) -> LogItem:
    return LogItem(
        sequence=message.sequence,
        time=line.time,
        level=line.level,
        message=line.message,
        source=line.source,
        text=human(line),
        attempt=attempt_of(message),
    )


def attempt_of(message: FeedMessage) -> int:
    return int(message.subject.split(".")[4])  # behind it, the agent that said it


def _at_least(line: LogLine, level: Level) -> bool:
    return LEVELS.index(line.level) >= LEVELS.index(level)


@cache
def log_encoder(level: Level) -> Encoder:
    """One encoder a level, so that what it makes is shared by all who read at that level."""

    def encode_lines(message: FeedMessage) -> bytes:
        lines = [line for line in lines_of(message) if _at_least(line, level)]
        if not lines:
            return b""
        shown = [
            {
                "time": line.time.isoformat().replace("+00:00", "Z"),
                "level": line.level,
                "message": line.message,
                "source": line.source,
                "text": human(line),
            }
            for line in lines
        ]
        return encode("log", {"lines": shown, "attempt": attempt_of(message)}, message.sequence)

    return encode_lines


async def require_job(feed: Feed, workspace: str, job_id: UUID) -> str:
    """The subject of a job that exists; the log itself is asked, which Postgres need not be up for.

    Raises:
        Problem: There is no such job.
    """
    subject = StreamId(workspace, "job", job_id).subject
    if await feed.last("EVENTS", subject) is None:
        raise Problem("not_found", f"There is no job {job_id}.")
    return subject


def log_reading(
    feed: Feed, archive: JobArchive, workspace: str, job_id: UUID, *, after: int, level: Level
) -> Reading:
    """A job's lines from a position to the end of the job."""
    subject = StreamId(workspace, "job", job_id).subject

    async def ending() -> bytes:
        last = await feed.last("EVENTS", subject)
        status = ENDS.get(last.headers.get("ce-type", "")) if last else None
        return encode("end", {"status": status}) if status else b""

    return Reading(
        log="TELEMETRY",
        topic=log_topic(workspace, job_id),
        after=after,
        encode=log_encoder(level),
        watched=(subject,),
        ending=ending,
        archive=archive,
    )
