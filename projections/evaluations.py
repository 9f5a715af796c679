"""What was evaluated and how it came out; the examples are kept apart."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from domain.evaluations.events import (
    EvaluationCancelled,
    EvaluationCompleted,
    EvaluationFailed,
    EvaluationInterrupted,
    EvaluationRequested,
    EvaluationStarted,
)
from domain.messages import Event, Recorded
from projections import tables
from projections.view import Key, View, events_of, stream_key, types

EvaluationStatus = Literal["queued", "running", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    version_id: UUID
    model_id: UUID
    model: str
    job_id: UUID
    status: EvaluationStatus
    attempt: int
    agent_id: str | None
    summary: dict[str, Any] | None  # domain.work.EvaluationSummary without its examples
    outputs: dict[str, Any] | None  # domain.blobs.BlobRef
    error_code: str | None
    error_message: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ExamplesRow:
    workspace: str
    evaluation_id: UUID
    sequence: int
    examples: list[dict[str, Any]]  # domain.work.Example


def project(row: EvaluationRow | None, recorded: Recorded[Event]) -> EvaluationRow | None:
    event, sequence, now = recorded.event, recorded.sequence, recorded.recorded_at
    if isinstance(event, EvaluationRequested):
        return _requested(event, recorded)
    if row is None:
        return None
    match event:
        case EvaluationStarted():
            return replace(
                row,
                sequence=sequence,
                status="running",
                attempt=event.attempt,
                agent_id=event.agent_id,
                started_at=row.started_at or now,
            )
        case EvaluationInterrupted():
            return replace(row, sequence=sequence, status="queued", agent_id=None)
        case EvaluationCompleted():
            return replace(
                row,
                sequence=sequence,
                status="completed",
                summary=event.summary.model_dump(mode="json", exclude={"examples"}),
                outputs=event.outputs.model_dump(mode="json"),
                ended_at=now,
            )
        case EvaluationFailed():
            return replace(
                row,
                sequence=sequence,
                status="failed",
                error_code=event.code,
                error_message=event.message,
                ended_at=now,
            )
        case EvaluationCancelled():
            return replace(row, sequence=sequence, status="cancelled", ended_at=now)
        case _:
            return row


def project_examples(row: ExamplesRow | None, recorded: Recorded[Event]) -> ExamplesRow | None:
    event = recorded.event
    if not isinstance(event, EvaluationCompleted):
        return row
    return ExamplesRow(
        workspace=recorded.stream.workspace,
        evaluation_id=event.evaluation_id,
        sequence=recorded.sequence,
        examples=[example.model_dump(mode="json") for example in event.summary.examples],
    )


def _key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if recorded.stream.aggregate == "evaluation" else None


def _examples_key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if isinstance(recorded.event, EvaluationCompleted) else None


def _requested(event: EvaluationRequested, recorded: Recorded[Event]) -> EvaluationRow:
    return EvaluationRow(
        workspace=recorded.stream.workspace,
        id=event.evaluation_id,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        version_id=event.version_id,
        model_id=event.model_id,
        model=event.spec.model_name,
        job_id=event.job_id,
        status="queued",
        attempt=0,
        agent_id=None,
        summary=None,
        outputs=None,
        error_code=None,
        error_message=None,
        created_at=recorded.recorded_at,
        started_at=None,
        ended_at=None,
    )


VIEW = View(
    tables.evaluation,
    EvaluationRow,
    _key,
    project,
    wants=events_of("evaluation"),
    history=tables.evaluation_history,
)
EXAMPLES = View(
    tables.evaluation_examples,
    ExamplesRow,
    _examples_key,
    project_examples,
    wants=types(EvaluationCompleted),
)
