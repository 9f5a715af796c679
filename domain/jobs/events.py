"""What happens in the life of a job."""

from typing import Literal
from uuid import UUID

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.jobs.spec import JobSpec, Tuning
from domain.messages import Event
from domain.placement import DEFAULT_PRIORITY, Needs
from domain.work import Environment, Supervision, TrainingCheckpoint


class JobSubmitted(Event):
    type: Literal["JobSubmitted"] = "JobSubmitted"
    job_id: UUID
    spec: JobSpec
    submitted_by: str = ""  # empty where that was not recorded
    priority: int = DEFAULT_PRIORITY
    pool: str | None = None
    needs: Needs = Needs()


class JobReprioritised(Event):
    type: Literal["JobReprioritised"] = "JobReprioritised"
    job_id: UUID
    priority: int


class JobClaimed(Event):
    """An agent took the work; from here on only this attempt may report."""

    type: Literal["JobClaimed"] = "JobClaimed"
    job_id: UUID
    attempt: int
    agent_id: str
    boot_id: str


class JobStarted(Event):
    type: Literal["JobStarted"] = "JobStarted"
    job_id: UUID
    attempt: int
    environment: Environment
    total_steps: int
    total_epochs: int
    first_step: int
    train_rows: int
    validation_rows: int
    test_rows: int
    trainable_parameters: int
    total_parameters: int
    base_model: BaseModelRecord | None = None
    supervision: Supervision | None = None
    tuning: Tuning | None = None  # as it is done; not always what was asked for
    precision: str | None = None  # "float32", "bfloat16" or "float16"


class EpochCompleted(Event):
    type: Literal["EpochCompleted"] = "EpochCompleted"
    job_id: UUID
    attempt: int
    epoch: int
    step: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class CheckpointSaved(Event):
    type: Literal["CheckpointSaved"] = "CheckpointSaved"
    job_id: UUID
    attempt: int
    checkpoint: TrainingCheckpoint


class MicroBatchHalved(Event):
    """Memory ran out: the attempt goes on with fewer tokens at once, over batches of the same rows."""

    type: Literal["MicroBatchHalved"] = "MicroBatchHalved"
    job_id: UUID
    attempt: int
    step: int  # the optimizer step that was done again, from 1
    micro_batch_tokens: int
    reason: str


class CancellationRequested(Event):
    type: Literal["CancellationRequested"] = "CancellationRequested"
    job_id: UUID
    attempt: int
    agent_id: str


class JobInterrupted(Event):
    """The attempt is over without a result; the next one goes on from the last checkpoint."""

    type: Literal["JobInterrupted"] = "JobInterrupted"
    job_id: UUID
    attempt: int
    reason: str


class JobSucceeded(Event):
    type: Literal["JobSucceeded"] = "JobSucceeded"
    job_id: UUID
    attempt: int
    adapter: tuple[FileEntry, ...]
    labels: tuple[str, ...]
    train_rows: int
    trained_tokens: int
    steps: int
    seconds: float
    final_loss: float
    validation_accuracy: float | None
    best_step: int | None = None  # whose weights these are, where the best were kept


class JobFailed(Event):
    type: Literal["JobFailed"] = "JobFailed"
    job_id: UUID
    attempt: int
    code: str
    message: str


class JobCancelled(Event):
    type: Literal["JobCancelled"] = "JobCancelled"
    job_id: UUID
    attempt: int  # 0: it never ran


JobEvent = (
    JobSubmitted
    | JobReprioritised
    | JobClaimed
    | JobStarted
    | EpochCompleted
    | CheckpointSaved
    | MicroBatchHalved
    | CancellationRequested
    | JobInterrupted
    | JobSucceeded
    | JobFailed
    | JobCancelled
)
