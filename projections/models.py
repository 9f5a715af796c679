"""Which models there are, how many versions each has, and which one is in service."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from domain.messages import Event, Recorded
from domain.models.events import ModelActivated, ModelCreated, VersionNumbered
from projections import tables
from projections.view import Key, View, events_of, stream_key


@dataclass(frozen=True, slots=True)
class ModelRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    name: str
    base_model: str
    versions: int
    latest: int | None  # highest number, ready or not
    active_number: int | None
    active_version_id: UUID | None
    activated_at: datetime | None
    activated_by: str | None
    created_at: datetime


def project(row: ModelRow | None, recorded: Recorded[Event]) -> ModelRow | None:
    event, sequence = recorded.event, recorded.sequence
    if isinstance(event, ModelCreated):
        return _created(event, recorded)
    if row is None:
        return None
    match event:
        case VersionNumbered():
            return replace(row, sequence=sequence, versions=row.versions + 1, latest=event.number)
        case ModelActivated():
            return replace(
                row,
                sequence=sequence,
                active_number=event.number,
                active_version_id=event.version_id,
                activated_at=recorded.recorded_at,
                activated_by=recorded.actor,
            )
        case _:
            return row


def _key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if recorded.stream.aggregate == "model" else None


def _created(event: ModelCreated, recorded: Recorded[Event]) -> ModelRow:
    return ModelRow(
        workspace=recorded.stream.workspace,
        id=event.model_id,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        name=event.name,
        base_model=event.base_model,
        versions=0,
        latest=None,
        active_number=None,
        active_version_id=None,
        activated_at=None,
        activated_by=None,
        created_at=recorded.recorded_at,
    )


VIEW = View(
    tables.model, ModelRow, _key, project, wants=events_of("model"), history=tables.model_history
)
