"""What happens to a job's log lines after they were said: they become chunks that are blobs."""

from typing import Literal
from uuid import UUID

from domain.blobs import BlobRef
from domain.messages import Event


class LogsArchived(Event):
    """The chunk holds every line from one telemetry sequence to another, as JSON lines in gzip."""

    type: Literal["LogsArchived"] = "LogsArchived"
    job_id: UUID
    name: str  # log_<time of the first line>.jsonl.gz
    chunk: BlobRef
    first: int  # telemetry sequence of the first message
    last: int
    lines: int
    through: int  # with this chunk, every job's lines up to this telemetry sequence are archived


class LogChunkTaken(Event):
    """A chunk that somebody brought: its lines are in the log, as telemetry of attempt 0."""

    type: Literal["LogChunkTaken"] = "LogChunkTaken"
    job_id: UUID
    name: str
    chunk: BlobRef
    lines: int
    through: int  # as of the last archived chunk


JobLogEvent = LogsArchived | LogChunkTaken
