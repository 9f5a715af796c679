"""Every event as one row: who did what, when, and because of what."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeAlias
from uuid import UUID

from domain.catalog import EVENTS
from domain.feed import HIDDEN
from domain.messages import Event, Recorded
from domain.subjects import Aggregate
from domain.wire import decode_header
from projections import tables
from projections.ports import Message
from projections.reading import Unreadable, read_event
from projections.view import Json, Key, View

# As the log spells it where only Postgres reads it: to make a UUID takes longer than to write one.
Id: TypeAlias = UUID | str

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
    id: Id
    type: str
    aggregate: Aggregate
    aggregate_id: UUID
    actor: str
    source: str
    correlation_id: Id
    causation_id: Id
    time: datetime
    data: Json


@dataclass(frozen=True, slots=True)
class BlockRow:
    """So many events of the log, and the time of the earliest."""

    workspace: str
    block: int
    earliest: datetime


def read_entries(message: Message) -> Sequence[TimelineEntry]:
    """Read an event without its payload, which is kept as it was written.

    Raises:
        Unreadable: A header is missing or damaged.
    """
    headers = message.headers
    type_ = headers.get("ce-type", "")
    try:
        version = int(headers.get("ce-schemaversion", "1"))
        if as_written(type_) != version:
            return [
                project(None, recorded)
                for recorded in read_event(message)  # of an older build, or with what is hidden
            ]
        header = decode_header(message.subject, headers)
        data = Json(message.data.decode())
    except ValueError as error:
        raise Unreadable(f"event {message.sequence} on {message.subject}: {error}") from error
    stream = header.stream
    return [
        TimelineEntry(
            stream.workspace,
            message.sequence,
            header.id,
            type_,
            stream.aggregate,
            stream.id,
            header.actor,
            header.source,
            header.correlation_id,
            header.causation_id,
            header.recorded_at,
            data,
        )
    ]


@cache
def as_written(type_: str) -> int | None:
    """The version in which an event's payload is shown as it is; None where none is."""
    known = EVENTS.get(type_)
    return known[1].schema_version if known and not _hidden(known[1]) else None


def project(_: TimelineEntry | None, told: TimelineEntry | Recorded[Event]) -> TimelineEntry:
    """Also of an event that was read already."""
    return told if isinstance(told, TimelineEntry) else _entry(told)


def _entry(recorded: Recorded[Event]) -> TimelineEntry:
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


def _key(told: TimelineEntry | Recorded[Event]) -> Key:
    if isinstance(told, TimelineEntry):
        return told.workspace, told.sequence
    return told.stream.workspace, told.sequence


def project_block(row: BlockRow | None, told: TimelineEntry | Recorded[Event]) -> BlockRow:
    time = told.time if isinstance(told, TimelineEntry) else told.recorded_at
    if row is not None and row.earliest <= time:
        return row
    workspace, block = _block_key(told)
    return BlockRow(workspace, block, time)


def _block_key(told: TimelineEntry | Recorded[Event]) -> Key:
    workspace, sequence = _key(told)
    return workspace, sequence // BLOCK


VIEW = View(tables.timeline, TimelineEntry, _key, project, append_only=True, read=read_entries)
BLOCKS: View[Any, BlockRow] = View(
    tables.timeline_block, BlockRow, _block_key, project_block, read=read_entries
)
