"""What happens to an evaluation."""

from typing import Literal
from uuid import UUID

from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from domain.jobs.spec import JobSpec
from domain.messages import Event
from domain.work import EvaluationSummary


class EvaluationRequested(Event):
    type: Literal["EvaluationRequested"] = "EvaluationRequested"
    evaluation_id: UUID
    version_id: UUID
    model_id: UUID
    job_id: UUID
    spec: JobSpec
    labels: tuple[str, ...]
    adapter: tuple[FileEntry, ...]
    threads: int | None
    base_model: BaseModelRecord | None = None


class EvaluationStarted(Event):
    type: Literal["EvaluationStarted"] = "EvaluationStarted"
    evaluation_id: UUID
    attempt: int
    agent_id: str
    boot_id: str


class EvaluationInterrupted(Event):
    type: Literal["EvaluationInterrupted"] = "EvaluationInterrupted"
    evaluation_id: UUID
    attempt: int
    reason: str


class EvaluationCompleted(Event):
    type: Literal["EvaluationCompleted"] = "EvaluationCompleted"
    evaluation_id: UUID
    version_id: UUID
    model_id: UUID
    attempt: int
    summary: EvaluationSummary
    outputs: BlobRef  # every row's outputs, so that new metrics can be computed for old runs


class EvaluationFailed(Event):
    type: Literal["EvaluationFailed"] = "EvaluationFailed"
    evaluation_id: UUID
    attempt: int
    code: str
    message: str


class EvaluationCancelled(Event):
    type: Literal["EvaluationCancelled"] = "EvaluationCancelled"
    evaluation_id: UUID
    attempt: int
    agent_id: str  # empty: it was not running


EvaluationEvent = (
    EvaluationRequested
    | EvaluationStarted
    | EvaluationInterrupted
    | EvaluationCompleted
    | EvaluationFailed
    | EvaluationCancelled
)
