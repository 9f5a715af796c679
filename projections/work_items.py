"""What waits in the queue, what is assigned to whom and why."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from domain.messages import Event, Recorded
from domain.queues.events import WorkAssigned, WorkKind, WorkQueued, WorkWithdrawn
from projections import tables
from projections.view import Key, View, types


@dataclass(frozen=True, slots=True)
class WorkItemRow:
    workspace: str
    work_id: UUID  # the job's or the evaluation's id
    sequence: int
    kind: WorkKind
    method: str
    attempt: int
    status: Literal["waiting", "assigned", "withdrawn"]
    agent_id: str | None
    reason: str | None  # of the last decision
    queued_sequence: int  # the order of arrival
    queued_at: datetime
    assigned_at: datetime | None


def project(row: WorkItemRow | None, recorded: Recorded[Event]) -> WorkItemRow | None:
    event, sequence = recorded.event, recorded.sequence
    if isinstance(event, WorkQueued):
        return _queued(event, recorded)
    if row is None:
        return None
    match event:
        case WorkAssigned():
            return replace(
                row,
                sequence=sequence,
                status="assigned",
                attempt=event.attempt,
                agent_id=event.agent_id,
                reason=event.reason,
                assigned_at=recorded.recorded_at,
            )
        case WorkWithdrawn():
            return replace(row, sequence=sequence, status="withdrawn", reason=event.reason)
        case _:
            return row


def _key(recorded: Recorded[Event]) -> Key | None:
    match recorded.event:
        case WorkQueued(work_id=id_) | WorkAssigned(work_id=id_) | WorkWithdrawn(work_id=id_):
            return recorded.stream.workspace, id_
        case _:
            return None


def _queued(event: WorkQueued, recorded: Recorded[Event]) -> WorkItemRow:
    return WorkItemRow(
        workspace=recorded.stream.workspace,
        work_id=event.work_id,
        sequence=recorded.sequence,
        kind=event.kind,
        method=event.method,
        attempt=event.attempt,
        status="waiting",
        agent_id=None,
        reason=None,
        queued_sequence=recorded.sequence,
        queued_at=recorded.recorded_at,
        assigned_at=None,
    )


WANTED: Final = types(WorkQueued, WorkAssigned, WorkWithdrawn)
VIEW = View(tables.work_item, WorkItemRow, _key, project, wants=WANTED)
