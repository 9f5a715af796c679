"""What may be asked of an evaluation, and what its agent reports."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from domain.jobs.spec import JobSpec
from domain.messages import Command
from domain.work import EvaluationSummary


class RunEvaluation(Command):
    """The handler looks the version up and fills ``spec``, ``labels`` and ``adapter``."""

    type: Literal["RunEvaluation"] = "RunEvaluation"
    evaluation_id: UUID
    version_id: UUID
    model_id: UUID | None = None
    job_id: UUID | None = None
    version_status: Literal["absent", "uploading", "ready", "error"] = "absent"
    spec: JobSpec | None = None
    labels: tuple[str, ...] = ()
    adapter: tuple[FileEntry, ...] = ()
    threads: int | None = None
    base_model: BaseModelRecord | None = None


class CancelEvaluation(Command):
    type: Literal["CancelEvaluation"] = "CancelEvaluation"
    evaluation_id: UUID


class _Report(Command):
    """Sent by an agent; ``agent_id`` is overwritten from the subject that its permission pins."""

    evaluation_id: UUID
    attempt: int = Field(ge=1)
    agent_id: str = ""


class ClaimEvaluation(_Report):
    type: Literal["ClaimEvaluation"] = "ClaimEvaluation"
    boot_id: str


class RecordResult(_Report):
    type: Literal["RecordResult"] = "RecordResult"
    summary: EvaluationSummary
    outputs: BlobRef


class FailEvaluation(_Report):
    type: Literal["FailEvaluation"] = "FailEvaluation"
    code: str
    message: str


class ReleaseEvaluation(_Report):
    type: Literal["ReleaseEvaluation"] = "ReleaseEvaluation"
    reason: str


class ExpireEvaluationLease(Command):
    type: Literal["ExpireEvaluationLease"] = "ExpireEvaluationLease"
    evaluation_id: UUID
    attempt: int
    reason: str


EvaluationReport = ClaimEvaluation | RecordResult | FailEvaluation | ReleaseEvaluation
EvaluationCommand = (
    RunEvaluation
    | CancelEvaluation
    | ClaimEvaluation
    | RecordResult
    | FailEvaluation
    | ReleaseEvaluation
    | ExpireEvaluationLease
)
