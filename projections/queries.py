"""Every question that is asked of the read model; each one names the workspace it is asked in."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from domain.queues.events import WorkQueued
from domain.subjects import Aggregate
from projections import tables as t
from projections.access_keys import AccessKeyRow
from projections.answers import Belongings, Job, QueueStanding, Standing, with_progress
from projections.changes import Changes
from projections.datasets import DatasetRow
from projections.durations import Durations, typical
from projections.evaluations import EvaluationRow
from projections.jobs import EpochRow, JobRow, JobStatus
from projections.metrics import StepRow
from projections.past import PastQueries, last_until
from projections.positions import REGISTRY, Positions
from projections.queue_ledger import QueueLedgerRow
from projections.registry import (
    ReadModelUnavailable,
    RegistryQueries,
    by_id,
    or_none,
    page_of,
)
from projections.timeline import TimelineRow
from projections.work_items import WorkItemRow

STATEMENT_TIMEOUT_S: Final = 5  # a page is read in milliseconds; more means trouble
CONNECT_TIMEOUT_S: Final = 5
POOL_SIZE: Final = 10  # queries are short; this many at once keep two cores busy
LATELY: Final = 100  # works, of whose time the next ones' is guessed
POLL_S: Final = 0.25  # between looks at the checkpoint when no notification comes


@asynccontextmanager
async def open_queries(dsn: str) -> AsyncIterator["Queries"]:
    """Queries on ``postgresql://…``; nothing is connected before the first one is asked."""
    engine = create_async_engine(
        dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,  # a connection that a restart has cut is replaced unseen
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": STATEMENT_TIMEOUT_S + 1,  # the server is gone without a word
            "server_settings": {
                "statement_timeout": str(STATEMENT_TIMEOUT_S * 1000),
                "application_name": "finetrail queries",
            },
        },
    )
    positions = Positions(dsn)
    listening = asyncio.create_task(positions.listen(), name="projection positions")
    try:
        yield Queries(engine, positions)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await engine.dispose()


