"""The rules of a job's kept log."""

from uuid import UUID

import pytest
from pydantic import ValidationError

from domain.blobs import BlobRef
from domain.job_logs.commands import ArchiveLogs, TakeLogChunk
from domain.job_logs.events import LogChunkTaken, LogsArchived
from domain.job_logs.job_log import LogChunkDiffers, LogsOverlap, decider
from tests import samples
from tests.spec import Spec

log = Spec(decider)


def archive(first: int, last: int) -> ArchiveLogs:
    return ArchiveLogs(
        job_id=samples.JOB,
        name=f"log_{first}.jsonl.gz",
        chunk=samples.blob(first),
        first=first,
        last=last,
        lines=max(1, last - first + 1),
        through=first - 1,
    )


def take(name: str, chunk: BlobRef) -> TakeLogChunk:
    return TakeLogChunk(job_id=samples.JOB, name=name, chunk=chunk, lines=1, through=0)


def archived(first: int, last: int) -> LogsArchived:
    return LogsArchived(**archive(first, last).model_dump(exclude={"type"}))


def taken(name: str, chunk: BlobRef) -> LogChunkTaken:
    return LogChunkTaken(**take(name, chunk).model_dump(exclude={"type"}))


def test_lines_are_archived_chunk_after_chunk() -> None:
    log.when(archive(3, 9)).then(archived(3, 9))
    log.given(archived(3, 9)).when(archive(12, 12)).then(archived(12, 12))


def test_lines_that_were_archived_are_not_archived_again() -> None:
    log.given(archived(3, 9)).when(archive(3, 9)).then()
    log.given(archived(3, 9)).when(archive(4, 8)).then()


def test_a_chunk_with_old_and_new_lines_is_refused() -> None:
    log.given(archived(3, 9)).when(archive(9, 12)).then_rejected(LogsOverlap)


def test_a_chunk_from_elsewhere_is_taken_in_once() -> None:
    one = samples.blob(1)
    log.when(take("log_a.jsonl.gz", one)).then(taken("log_a.jsonl.gz", one))
    known = log.given(taken("log_a.jsonl.gz", one))
    known.when(take("log_a.jsonl.gz", one)).then()
    known.when(take("log_b.jsonl.gz", one)).then()
    known.when(take("log_a.jsonl.gz", samples.blob(2))).then_rejected(LogChunkDiffers)


def test_a_chunk_has_a_name_of_its_kind_and_does_not_end_before_it_begins() -> None:
    with pytest.raises(ValidationError, match="name"):
        take("../log_a.jsonl.gz", samples.blob(1))
    with pytest.raises(ValidationError, match="before it begins"):
        archive(9, 8)
    assert archive(9, 9).job_id == UUID(str(samples.JOB))
