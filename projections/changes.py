"""What became different between two points of the log: things, in the order of their first change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, Text, Uuid, and_, cast, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.messages import Event, Recorded
from domain.subjects import Aggregate
from projections import (
    access_keys,
    agents,
    datasets,
    evaluations,
    jobs,
    model_versions,
    models,
    people,
    webhooks,
)
from projections import tables as t
from projections.past import folded, its_job, job_events, other_types, recorded, state_at
from projections.registry import Asking
from projections.view import Key, View


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that has rows."""

    aggregate: Aggregate
    view: View[Recorded[Event], Any]


# In the order in which a page shows them.
KINDS: Final = (
    Kind("dataset", datasets.VIEW),
    Kind("job", jobs.VIEW),
    Kind("model", models.VIEW),
    Kind("model_version", model_versions.VIEW),
    Kind("evaluation", evaluations.VIEW),
    Kind("agent", agents.VIEW),
    Kind("access", access_keys.VIEW),
    Kind("webhook", webhooks.VIEW),
    Kind("person", people.VIEW),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page goes on: behind this first change of this kind."""

    kind: int
    after: int


@dataclass(frozen=True, slots=True)
class Changed:
    """A thing's row at both points; ``before`` is None where it was not there yet."""

    kind: int
    first: int  # sequence of its first change between them
    before: Any
    after: Any


class Changes(Asking):
    """Compares two points of one workspace; both have to be projected already."""

    def __init__(self, engine: AsyncEngine, workspace: str, since: int, until: int) -> None:
        super().__init__(engine)
        self._workspace = workspace
        self._since = since
        self._until = until

    async def page(self, kinds: Sequence[int], start: Place | None, limit: int) -> list[Changed]:
        """At most ``limit`` things, kind after kind."""
        found: list[Changed] = []
        for kind in kinds:
            if start is not None and kind < start.kind:
                continue
            after = start.after if start and kind == start.kind else self._since
            found += await self._of_kind(kind, after, limit - len(found))
            if len(found) == limit:
                break
        return found

    async def _of_kind(self, kind: int, after: int, limit: int) -> list[Changed]:
        view = KINDS[kind].view
        history = view.history
        asked = self._jobs(after) if history is None else self._firsts(view.table, history, after)
        first: dict[Key, int] = {
            tuple(row[1:]): row[0] for row in await self._all(asked.limit(limit))
        }
        if not first:
            return []
        if history is None:
            before, now = await self._folded(list(first))
        else:
            before = await self._rows_at(view, history, list(first), self._since)
            now = await self._rows_at(view, history, list(first), self._until)
        return [Changed(kind, at, before.get(key), now[key]) for key, at in first.items()]

    def _firsts(self, table: Table, history: Table, after: int) -> Select[Any]:
        """Each key's first state between the points, as far as it is behind ``after``."""
        earlier = history.alias("earlier")
        names = [column.name for column in table.primary_key]
        same = [earlier.c[name] == history.c[name] for name in names]
        former = exists().where(
            *same, earlier.c.valid_from > self._since, earlier.c.valid_from < history.c.valid_from
        )
        return (
            select(history.c.valid_from, *(history.c[name] for name in names))
            .where(
                history.c.workspace == self._workspace,
                history.c.valid_from > after,
                history.c.valid_from <= self._until,
                ~former,
            )
            .order_by(history.c.valid_from)
        )

    def _jobs(self, after: int) -> Select[Any]:
        """The same of jobs, of which there are the events instead of states."""
        event = t.timeline.alias("event")
        between = and_(
            event.c.workspace == self._workspace,
            event.c.sequence > after,
            event.c.sequence <= self._until,
        )
        own = select(event.c.sequence, event.c.workspace, event.c.aggregate_id.label("job")).where(
            between, event.c.aggregate == "job", ~self._touched(event, event.c.aggregate_id)
        )
        job = cast(event.c.data["job_id"].astext, Uuid)
        others = select(event.c.sequence, event.c.workspace, job.label("job")).where(
            between, event.c.type.in_(other_types()), ~self._touched(event, job)
        )
        firsts = own.union_all(others).subquery()
        return select(firsts).order_by(firsts.c.sequence)

    def _touched(self, event: Any, job: ColumnElement[UUID]) -> ColumnElement[bool]:
        """Whether an earlier event between the points was about this job too."""
        earlier = t.timeline
        between = and_(
            earlier.c.workspace == self._workspace,
            earlier.c.sequence > self._since,
            earlier.c.sequence < event.c.sequence,
        )
        own = exists().where(between, earlier.c.aggregate == "job", earlier.c.aggregate_id == job)
        said = earlier.c.type.in_(other_types())
        return own | exists().where(between, said, its_job(earlier) == cast(job, Text))

    async def _folded(self, keys: Sequence[Key]) -> tuple[dict[Key, Any], dict[Key, Any]]:
        ids = [id_ for _, id_ in keys]
        rows = await self._all(job_events(self._workspace, ids, self._until))
        events = [recorded(row) for row in rows]
        before = [event for event in events if event.sequence <= self._since]
        return folded(jobs.VIEW, before), folded(jobs.VIEW, events)

    async def _rows_at(
        self, view: View[Any, Any], history: Table, keys: Sequence[Key], sequence: int
    ) -> dict[Key, Any]:
        table = state_at(view.table, history, sequence)
        names = [column.name for column in view.table.primary_key]
        mine = tuple_(*(table.c[name] for name in names)).in_(keys)
        rows = await self._rows(view.row, select(table).where(mine))
        return {tuple(getattr(row, name) for name in names): row for row in rows}
