"""The rules of a job's kept log: every line once, in the order in which it was said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import assert_never

from domain.errors import Rejected
from domain.job_logs.commands import ArchiveLogs, JobLogCommand, TakeLogChunk
from domain.job_logs.events import JobLogEvent, LogChunkTaken, LogsArchived
from domain.messages import Decider


class LogsOverlap(Rejected):
    """Some of these lines were archived before, and some were not: another archiver was first."""

    code = "logs_overlap"


class LogChunkDiffers(Rejected):
    """A chunk of this name was taken in before, and held something else."""

    code = "log_chunk_differs"


@dataclass(frozen=True, slots=True)
class JobLog:
    archived: int = 0  # telemetry sequence of the last message in a chunk
    taken: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # hash by name


def decide(command: JobLogCommand, log: JobLog) -> Sequence[JobLogEvent]:
    match command:
        case ArchiveLogs() if command.last <= log.archived:
            return []
        case ArchiveLogs() if command.first <= log.archived:
            raise LogsOverlap(f"the lines up to {log.archived} were archived before")
        case ArchiveLogs():
            return [LogsArchived(**command.model_dump(exclude={"type"}))]
        case TakeLogChunk() if command.chunk.sha256 in log.taken.values():
            return []
        case TakeLogChunk() if command.name in log.taken:
            raise LogChunkDiffers(f"a chunk {command.name} with other lines was taken in before")
        case TakeLogChunk():
            return [LogChunkTaken(**command.model_dump(exclude={"type"}))]
        case _:
            assert_never(command)


def evolve(log: JobLog, event: JobLogEvent) -> JobLog:
    match event:
        case LogsArchived():
            return replace(log, archived=max(log.archived, event.last))
        case LogChunkTaken():
            taken = {**log.taken, event.name: event.chunk.sha256}
            return replace(log, taken=MappingProxyType(taken))
        case _:
            assert_never(event)


decider: Decider[JobLogCommand, JobLog, JobLogEvent] = Decider(JobLog(), decide, evolve)
