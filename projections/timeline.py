"""Every event as one row: who did what, when, and because of what."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from domain.messages import Event, Recorded
from domain.subjects import Aggregate
from projections import tables
from projections.view import Key, View

# Whoever may read the timeline may be less than whoever manages keys.
HIDDEN: Final = {"secret_hmac"}


@dataclass(frozen=True, slots=True)
class TimelineRow:
    workspace: str
    sequence: int
    id: UUID
    type: str
    aggregate: Aggregate
    aggregate_id: UUID
    actor: str
    source: str
    correlation_id: UUID
    causation_id: UUID
    time: datetime
    data: dict[str, Any]


def project(_: TimelineRow | None, recorded: Recorded[Event]) -> TimelineRow:
    return TimelineRow(
        workspace=recorded.stream.workspace,
        sequence=recorded.sequence,
        id=recorded.id,
        type=type(recorded.event).__name__,
        aggregate=recorded.stream.aggregate,
        aggregate_id=recorded.stream.id,
        actor=recorded.actor,
        source=recorded.source,
        correlation_id=recorded.correlation_id,
        causation_id=recorded.causation_id,
        time=recorded.recorded_at,
        data=recorded.event.model_dump(mode="json", exclude=HIDDEN),
    )


def _key(recorded: Recorded[Event]) -> Key:
    return recorded.stream.workspace, recorded.sequence


VIEW = View(tables.timeline, TimelineRow, _key, project, append_only=True)