class Queries(RegistryQueries):
    """Asks about the present; `at` asks about another moment.

    Every method but `wait_for` raises `ReadModelUnavailable` while Postgres cannot answer.
    """

    def __init__(self, engine: AsyncEngine, positions: Positions) -> None:
        super().__init__(engine)
        self._positions = positions

    def at(self, sequence: int) -> PastQueries:
        """What there was behind this event of the log, which has to be projected already."""
        return PastQueries(self._engine, sequence)

    def changes(self, workspace: str, since: int, until: int) -> Changes:
        """What became different between two events of the log, which have to be projected already."""
        return Changes(self._engine, workspace, since, until)

    async def last_until(self, workspace: str, moment: datetime) -> int:
        """Sequence of the last event that was recorded then or before; 0 where there is none."""
        found = await self._all(last_until(workspace, moment))
        return int(found[0][0] or 0)

    async def job(self, workspace: str, job_id: UUID) -> Job | None:
        found = await self._all(_with_newest_step(by_id(t.job, workspace, job_id)))
        return _job(found[0]) if found else None

    async def jobs(
        self,
        workspace: str,
        *,
        status: JobStatus | None = None,
        model: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        page = page_of(t.job, workspace, limit, before)
        if status is not None:
            page = page.where(t.job.c.status == status)
        if model is not None:
            page = page.where(t.job.c.model == model)
        return [_job(record) for record in await self._all(_with_newest_step(page))]

    async def job_epochs(self, workspace: str, job_id: UUID) -> list[EpochRow]:
        table = t.job_epoch
        mine = select(table).where(table.c.workspace == workspace, table.c.job_id == job_id)
        return await self._rows(EpochRow, mine.order_by(table.c.epoch))

    async def job_steps(self, workspace: str, job_id: UUID, *, points: int = 500) -> list[StepRow]:
        """At most ``points`` steps (2 or more): the first, and the last of as many equal parts."""
        table = t.job_step
        number = func.row_number().over(order_by=table.c.step)
        total = func.count().over()
        parts = max(points, 2) - 1
        numbered = (
            select(table, number.label("number"), total.label("total"))
            .where(table.c.workspace == workspace, table.c.job_id == job_id)
            .subquery()
        )
        n, of = numbered.c.number, numbered.c.total
        ends_a_part = func.div(n * parts, of) > func.div((n - 1) * parts, of)
        chosen = (
            select(*(numbered.c[column.name] for column in table.columns))
            .where(or_(n == 1, ends_a_part))
            .order_by(numbered.c.step)
        )
        return await self._rows(StepRow, chosen)

    async def evaluation_examples(
        self, workspace: str, evaluation_id: UUID
    ) -> list[dict[str, Any]] | None:
        """`domain.work.Example` as JSON; None until the evaluation is completed."""
        table = t.evaluation_examples
        found = await self._all(
            select(table.c.examples).where(
                table.c.workspace == workspace, table.c.evaluation_id == evaluation_id
            )
        )
        return list(found[0][0]) if found else None

    async def events(
        self,
        workspace: str,
        *,
        aggregate: Aggregate | None = None,
        aggregate_id: UUID | None = None,
        type: str | None = None,  # noqa: A002 - the word that users know
        actor: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[TimelineRow]:
        """In the order of the log: those after this sequence, or without one the last of all."""
        table = t.timeline
        wanted = {
            "aggregate": aggregate,
            "aggregate_id": aggregate_id,
            "type": type,
            "actor": actor,
        }
        matching = select(table).where(
            table.c.workspace == workspace,
            *(table.c[name] == value for name, value in wanted.items() if value is not None),
        )
        if after is None:
            newest = matching.order_by(table.c.sequence.desc()).limit(limit)
            return (await self._rows(TimelineRow, newest))[::-1]
        page = matching.where(table.c.sequence > after).order_by(table.c.sequence).limit(limit)
        return await self._rows(TimelineRow, page)

    async def event(self, workspace: str, which: int | UUID) -> TimelineRow | None:
        """By its sequence or its id."""
        table = t.timeline
        named = table.c.sequence == which if isinstance(which, int) else table.c.id == which
        one = select(table).where(table.c.workspace == workspace, named)
        return await self._one(TimelineRow, one)

    async def last_queued(self, workspace: str, work_id: UUID, before: int) -> TimelineRow | None:
        """The event that put this work into the queue, the last one before this sequence."""
        table = t.timeline
        queued = select(table).where(
            table.c.workspace == workspace,
            table.c.type == WorkQueued.__name__,
            table.c.sequence < before,
            table.c.data["work_id"].astext == str(work_id),
        )
        return await self._one(TimelineRow, queued.order_by(table.c.sequence.desc()).limit(1))

    async def is_served(self, workspace: str, sha256: str) -> bool:
        """Whether a version that is ready, or its base model, has a file of this hash."""
        table = t.model_version
        adapter = table.c.files.contains([{"sha256": sha256}])
        base = table.c.base_model_record.contains({"files": [{"blob": {"sha256": sha256}}]})
        ready = and_(table.c.workspace == workspace, table.c.status == "ready")
        return bool(await self._all(select(table.c.id).where(ready, or_(adapter, base)).limit(1)))

    async def notable(
        self, workspace: str, types: Sequence[str], *, before: int | None, limit: int
    ) -> list[TimelineRow]:
        """Events of these types, newest first."""
        table = t.timeline
        chosen = select(table).where(table.c.workspace == workspace, table.c.type.in_(types))
        if before is not None:
            chosen = chosen.where(table.c.sequence < before)
        return await self._rows(TimelineRow, chosen.order_by(table.c.sequence.desc()).limit(limit))

    async def forgotten_people(self, workspace: str) -> frozenset[UUID]:
        table = t.person
        gone = select(table.c.id).where(
            table.c.workspace == workspace, table.c.status == "forgotten"
        )
        return frozenset(row.id for row in await self._all(gone))

    async def belongings(self, workspace: str, person_id: UUID) -> Belongings:
        """All that is of a person, and what was made from it."""
        key, dataset, job, evaluation = t.access_key, t.dataset, t.job, t.evaluation
        keys = select(key).where(key.c.workspace == workspace, key.c.person_id == person_id)
        datasets = select(dataset).where(
            dataset.c.workspace == workspace, dataset.c.person_id == person_id
        )
        theirs = datasets.with_only_columns(dataset.c.id)
        jobs = select(job).where(
            job.c.workspace == workspace,
            or_(job.c.dataset_id.in_(theirs), job.c.test_dataset_id.in_(theirs)),
        )
        versions = jobs.with_only_columns(job.c.version_id)
        evaluations = select(evaluation).where(
            evaluation.c.workspace == workspace, evaluation.c.version_id.in_(versions)
        )
        return Belongings(
            keys=await self._rows(AccessKeyRow, keys.order_by(key.c.created_sequence)),
            datasets=await self._rows(DatasetRow, datasets.order_by(dataset.c.created_sequence)),
            jobs=await self._rows(JobRow, jobs.order_by(job.c.created_sequence)),
            evaluations=await self._rows(
                EvaluationRow, evaluations.order_by(evaluation.c.created_sequence)
            ),
        )

    async def queue(self, workspace: str) -> QueueStanding:
        """What is assigned and what waits, and what decisions depend on, all at one moment."""
        item, ledger = t.work_item, t.queue_ledger
        live = select(item).where(item.c.workspace == workspace, item.c.status != "withdrawn")
        its = select(ledger).where(ledger.c.workspace == workspace)
        items, ledgers = await self._at_once(live.order_by(item.c.queued_sequence), its)
        return QueueStanding(
            [WorkItemRow(*tuple(record)) for record in items],
            QueueLedgerRow(*tuple(ledgers[0])) if ledgers else None,
        )

    async def seconds_left(self, workspace: str) -> dict[UUID, float]:
        """Of the jobs that run, what their attempts last said."""
        job, step = t.job, t.job_progress
        same = and_(step.c.workspace == job.c.workspace, step.c.job_id == job.c.id)
        told = (
            select(job.c.id, step.c.eta_s)
            .join_from(job, step, same)
            .where(job.c.workspace == workspace, job.c.status == "running")
            .where(step.c.attempt == job.c.attempt)
        )
        return {row.id: row.eta_s for row in await self._all(told)}

    async def durations(self, workspace: str) -> Durations:
        """How long the last works of each method took, from their first claim to their end."""
        job, evaluation = t.job, t.evaluation
        took = func.extract("epoch", job.c.ended_at - job.c.started_at)
        trained = select(job.c.method, took.label("took")).where(
            job.c.workspace == workspace, job.c.status == "succeeded"
        )
        took = func.extract("epoch", evaluation.c.ended_at - evaluation.c.started_at)
        evaluated = (
            select(job.c.method, took.label("took"))
            .join_from(
                evaluation, job, and_(job.c.workspace == workspace, job.c.id == evaluation.c.job_id)
            )
            .where(evaluation.c.workspace == workspace, evaluation.c.status == "completed")
        )
        newest = job.c.created_sequence.desc()
        latest = evaluation.c.created_sequence.desc()
        return Durations(
            train=typical(await self._rows(_timed, trained.order_by(newest).limit(LATELY))),
            evaluate=typical(await self._rows(_timed, evaluated.order_by(latest).limit(LATELY))),
        )

    async def position(self, name: str = REGISTRY) -> int:
        """Sequence of the last message that this projection has taken in; 0 before the first."""
        table = t.projection_checkpoint
        found = await self._all(select(table.c.sequence).where(table.c.name == name))
        return int(found[0][0]) if found else 0

    async def projections(self) -> list[Standing]:
        """Every projection with its position, and why it has stopped if it has."""
        table = t.projection_checkpoint
        columns = (table.c.name, table.c.sequence, table.c.error, table.c.updated_at)
        return await self._rows(Standing, select(*columns).order_by(table.c.name))

    async def parked(self) -> dict[str, int]:
        """Views that stand still, and the sequence of the message that they cannot take in."""
        table = t.projection_view
        waiting = select(table.c.name, table.c.parked_at).where(table.c.parked_at.is_not(None))
        return {row.name: row.parked_at for row in await self._all(waiting.order_by(table.c.name))}

    async def wait_for(
        self, sequence: int, timeout_s: float = 5.0, *, name: str = REGISTRY
    ) -> bool:
        """Wait until a reader sees what this event of the log did; False when it takes longer."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._positions.reached(name, sequence):
            try:
                if await self.position(name) >= sequence:
                    return True
            except ReadModelUnavailable:
                pass  # it may be back before the time is up
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await self._positions.moved(name, sequence, min(POLL_S, left))
        return True


def _timed(method: str, seconds: float | None) -> tuple[str, float | None]:
    return method, seconds


def _with_newest_step(jobs: Select[Any]) -> Select[Any]:
    step = t.job_progress
    mine = and_(step.c.workspace == t.job.c.workspace, step.c.job_id == t.job.c.id)
    return jobs.add_columns(*step.c).outerjoin_from(t.job, step, mine)


def _job(record: Row[Any]) -> Job:
    width = len(t.job.columns)
    return with_progress(JobRow(*record[:width]), or_none(StepRow, record[width:]))
