"""What may be asked of a job, and what its agent reports."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.jobs.spec import DatasetRef, HyperparameterChoices, Method, SplitConfig, Tuning
from domain.messages import Command
from domain.placement import DEFAULT_PRIORITY, Needs, Pool, Priority
from domain.subjects import Name
from domain.work import Environment, Supervision, TrainingCheckpoint


class DatasetFacts(Command):
    """What the handler found when it looked the dataset up."""

    status: Literal["absent", "pending", "valid", "rejected", "deleted"]
    ref: DatasetRef | None = None
    message: str = ""


class QueueFacts(Command):
    """How many trainings of the submitter wait, and how many may."""

    waiting: int
    limit: int | None


class SubmitJob(Command):
    """The handler looks datasets and queue up, and puts what it found into ``train``, ``test``, ``queue``."""

    type: Literal["SubmitJob"] = "SubmitJob"
    job_id: UUID
    model_name: Name
    method: Method | None = None  # None: what suits the dataset
    base_model: str | None = None  # None: the method's own
    dataset_id: UUID
    test_dataset_id: UUID | None = None
    split: SplitConfig = SplitConfig()
    hyperparameters: HyperparameterChoices = HyperparameterChoices()
    seed: int = Field(default=0, ge=0, lt=2**32)
    priority: Priority = DEFAULT_PRIORITY
    pool: Pool | None = None  # None: any
    needs: Needs = Needs()
    submitted_by: str = ""  # overwritten with the command's actor
    train: DatasetFacts | None = None
    test: DatasetFacts | None = None
    queue: QueueFacts | None = None


class ChangePriority(Command):
    """Of a job that has not ended; what runs goes on, and its next attempt has the new one."""

    type: Literal["ChangePriority"] = "ChangePriority"
    job_id: UUID
    priority: Priority


class CancelJob(Command):
    type: Literal["CancelJob"] = "CancelJob"
    job_id: UUID


class _Report(Command):
    """Sent by an agent; ``agent_id`` is overwritten from the subject that its permission pins."""

    job_id: UUID
    attempt: int = Field(ge=1)
    agent_id: str = ""


class ClaimJob(_Report):
    type: Literal["ClaimJob"] = "ClaimJob"
    boot_id: str


class RecordStart(_Report):
    type: Literal["RecordStart"] = "RecordStart"
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
    tuning: Tuning | None = None
    precision: str | None = None


class RecordEpoch(_Report):
    type: Literal["RecordEpoch"] = "RecordEpoch"
    epoch: int
    step: int
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    seconds: float


class RecordCheckpoint(_Report):
    type: Literal["RecordCheckpoint"] = "RecordCheckpoint"
    checkpoint: TrainingCheckpoint


class RecordMicroBatch(_Report):
    """Memory ran out, and the attempt goes on with fewer tokens at once."""

    type: Literal["RecordMicroBatch"] = "RecordMicroBatch"
    step: int = Field(ge=1)
    micro_batch_tokens: int = Field(ge=1)
    reason: str = Field(max_length=2000)


class CompleteJob(_Report):
    type: Literal["CompleteJob"] = "CompleteJob"
    adapter: tuple[FileEntry, ...]
    labels: tuple[str, ...]
    train_rows: int
    trained_tokens: int
    steps: int
    seconds: float
    final_loss: float
    validation_accuracy: float | None = None
    best_step: int | None = None


class FailJob(_Report):
    type: Literal["FailJob"] = "FailJob"
    code: str
    message: str


class ReleaseJob(_Report):
    """The agent gives the attempt back: it was stopped, or its child died."""

    type: Literal["ReleaseJob"] = "ReleaseJob"
    reason: str


class ExpireLease(Command):
    """The scheduler no longer believes that this attempt lives."""

    type: Literal["ExpireLease"] = "ExpireLease"
    job_id: UUID
    attempt: int
    reason: str


JobReport = (
    ClaimJob
    | RecordStart
    | RecordEpoch
    | RecordCheckpoint
    | RecordMicroBatch
    | CompleteJob
    | FailJob
    | ReleaseJob
)
JobCommand = (
    SubmitJob
    | ChangePriority
    | CancelJob
    | ClaimJob
    | RecordStart
    | RecordEpoch
    | RecordCheckpoint
    | RecordMicroBatch
    | CompleteJob
    | FailJob
    | ReleaseJob
    | ExpireLease
)
