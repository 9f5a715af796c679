"""What happens to a model version."""

from typing import Literal
from uuid import UUID

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.jobs.spec import JobSpec
from domain.messages import Event
from domain.work import Environment


class VersionRegistered(Event):
    """Everything that says where this version came from."""

    type: Literal["VersionRegistered"] = "VersionRegistered"
    version_id: UUID
    model_id: UUID
    model_name: str
    number: int
    label: str  # when it was trained: 20261120-174305
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
    validation_accuracy: float | None


class ModelReady(Event):
    """Every file of the version was found complete."""

    type: Literal["ModelReady"] = "ModelReady"
    version_id: UUID
    model_id: UUID


class ModelFailed(Event):
    type: Literal["ModelFailed"] = "ModelFailed"
    version_id: UUID
    model_id: UUID
    message: str


ModelVersionEvent = VersionRegistered | ModelReady | ModelFailed
