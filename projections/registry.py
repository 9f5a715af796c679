"""Questions to the registry, about the tables as they are or as they were."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import (
    CompoundSelect,
    FromClause,
    Row,
    Select,
    Uuid,
    and_,
    case,
    cast,
    func,
    select,
    true,
)
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.models.events import ModelActivated
from projections import tables as t
from projections.access_keys import AccessKeyRow
from projections.agents import AgentRow
from projections.answers import Activation, Evaluation, Version
from projections.datasets import DatasetRow
from projections.evaluations import EvaluationRow
from projections.model_filter import ALL_MODELS, ModelFilter, with_filter
from projections.model_versions import VersionRow
from projections.models import ModelRow
from projections.people import PersonRow
from projections.postgres import AWAY
from projections.webhooks import WebhookRow

# The tables are being made or filled: 42P01 no such table, 3F000 no such schema; 42703 no such column,
# in those of an older build, which are read until this one's are filled.
_BEING_REPLACED: Final = {"42P01", "3F000", "42703"}

# Errors of asyncpg itself come from connecting; SQLAlchemy wraps those of statements.
_AWAY: Final = (DBAPIError, NoConnectionFree, *AWAY)

R = TypeVar("R")


class ReadModelUnavailable(Exception):
    """Postgres is away, slow or has no tables yet; asking again later helps."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What is asked: each with the columns of the table of that name."""

    dataset: FromClause
    model: FromClause
    model_version: FromClause
    evaluation: FromClause
    agent: FromClause
    access_key: FromClause
    person: FromClause
    webhook: FromClause


NOW: Final = Tables(
    t.dataset, t.model, t.model_version, t.evaluation, t.agent, t.access_key, t.person, t.webhook
)


