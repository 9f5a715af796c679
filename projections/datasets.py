"""Which datasets there are and what became of them."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from domain.datasets.events import (
    DatasetDeleted,
    DatasetRegistered,
    DatasetRejected,
    DatasetValidated,
)
from domain.jobs.spec import RowKind
from domain.messages import Event, Recorded
from projections import tables
from projections.view import Key, View, events_of, stream_key


@dataclass(frozen=True, slots=True)
class DatasetRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    name: str
    status: Literal["pending", "valid", "rejected", "deleted"]
    sha256: str
    size: int
    crc32: int
    format: str
    delimiter: str | None
    kind: RowKind
    text_column: str
    label_column: str
    rows: int
    labels: dict[str, int]
    duplicate_rows: int | None
    conflicting_texts: int | None
    longest_text_chars: int | None
    mean_text_chars: float | None
    messages: int | None
    supervised_messages: int | None
    example: list[dict[str, Any]]  # of text and supervised, a message each
    table_schema: dict[str, Any] | None  # how the rows of a table are read
    table_report: dict[str, Any] | None  # what of a table was cleaned, once it is validated
    compression: str | None
    why: str  # it is of this kind and format
    code: str | None  # of the refusal
    message: str | None
    created_at: datetime
    person_id: UUID | None  # whom all its rows are of


def project(row: DatasetRow | None, recorded: Recorded[Event]) -> DatasetRow | None:
    event = recorded.event
    if isinstance(event, DatasetRegistered):
        return _registered(event, recorded)
    if row is None:
        return None
    match event:
        case DatasetValidated():
            return replace(
                row,
                sequence=recorded.sequence,
                status="valid",
                duplicate_rows=event.duplicate_rows,
                conflicting_texts=event.conflicting_texts,
                longest_text_chars=event.longest_text_chars,
                mean_text_chars=event.mean_text_chars,
                messages=event.messages,
                supervised_messages=event.supervised_messages,
                example=[segment.model_dump() for segment in event.example],
                table_report=event.table.model_dump() if event.table else None,
            )
        case DatasetRejected():
            return replace(
                row,
                sequence=recorded.sequence,
                status="rejected",
                code=event.code,
                message=event.message,
            )
        case DatasetDeleted():
            return replace(row, sequence=recorded.sequence, status="deleted")
        case _:
            return row


def _key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if recorded.stream.aggregate == "dataset" else None


def _registered(event: DatasetRegistered, recorded: Recorded[Event]) -> DatasetRow:
    return DatasetRow(
        workspace=recorded.stream.workspace,
        id=event.dataset_id,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        name=event.name,
        status="pending",
        sha256=event.blob.sha256,
        size=event.blob.size,
        crc32=event.blob.crc32,
        format=event.format,
        delimiter=event.delimiter,
        kind=event.kind,
        text_column=event.text_column,
        label_column=event.label_column,
        rows=event.rows,
        labels=dict(event.labels),
        duplicate_rows=None,
        conflicting_texts=None,
        longest_text_chars=None,
        mean_text_chars=None,
        messages=None,
        supervised_messages=None,
        example=[],
        table_schema=event.table.model_dump() if event.table else None,
        table_report=None,
        compression=event.compression,
        why=event.why,
        code=None,
        message=None,
        created_at=recorded.recorded_at,
        person_id=event.person_id,
    )


VIEW = View(
    tables.dataset,
    DatasetRow,
    _key,
    project,
    wants=events_of("dataset"),
    history=tables.dataset_history,
)
