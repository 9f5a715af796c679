"""Every version of every model: its files, its origin, its readiness."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from domain.messages import Event, Recorded
from domain.model_versions.events import ModelFailed, ModelReady, VersionRegistered
from projections import tables
from projections.view import Key, View, as_json, events_of, stream_key


@dataclass(frozen=True, slots=True)
class VersionRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    model_id: UUID
    model: str
    number: int
    label: str
    status: Literal["uploading", "ready", "error"]
    message: str | None  # why it failed
    job_id: UUID
    method: str
    base_model: str
    base_model_record: dict[str, Any] | None  # domain.base_models.BaseModelRecord
    labels: list[str]
    files: list[dict[str, Any]]  # path, size, sha256, crc32
    size: int  # of all files
    spec: dict[str, Any]  # domain.jobs.spec.JobSpec
    environment: dict[str, Any]  # domain.work.Environment
    train_rows: int
    trained_tokens: int
    steps: int
    seconds: float
    final_loss: float
    validation_accuracy: float | None
    created_at: datetime


def project(row: VersionRow | None, recorded: Recorded[Event]) -> VersionRow | None:
    event, sequence = recorded.event, recorded.sequence
    if isinstance(event, VersionRegistered):
        return _registered(event, recorded)
    if row is None:
        return None
    match event:
        case ModelReady():
            return replace(row, sequence=sequence, status="ready")
        case ModelFailed():
            return replace(row, sequence=sequence, status="error", message=event.message)
        case _:
            return row


def _key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if recorded.stream.aggregate == "model_version" else None


def _registered(event: VersionRegistered, recorded: Recorded[Event]) -> VersionRow:
    return VersionRow(
        workspace=recorded.stream.workspace,
        id=event.version_id,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        model_id=event.model_id,
        model=event.model_name,
        number=event.number,
        label=event.label,
        status="uploading",
        message=None,
        job_id=event.job_id,
        method=event.spec.method,
        base_model=event.spec.base_model,
        base_model_record=as_json(event.base_model),
        labels=list(event.labels),
        files=[
            {
                "path": file.path,
                "size": file.blob.size,
                "sha256": file.blob.sha256,
                "crc32": file.blob.crc32,
            }
            for file in event.files
        ],
        size=sum(file.blob.size for file in event.files),
        spec=event.spec.in_full(),
        environment=event.environment.model_dump(mode="json"),
        train_rows=event.train_rows,
        trained_tokens=event.trained_tokens,
        steps=event.steps,
        seconds=event.seconds,
        final_loss=event.final_loss,
        validation_accuracy=event.validation_accuracy,
        created_at=recorded.recorded_at,
    )


VIEW = View(
    tables.model_version,
    VersionRow,
    _key,
    project,
    wants=events_of("model_version"),
    history=tables.model_version_history,
)