class Asking:
    """Sends statements; every one raises `ReadModelUnavailable` while Postgres cannot answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) in _BEING_REPLACED:
                raise ReadModelUnavailable("the read model has no tables yet") from error
            raise
        except _AWAY as error:
            raise ReadModelUnavailable(f"Postgres does not answer: {error}") from error

    async def _all(self, query: Select[Any] | CompoundSelect[Any]) -> Sequence[Row[Any]]:
        async with self._connection() as connection:
            records: Sequence[Row[Any]] = (await connection.execute(query)).all()
            return records

    async def _at_once(self, *queries: Select[Any]) -> list[Sequence[Row[Any]]]:
        """Several questions about the same moment."""
        async with self._connection() as connection:
            frozen = await connection.execution_options(isolation_level="REPEATABLE READ")
            return [(await frozen.execute(query)).all() for query in queries]

    async def _rows(self, row: Callable[..., R], query: Select[Any]) -> list[R]:
        return [row(*record) for record in await self._all(query)]

    async def _one(self, row: Callable[..., R], query: Select[Any]) -> R | None:
        rows = await self._rows(row, query)
        return rows[0] if rows else None


class RegistryQueries(Asking):
    """Lists are newest first; ``before`` is the ``created_sequence`` of the last row of the page before.

    Every method raises `ReadModelUnavailable` while Postgres cannot answer.
    """

    # The log sequence that is asked about; None where it is the present.
    sequence: int | None = None

    def __init__(self, engine: AsyncEngine, tables: Tables = NOW) -> None:
        super().__init__(engine)
        self._t = tables

    async def dataset(self, workspace: str, dataset_id: UUID) -> DatasetRow | None:
        return await self._one(DatasetRow, by_id(self._t.dataset, workspace, dataset_id))

    async def datasets(
        self, workspace: str, *, limit: int = 50, before: int | None = None
    ) -> list[DatasetRow]:
        return await self._rows(DatasetRow, page_of(self._t.dataset, workspace, limit, before))

    async def model(self, workspace: str, name_or_id: str | UUID) -> ModelRow | None:
        table = self._t.model
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
        page = page_of(self._t.model, workspace, limit, before)
        mine = with_filter(page, chosen, self._t.model, self._t.model_version)
        return await self._rows(ModelRow, mine.offset(offset))

    async def versions(
        self, workspace: str, model_id: UUID, *, limit: int = 50, before: int | None = None
    ) -> list[Version]:
        page = page_of(self._t.model_version, workspace, limit, before)
        mine = page.where(self._t.model_version.c.model_id == model_id)
        return [_version(record) for record in await self._all(_with_evaluation(mine, self._t))]

    async def version(self, workspace: str, model_id: UUID, number: int) -> Version | None:
        table = self._t.model_version
        one = select(table).where(
            table.c.workspace == workspace, table.c.model_id == model_id, table.c.number == number
        )
        found = await self._all(_with_evaluation(one, self._t))
        return _version(found[0]) if found else None

    async def activations(
        self, workspace: str, model_id: UUID, *, limit: int = 50, before: int | None = None
    ) -> list[Activation]:
        """What was put into service, newest first, each with what took its place."""
        event = t.timeline
        all_of_them = select(
            event.c.sequence,
            event.c.data["number"].as_integer().label("number"),
            cast(event.c.data["version_id"].as_string(), Uuid).label("version_id"),
            event.c.time,
            event.c.actor,
            func.lead(event.c.sequence).over(order_by=event.c.sequence).label("until_sequence"),
            func.lead(event.c.time).over(order_by=event.c.sequence).label("until"),
        ).where(
            event.c.workspace == workspace,
            event.c.aggregate == "model",
            event.c.aggregate_id == model_id,
            event.c.type == ModelActivated.__name__,
        )
        if self.sequence is not None:
            all_of_them = all_of_them.where(event.c.sequence <= self.sequence)
        found = all_of_them.subquery()
        page = select(found).order_by(found.c.sequence.desc()).limit(limit)
        if before is not None:
            page = page.where(found.c.sequence < before)
        return await self._rows(Activation, page)

    async def evaluation(self, workspace: str, evaluation_id: UUID) -> Evaluation | None:
        found = await self._all(
            _with_number(by_id(self._t.evaluation, workspace, evaluation_id), self._t)
        )
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
        page = _with_number(page_of(self._t.evaluation, workspace, limit, before), self._t)
        if model is not None:
            page = page.where(self._t.evaluation.c.model == model)
        if version is not None:
            page = page.where(self._t.model_version.c.number == version)
        return [_evaluation(record) for record in await self._all(page)]

    async def agents(self, workspace: str) -> list[AgentRow]:
        table = self._t.agent
        mine = select(table).where(table.c.workspace == workspace)
        return await self._rows(AgentRow, mine.order_by(table.c.created_sequence))

    async def keys(self, workspace: str) -> list[AccessKeyRow]:
        table = self._t.access_key
        mine = select(table).where(table.c.workspace == workspace)
        return await self._rows(AccessKeyRow, mine.order_by(table.c.created_sequence))

    async def people(
        self, workspace: str, *, limit: int = 50, before: int | None = None
    ) -> list[PersonRow]:
        return await self._rows(PersonRow, page_of(self._t.person, workspace, limit, before))

    async def person(self, workspace: str, person_id: UUID) -> PersonRow | None:
        return await self._one(PersonRow, by_id(self._t.person, workspace, person_id))

    async def webhooks(self, workspace: str) -> list[WebhookRow]:
        """Those that are there, oldest first."""
        table = self._t.webhook
        mine = select(table).where(table.c.workspace == workspace, table.c.status != "removed")
        return await self._rows(WebhookRow, mine.order_by(table.c.created_sequence))

    async def webhook(self, workspace: str, webhook_id: UUID) -> WebhookRow | None:
        """One of them, also when it was removed."""
        return await self._one(WebhookRow, by_id(self._t.webhook, workspace, webhook_id))


def by_id(table: FromClause, workspace: str, id_: UUID) -> Select[Any]:
    return select(table).where(table.c.workspace == workspace, table.c.id == id_)


def page_of(table: FromClause, workspace: str, limit: int, before: int | None) -> Select[Any]:
    newest = table.c.created_sequence
    page = select(table).where(table.c.workspace == workspace)
    if before is not None:
        page = page.where(newest < before)
    return page.order_by(newest.desc()).limit(limit)


def _with_number(evaluations: Select[Any], tables: Tables) -> Select[Any]:
    version, evaluation = tables.model_version, tables.evaluation
    its = and_(
        version.c.workspace == evaluation.c.workspace, version.c.id == evaluation.c.version_id
    )
    return evaluations.add_columns(version.c.number).outerjoin_from(evaluation, version, its)


def _with_evaluation(versions: Select[Any], tables: Tables) -> Select[Any]:
    version, evaluation = tables.model_version, tables.evaluation
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


def _version(record: Row[Any]) -> Version:
    width = len(t.model_version.columns)
    return Version(VersionRow(*record[:width]), or_none(EvaluationRow, record[width:]))


def _evaluation(record: Row[Any]) -> Evaluation:
    width = len(t.evaluation.columns)
    values = tuple(record)
    return Evaluation(EvaluationRow(*values[:width]), values[width])


def or_none(row: Callable[..., R], values: Sequence[Any]) -> R | None:
    """The other side of an outer join; its first column is part of its key."""
    return None if values[0] is None else row(*values)
