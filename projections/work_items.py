"""What waits in the queue, what is assigned to whom and why."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from domain.messages import Event, Recorded
from domain.queues.events import (
    WorkAssigned,
    WorkKind,
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
)
from domain.queues.state import Work
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
    asked_by: str  # the actor on whose account it is
    priority: int
    pool: str | None
    accelerator: str | None  # what it needs; see `domain.placement.Needs`
    memory_bytes: int | None
    starts: int  # how many works had been started when it first arrived
    queued_sequence: int  # the order of first arrival, which later attempts keep
    queued_at: datetime  # the last attempt
    assigned_at: datetime | None

    def work(self) -> Work:
        """As the rules of the queue know it."""
        return Work(
            work_id=self.work_id,
            kind=self.kind,
            method=self.method,
            attempt=self.attempt,
            user=self.asked_by,
            priority=self.priority,
            pool=self.pool,
            accelerator=self.accelerator,
            memory_bytes=self.memory_bytes,
            place=self.queued_sequence,
            starts=self.starts,
        )


def project(row: WorkItemRow | None, recorded: Recorded[Event]) -> WorkItemRow | None:
    event, sequence = recorded.event, recorded.sequence
    if isinstance(event, WorkQueued):
        return _queued(row, event, recorded)
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
        case WorkReprioritised():
            return replace(row, sequence=sequence, priority=event.priority)
        case WorkWithdrawn():
            return replace(row, sequence=sequence, status="withdrawn", reason=event.reason)
        case _:
            return row


def _key(recorded: Recorded[Event]) -> Key | None:
    match recorded.event:
        case (
            WorkQueued(work_id=id_)
            | WorkAssigned(work_id=id_)
            | WorkReprioritised(work_id=id_)
            | WorkWithdrawn(work_id=id_)
        ):
            return recorded.stream.workspace, id_
        case _:
            return None


def _queued(row: WorkItemRow | None, event: WorkQueued, recorded: Recorded[Event]) -> WorkItemRow:
    live = row is not None and row.status != "withdrawn"
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
        asked_by=event.user,
        priority=event.priority,
        pool=event.pool,
        accelerator=event.needs.accelerator,
        memory_bytes=event.needs.memory_bytes,
        starts=event.starts,
        queued_sequence=row.queued_sequence if row is not None and live else recorded.sequence,
        queued_at=recorded.recorded_at,
        assigned_at=None,
    )


WANTED: Final = types(WorkQueued, WorkAssigned, WorkReprioritised, WorkWithdrawn)
VIEW = View(tables.work_item, WorkItemRow, _key, project, wants=WANTED)
