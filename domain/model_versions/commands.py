"""What may be asked of a model version."""

from typing import Literal
from uuid import UUID

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.jobs.spec import JobSpec
from domain.messages import Command
from domain.work import Environment


class RegisterVersion(Command):
    type: Literal["RegisterVersion"] = "RegisterVersion"
    version_id: UUID
    model_id: UUID
    model_name: str
    number: int
    label: str
    job_id: UUID
    spec: JobSpec
    environment: Environment
    base_model: BaseModelRecord | None = None
    labels: tuple[str, ...]
    files: tuple[FileEntry, ...]
    train_rows: int
    trained_tokens: int
    steps: int
    seconds: float
    final_loss: float
    validation_accuracy: float | None = None


class RecordReady(Command):
    type: Literal["RecordReady"] = "RecordReady"
    version_id: UUID


class RecordFailure(Command):
    type: Literal["RecordFailure"] = "RecordFailure"
    version_id: UUID
    message: str


ModelVersionCommand = RegisterVersion | RecordReady | RecordFailure
