"""What the registry was: the same questions about the same rows, as they were behind an event of the log.

Most rows are kept in every state that they have had. Of a job that would be a wide row for most events
of the log, so a job is folded anew, from those events up to the one asked about, by the function
that made its row.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    FromClause,
    Row,
    Select,
    Table,
    Text,
    cast,
    func,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.catalog import EVENTS, decode_event
from domain.messages import Event, Recorded, StreamId
from projections import jobs
from projections import tables as t
from projections.answers import Job, with_progress
from projections.jobs import EpochRow
from projections.registry import RegistryQueries, Tables
from projections.timeline import BLOCK
from projections.view import Key, R, View

# Columns that no event changes once the row is there: to choose by them, the row of now will do.
FIXED: Final = frozenset({"workspace", "created_sequence", "model_id", "version_id", "number"})


class PastQueries(RegistryQueries):
    """Answers as it was behind the event ``sequence``; whoever asks sees to it that it is projected."""

    def __init__(self, engine: AsyncEngine, sequence: int) -> None:
        super().__init__(engine, tables_at(sequence))
        self.sequence: int = sequence
        self._of_jobs: dict[tuple[str, UUID], list[Recorded[Event]]] = {}  # asked for once

    async def job(self, workspace: str, job_id: UUID) -> Job | None:
        """As the log tells it: what telemetry said of its steps is not asked."""
        row = folded(jobs.VIEW, await self._events(workspace, job_id)).get((workspace, job_id))
        return with_progress(row, None) if row else None

    async def job_epochs(self, workspace: str, job_id: UUID) -> list[EpochRow]:
        rows = folded(jobs.EPOCHS, await self._events(workspace, job_id)).values()
        return sorted(rows, key=lambda row: row.epoch)

    async def _events(self, workspace: str, job_id: UUID) -> list[Recorded[Event]]:
        if (workspace, job_id) not in self._of_jobs:
            asked = job_events(workspace, [job_id], self.sequence)
            # A newer build may have made the rows; what it knows more of is passed over.
            found = [recorded(row) for row in await self._all(asked) if row.type in EVENTS]
            self._of_jobs[workspace, job_id] = found
        return self._of_jobs[workspace, job_id]


def tables_at(sequence: int) -> Tables:
    return Tables(
        dataset=state_at(t.dataset, t.dataset_history, sequence),
        model=state_at(t.model, t.model_history, sequence),
        model_version=state_at(t.model_version, t.model_version_history, sequence),
        evaluation=state_at(t.evaluation, t.evaluation_history, sequence),
        agent=state_at(t.agent, t.agent_history, sequence),
        access_key=state_at(t.access_key, t.access_key_history, sequence),
        person=state_at(t.person, t.person_history, sequence),
        webhook=state_at(t.webhook, t.webhook_history, sequence),
    )


def state_at(table: Table, history: Table, sequence: int) -> FromClause:
    """The table's rows in the last state that began with this event or before."""
    same = (history.c[column.name] == table.c[column.name] for column in table.primary_key)
    state = (
        select(*(history.c[column.name] for column in table.columns))
        .where(*same, history.c.valid_from <= sequence)
        .order_by(history.c.valid_from.desc())
        .limit(1)
        .lateral("state")
    )
    keys = {column.name for column in table.primary_key}
    shown = (
        table.c[column.name] if column.name in FIXED | keys else state.c[column.name]
        for column in table.columns
    )
    there = table.c.created_sequence <= sequence
    return select(*shown).select_from(table.join(state, true())).where(there).subquery(table.name)


def folded(view: View[Recorded[Event], R], events: Sequence[Recorded[Event]]) -> dict[Key, R]:
    """The rows that these events make, in the order of the log, of whichever keys."""
    rows: dict[Key, R] = {}
    for event in events:
        if view.wants is not None and type(event.event).__name__ not in view.wants:
            continue
        key = view.key(event)
        row = None if key is None else view.project(rows.get(key), event)
        if key is not None and row is not None:
            rows[key] = row
    return rows


def recorded(row: Row[Any]) -> Recorded[Event]:
    """An event as the timeline tells it, which leaves out only what nobody is shown."""
    data = row.data.encode()
    current = EVENTS[row.type][1].schema_version  # the timeline holds each in today's shape
    return Recorded(
        id=row.id,
        stream=StreamId(row.workspace, row.aggregate, row.aggregate_id),
        sequence=row.sequence,
        recorded_at=row.time,
        actor=row.actor,
        source=row.source,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        event=decode_event(row.type, current, data),
        payload=data,
    )


def job_events(workspace: str, jobs_: Sequence[UUID], sequence: int) -> CompoundSelect[Any]:
    """Every event that these jobs' rows may take: of their own streams, and what others say of them."""
    table = t.timeline
    columns = [column for column in table.columns if column.name != "data"]
    told: Select[Any] = select(*columns, cast(table.c.data, Text).label("data")).where(
        table.c.workspace == workspace, table.c.sequence <= sequence
    )
    own = told.where(table.c.aggregate == "job", table.c.aggregate_id.in_(jobs_))
    theirs = its_job(table).in_([str(job_id) for job_id in jobs_])
    others = told.where(table.c.type.in_(other_types()), theirs)
    return union_all(own, others).order_by("sequence")


# The next two stand word for word in the index `timeline_for_jobs`, or it would not be used.
def other_types() -> list[ColumnElement[str]]:
    """Types of events of other streams that a job's row takes."""
    return [literal_column(f"'{name}'") for name in sorted(jobs.OTHERS)]


def its_job(timeline: FromClause) -> ColumnElement[str]:
    """The job that such an event is about."""
    return timeline.c.data.op("->>")(literal_column("'job_id'"))


def last_until(workspace: str, moment: datetime) -> Select[Any]:
    """The highest sequence among the events that were recorded at ``moment`` or before.

    Times come from the clocks of several handlers, so a later event may have an earlier time; whatever
    was recorded by then is in. The last block with such an event holds it.
    """
    block, table = t.timeline_block, t.timeline
    last = (
        select(block.c.block)
        .where(block.c.workspace == workspace, block.c.earliest <= moment)
        .order_by(block.c.block.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(func.max(table.c.sequence)).where(
        table.c.workspace == workspace,
        table.c.sequence >= last * BLOCK,
        table.c.sequence < (last + 1) * BLOCK,
        table.c.time <= moment,
    )
