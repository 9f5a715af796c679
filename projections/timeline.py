"""Every event as one row: who did what, when, and because of what."""

import json
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from domain.feed import HIDDEN
from domain.messages import Event, Recorded
from domain.subjects import Aggregate
from projections import tables
from projections.view import Json, Key, View

BLOCK: Final = (
    1000  # sequences; of ten million events there are then ten thousand blocks to look at
)


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


@dataclass(slots=True)  # frozen would take three times as long to make, and each event makes one
class TimelineEntry:
    """The row as it is written. It is never read back for another event, so its JSON stays text."""

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
    data: Json


@dataclass(frozen=True, slots=True)
class BlockRow:
    """So many events of the log, and the time of the earliest."""

    workspace: str
    block: int
    earliest: datetime


def project(_: TimelineEntry | None, recorded: Recorded[Event]) -> TimelineEntry:
    event = recorded.event
    return TimelineEntry(
        workspace=recorded.stream.workspace,
        sequence=recorded.sequence,
        id=recorded.id,
        type=type(event).__name__,
        aggregate=recorded.stream.aggregate,
        aggregate_id=recorded.stream.id,
        actor=recorded.actor,
        source=recorded.source,
        correlation_id=recorded.correlation_id,
        causation_id=recorded.causation_id,
        time=recorded.recorded_at,
        data=Json(_json(recorded)),
    )


def _json(recorded: Recorded[Event]) -> str:
    hidden = _hidden(type(recorded.event))
    if recorded.payload and not hidden:
        return recorded.payload.decode()
    return recorded.event.model_dump_json(exclude=hidden)


def told(recorded: Recorded[Event]) -> TimelineRow:
    """The row as whoever reads it gets it, while it is not written yet."""
    entry = project(None, recorded)
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}
    return TimelineRow(**values | {"data": json.loads(entry.data)})


@cache
def _hidden(event: type[Event]) -> set[str] | None:
    """None where there is nothing to hide: to exclude something costs, even what is not there."""
    return HIDDEN & event.model_fields.keys() or None


def _key(recorded: Recorded[Event]) -> Key:
    return recorded.stream.workspace, recorded.sequence


def project_block(row: BlockRow | None, recorded: Recorded[Event]) -> BlockRow:
    if row is not None and row.earliest <= recorded.recorded_at:
        return row
    block = recorded.sequence // BLOCK
    return BlockRow(recorded.stream.workspace, block, recorded.recorded_at)


def _block_key(recorded: Recorded[Event]) -> Key:
    return recorded.stream.workspace, recorded.sequence // BLOCK


VIEW = View(tables.timeline, TimelineEntry, _key, project, append_only=True)
BLOCKS = View(tables.timeline_block, BlockRow, _block_key, project_block)
