"""Every question that is asked of the read model; each one names the workspace it is asked in."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import Row, Select, Table, and_, case, func, or_, select, true
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from domain.subjects import Aggregate
from projections import tables as t
from projections.access_keys import AccessKeyRow
from projections.agents import AgentRow
from projections.answers import Evaluation, Job, QueueItem, Standing, Version, with_progress
from projections.datasets import DatasetRow
from projections.evaluations import EvaluationRow
from projections.jobs import EpochRow, JobRow, JobStatus
from projections.metrics import StepRow
from projections.model_filter import ALL_MODELS, ModelFilter, with_filter
from projections.model_versions import VersionRow
from projections.models import ModelRow
from projections.positions import REGISTRY, Positions
from projections.postgres import AWAY
from projections.timeline import TimelineRow
from projections.work_items import WorkItemRow

STATEMENT_TIMEOUT_S: Final = 5  # a page is read in milliseconds; more means trouble
CONNECT_TIMEOUT_S: Final = 5
POOL_SIZE: Final = 10  # queries are short; this many at once keep two cores busy
POLL_S: Final = 0.25  # between looks at the checkpoint when no notification comes

# The tables are being dropped and made anew: 42P01 no such table, 3F000 no such schema.
_BEING_REPLACED: Final = {"42P01", "3F000"}

# Errors of asyncpg itself come from connecting; SQLAlchemy wraps those of statements.
_AWAY: Final = (DBAPIError, NoConnectionFree, *AWAY)

R = TypeVar("R")


class ReadModelUnavailable(Exception):
    """Postgres is away, slow or has no tables yet; asking again later helps."""


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


class Queries:
    """Lists are newest first; ``before`` is the ``created_sequence`` of the last row of the page before.

    Every method but `wait_for` raises `ReadModelUnavailable` while Postgres cannot answer.
    """

    def __init__(self, engine: AsyncEngine, positions: Positions) -> None:
        self._engine = engine
        self._positions = positions

    async def dataset(self, workspace: str, dataset_id: UUID) -> DatasetRow | None:
        return await self._one(DatasetRow, _by_id(t.dataset, workspace, dataset_id))

    async def datasets(
        self, workspace: str, *, limit: int = 50, before: int | None = None
    ) -> list[DatasetRow]:
        return await self._rows(DatasetRow, _page(t.dataset, workspace, limit, before))

    async def job(self, workspace: str, job_id: UUID) -> Job | None:
        found = await self._all(_with_newest_step(_by_id(t.job, workspace, job_id)))
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
        page = _page(t.job, workspace, limit, before)
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

    async def model(self, workspace: str, name_or_id: str | UUID) -> ModelRow | None:
        table = t.model
        same = table.c.id == name_or_id if isinstance(name_or_id, UUID) else None
        named = same if same is not None else table.c.name == name_or_id
        return await self._one(ModelRow, select(table).where(table.c.workspace == workspace, named))

    async def models(
        self,
        workspace: str,
        chosen: ModelFilter = ALL_MODELS,
        *,
        limit: int = 50,
        before: int | None = None,
        offset: int = 0,
    ) -> list[ModelRow]:
        page = with_filter(_page(t.model, workspace, limit, before), chosen)
        return await self._rows(ModelRow, page.offset(offset))

    async def versions(
        self, workspace: str, model_id: UUID, *, limit: int = 50, before: int | None = None
    ) -> list[Version]:
        page = _page(t.model_version, workspace, limit, before)
        mine = page.where(t.model_version.c.model_id == model_id)
        return [_version(record) for record in await self._all(_with_evaluation(mine))]

    async def version(self, workspace: str, model_id: UUID, number: int) -> Version | None:
        table = t.model_version
        one = select(table).where(
            table.c.workspace == workspace, table.c.model_id == model_id, table.c.number == number
        )
        found = await self._all(_with_evaluation(one))
        return _version(found[0]) if found else None

    async def evaluation(self, workspace: str, evaluation_id: UUID) -> Evaluation | None:
        found = await self._all(_with_number(_by_id(t.evaluation, workspace, evaluation_id)))
        return _evaluation(found[0]) if found else None

    async def evaluations(
        self,
        workspace: str,
        *,
        model: str | None = None,
        version: int | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Evaluation]:
        page = _with_number(_page(t.evaluation, workspace, limit, before))
        if model is not None:
            page = page.where(t.evaluation.c.model == model)
        if version is not None:
            page = page.where(t.model_version.c.number == version)
        return [_evaluation(record) for record in await self._all(page)]

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

    async def agents(self, workspace: str) -> list[AgentRow]:
        table = t.agent
        mine = select(table).where(table.c.workspace == workspace)
        return await self._rows(AgentRow, mine.order_by(table.c.created_sequence))

    async def is_served(self, workspace: str, sha256: str) -> bool:
        """Whether a version that is ready, or its base model, has a file of this hash."""
        table = t.model_version
        adapter = table.c.files.contains([{"sha256": sha256}])
        base = table.c.base_model_record.contains({"files": [{"blob": {"sha256": sha256}}]})
        ready = and_(table.c.workspace == workspace, table.c.status == "ready")
        return bool(await self._all(select(table.c.id).where(ready, or_(adapter, base)).limit(1)))

    async def queue(self, workspace: str) -> list[QueueItem]:
        """What is assigned and what waits, in order of arrival."""
        table = t.work_item
        mine = select(table).where(table.c.workspace == workspace, table.c.status != "withdrawn")
        rows = await self._rows(WorkItemRow, mine.order_by(table.c.queued_sequence))
        waiting = [row.work_id for row in rows if row.status == "waiting"]
        positions = {work_id: place for place, work_id in enumerate(waiting, start=1)}
        return [QueueItem(row, positions.get(row.work_id)) for row in rows]

    async def keys(self, workspace: str) -> list[AccessKeyRow]:
        table = t.access_key
        mine = select(table).where(table.c.workspace == workspace)
        return await self._rows(AccessKeyRow, mine.order_by(table.c.created_sequence))

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

    async def _all(self, query: Select[Any]) -> Sequence[Row[Any]]:
        try:
            async with self._engine.connect() as connection:
                records: Sequence[Row[Any]] = (await connection.execute(query)).all()
                return records
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) in _BEING_REPLACED:
                raise ReadModelUnavailable("the read model has no tables yet") from error
            raise
        except _AWAY as error:
            raise ReadModelUnavailable(f"Postgres does not answer: {error}") from error

    async def _rows(self, row: Callable[..., R], query: Select[Any]) -> list[R]:
        return [row(*record) for record in await self._all(query)]

    async def _one(self, row: Callable[..., R], query: Select[Any]) -> R | None:
        rows = await self._rows(row, query)
        return rows[0] if rows else None


def _by_id(table: Table, workspace: str, id_: UUID) -> Select[Any]:
    return select(table).where(table.c.workspace == workspace, table.c.id == id_)


def _page(table: Table, workspace: str, limit: int, before: int | None) -> Select[Any]:
    newest = table.c.created_sequence
    page = select(table).where(table.c.workspace == workspace)
    if before is not None:
        page = page.where(newest < before)
    return page.order_by(newest.desc()).limit(limit)


def _with_newest_step(jobs: Select[Any]) -> Select[Any]:
    step = t.job_progress
    mine = and_(step.c.workspace == t.job.c.workspace, step.c.job_id == t.job.c.id)
    return jobs.add_columns(*step.c).outerjoin_from(t.job, step, mine)


def _with_number(evaluations: Select[Any]) -> Select[Any]:
    version, evaluation = t.model_version, t.evaluation
    its = and_(
        version.c.workspace == evaluation.c.workspace, version.c.id == evaluation.c.version_id
    )
    return evaluations.add_columns(version.c.number).outerjoin_from(evaluation, version, its)


def _with_evaluation(versions: Select[Any]) -> Select[Any]:
    version, evaluation = t.model_version, t.evaluation
    completed_first = case((evaluation.c.status == "completed", 0), else_=1)
    last = (
        select(evaluation)
        .where(evaluation.c.workspace == version.c.workspace)
        .where(evaluation.c.version_id == version.c.id)
        .order_by(completed_first, evaluation.c.created_sequence.desc())
        .limit(1)
        .lateral()
    )
    return versions.add_columns(*last.c).outerjoin_from(version, last, true())


def _job(record: Row[Any]) -> Job:
    width = len(t.job.columns)
    return with_progress(JobRow(*record[:width]), _or_none(StepRow, record[width:]))


def _version(record: Row[Any]) -> Version:
    width = len(t.model_version.columns)
    return Version(VersionRow(*record[:width]), _or_none(EvaluationRow, record[width:]))


def _evaluation(record: Row[Any]) -> Evaluation:
    width = len(t.evaluation.columns)
    values = tuple(record)
    return Evaluation(EvaluationRow(*values[:width]), values[width])


def _or_none(row: Callable[..., R], values: Sequence[Any]) -> R | None:
    """The other side of an outer join; its first column is part of its key."""
    return None if values[0] is None else row(*values)
