"""Where each job stands, as the log tells it; what telemetry adds is in `metrics`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from domain.evaluations.events import EvaluationRequested
from domain.jobs.events import (
    CancellationRequested,
    CheckpointSaved,
    EpochCompleted,
    JobCancelled,
    JobClaimed,
    JobFailed,
    JobInterrupted,
    JobReprioritised,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    MicroBatchHalved,
)
from domain.messages import Event, Recorded
from domain.model_versions.events import VersionRegistered
from domain.placement import DEFAULT_PRIORITY
from projections import tables
from projections.view import Key, View, as_json, changed, events_of, stream_key, types

JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]


@dataclass(slots=True)  # frozen would take five times as long to make, and each event makes one
class JobRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    model: str
    base_model: str
    method: str
    dataset_id: UUID
    test_dataset_id: UUID | None
    spec: dict[str, Any]  # domain.jobs.spec.JobSpec
    created_at: datetime
    status: JobStatus
    attempt: int = 0  # the last that claimed it
    agent_id: str | None = None  # who holds it
    epoch: int = 0  # done
    epochs: int = 0
    step: int = 0  # done, as far as events tell
    steps: int | None = None
    checkpoint_step: int | None = None
    micro_batch_tokens: int | None = None  # at once, since memory ran out
    environment: dict[str, Any] | None = None  # domain.work.Environment
    base_model_record: dict[str, Any] | None = None  # domain.base_models.BaseModelRecord
    supervision: dict[str, Any] | None = None  # domain.work.Supervision
    train_rows: int | None = None
    validation_rows: int | None = None
    test_rows: int | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    trained_tokens: int | None = None
    seconds: float | None = None
    final_loss: float | None = None
    validation_accuracy: float | None = None
    interrupted: str | None = None  # why the last attempt ended without a result
    error_code: str | None = None
    error_message: str | None = None
    version_id: UUID | None = None
    version_number: int | None = None
    evaluation_id: UUID | None = None  # the first one of its version
    started_at: datetime | None = None  # when it was first claimed
    ended_at: datetime | None = None
    submitted_by: str = ""  # the actor
    priority: int = DEFAULT_PRIORITY
    pool: str | None = None
    needs: dict[str, Any] = field(default_factory=dict)  # domain.placement.Needs


@dataclass(frozen=True, slots=True)
class EpochRow:
    workspace: str
    job_id: UUID
    epoch: int
    sequence: int
    attempt: int
    step: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    time: datetime


def project(row: JobRow | None, recorded: Recorded[Event]) -> JobRow | None:
    match recorded.event:
        case JobSubmitted() as event:
            return _submitted(event, recorded)
        case VersionRegistered() as event:
            return row and changed(row, version_id=event.version_id, version_number=event.number)
        case EvaluationRequested() as event:
            return row and changed(row, evaluation_id=row.evaluation_id or event.evaluation_id)
        case _:
            lived = row and _lived(row, recorded)
            return lived and changed(lived, sequence=recorded.sequence)


def project_epoch(row: EpochRow | None, recorded: Recorded[Event]) -> EpochRow | None:
    event = recorded.event
    if not isinstance(event, EpochCompleted):
        return row
    return EpochRow(
        workspace=recorded.stream.workspace,
        job_id=event.job_id,
        epoch=event.epoch,
        sequence=recorded.sequence,
        attempt=event.attempt,
        step=event.step,
        train_loss=event.train_loss,
        validation_loss=event.validation_loss,
        validation_accuracy=event.validation_accuracy,
        seconds=event.seconds,
        time=recorded.recorded_at,
    )


def _key(recorded: Recorded[Event]) -> Key | None:
    match recorded.event:
        case VersionRegistered(job_id=job_id) | EvaluationRequested(job_id=job_id):
            return recorded.stream.workspace, job_id
        case _:
            return stream_key(recorded) if recorded.stream.aggregate == "job" else None


def _epoch_key(recorded: Recorded[Event]) -> Key | None:
    match recorded.event:
        case EpochCompleted(job_id=job_id, epoch=epoch):
            return recorded.stream.workspace, job_id, epoch
        case _:
            return None


def _submitted(event: JobSubmitted, recorded: Recorded[Event]) -> JobRow:
    spec = event.spec
    return JobRow(
        workspace=recorded.stream.workspace,
        id=event.job_id,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        model=spec.model_name,
        base_model=spec.base_model,
        method=spec.method,
        dataset_id=spec.train.dataset_id,
        test_dataset_id=spec.test.dataset_id if spec.test else None,
        spec=spec.in_full(),
        status="queued",
        epochs=spec.hyperparameters.epochs,
        created_at=recorded.recorded_at,
        submitted_by=event.submitted_by,
        priority=event.priority,
        pool=event.pool,
        needs=event.needs.model_dump(mode="json"),
    )


def _lived(row: JobRow, recorded: Recorded[Event]) -> JobRow:
    match recorded.event:
        case JobClaimed() as event:
            return changed(
                row,
                status="running",
                attempt=event.attempt,
                agent_id=event.agent_id,
                started_at=row.started_at or recorded.recorded_at,
            )
        case JobStarted() as event:
            return _started(row, event)
        case EpochCompleted() as event:
            return changed(row, epoch=event.epoch, step=event.step)
        case CheckpointSaved() as event:
            return changed(row, checkpoint_step=event.checkpoint.step)
        case MicroBatchHalved() as event:
            return changed(row, micro_batch_tokens=event.micro_batch_tokens)
        case JobReprioritised() as event:
            return changed(row, priority=event.priority)
        case CancellationRequested():
            return changed(row, status="cancelling")
        case JobInterrupted() as event:
            return changed(
                row,
                status="queued",
                agent_id=None,
                step=row.checkpoint_step or 0,
                interrupted=event.reason,
            )
        case JobSucceeded() | JobFailed() | JobCancelled() as event:
            return changed(_ended(row, event), ended_at=recorded.recorded_at)
        case _:
            return row


def _started(row: JobRow, event: JobStarted) -> JobRow:
    return changed(
        row,
        epochs=event.total_epochs,
        step=event.first_step,
        steps=event.total_steps,
        environment=event.environment.model_dump(mode="json"),
        base_model_record=as_json(event.base_model) or row.base_model_record,
        supervision=as_json(event.supervision) or row.supervision,
        train_rows=event.train_rows,
        validation_rows=event.validation_rows,
        test_rows=event.test_rows,
        trainable_parameters=event.trainable_parameters,
        total_parameters=event.total_parameters,
    )


def _ended(row: JobRow, event: JobSucceeded | JobFailed | JobCancelled) -> JobRow:
    match event:
        case JobSucceeded():
            return changed(
                row,
                status="succeeded",
                epoch=row.epochs,
                step=event.steps,
                trained_tokens=event.trained_tokens,
                seconds=event.seconds,
                final_loss=event.final_loss,
                validation_accuracy=event.validation_accuracy,
            )
        case JobFailed():
            return changed(row, status="failed", error_code=event.code, error_message=event.message)
        case JobCancelled():
            return changed(row, status="cancelled")


# From the streams of others, by their `job_id`; the index `timeline_for_jobs` names them too.
OTHERS: Final = types(VersionRegistered, EvaluationRequested)
WANTED: Final = events_of("job") | OTHERS
VIEW = View(tables.job, JobRow, _key, project, wants=WANTED)
EPOCHS = View(tables.job_epoch, EpochRow, _epoch_key, project_epoch, wants=types(EpochCompleted))
