"""Reads messages for views, folds them per row, and moves rows and position together.

A message that cannot be read or written parks the views that want it: they stay as they were before
it, and the others go on.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Generic, Protocol

import asyncpg

from projections.ddl import Connection
from projections.history import state_store
from projections.ports import Message
from projections.projection import Projection
from projections.reading import Unreadable
from projections.upsert import RowStore, TableWriter
from projections.view import Key, M, R, View

SLICE: Final = 100  # messages or rows, before whoever else works in this process is looked at again

LONGEST: Final = 1000  # characters of why a view is parked

# The same messages would be refused again; asyncpg raises DataError also before it sends.
_POISON: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
_sequence: Final = attrgetter("sequence")

_log = logging.getLogger(__name__)


class LostOwnership(Exception):
    """Somebody else has moved the checkpoint."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A view that stands still before this message."""

    view: str
    sequence: int
    reason: str


class Position(Protocol):
    """Where it is noted how far rows go; called in the transaction that writes them."""

    async def move(self, connection: Connection, before: int, last: int) -> bool:
        """Whether it was at ``before``, and is at ``last`` now."""
        ...

    async def park(self, connection: Connection, parked: Parked) -> None: ...


@dataclass(slots=True)
class Batch(Generic[M]):
    """What messages up to ``last`` hold for each view."""

    messages: list[list[M]]
    last: int
    parked: list[Parked] = field(default_factory=list)


class Writer(Generic[M]):
    """Writes those views of a projection whose schema is given."""

    def __init__(
        self,
        projection: Projection[M],
        position: Position,
        schemas: Mapping[str, str],
        parked: Mapping[str, int],
        *,
        bulk: bool = False,
    ) -> None:
        self.parked = dict(parked)
        self._projection = projection
        self._position = position
        self._views = [view for view in projection.views if view.name in schemas]
        self._stores = [RowStore(view, schemas[view.name], bulk=bulk) for view in self._views]
        self._wanted: dict[str, list[tuple[Callable[[Message], Sequence[M]], list[int]]]] = {}

    def empty(self, after: int) -> Batch[M]:
        return Batch([[] for _ in self._views], after)

    async def read(self, messages: Iterable[Message], batch: Batch[M]) -> None:
        """Add what these messages hold for each view; those up to its end are passed over."""
        for place, message in enumerate(messages):
            if place % SLICE == 0:
                await asyncio.sleep(0)
            if message.sequence <= batch.last:
                continue  # delivered again
            for read, takers in self._takers(self._projection.type_of(message)):
                try:
                    found = read(message)
                except Unreadable as error:
                    self._park_all(takers, message.sequence, error, batch)
                    continue
                for taker in takers:
                    batch.messages[taker] += found
            batch.last = message.sequence

    async def write(self, connection: Connection, batch: Batch[M], before: int) -> None:
        """Write the rows and move the position, or do neither.

        Raises:
            LostOwnership: The position is no longer at ``before``.
        """
        try:
            await self._move(connection, batch, before)
        except asyncpg.UniqueViolationError:
            copying = [store for store in self._all_stores() if store.copies]
            if not copying:
                await self._isolate(connection, batch, before)
                return
            _log.warning("projection %s: some rows are there already", self._projection.name)
            for store in copying:
                store.copies = False
            await self.write(connection, batch, before)
        except _POISON:
            await self._isolate(connection, batch, before)

    def _all_stores(self) -> list[TableWriter]:
        pairs = zip(self._views, self._stores, strict=True)
        kept = [(view, store) for view, store in pairs if view.history is not None]
        states = [state_store(view, store.schema, bulk=store.bulk).rows for view, store in kept]
        return [*self._stores, *states]

    async def _isolate(self, connection: Connection, batch: Batch[M], before: int) -> None:
        """Halve it until it is known which message cannot be written for which views."""
        if batch.last - before <= 1:
            await self._move(connection, batch, before, carefully=True)
            return
        middle = (before + batch.last) // 2
        for part, start in ((_upto(batch, middle), before), (_behind(batch, middle), middle)):
            try:
                await self._move(connection, part, start)
            except _POISON:
                await self._isolate(connection, part, start)

    async def _move(
        self, connection: Connection, batch: Batch[M], before: int, *, carefully: bool = False
    ) -> None:
        async with connection.transaction():
            if not await self._position.move(connection, before, batch.last):
                raise LostOwnership(f"the checkpoint is no longer at {before}")
            for parked in batch.parked:
                await self._position.park(connection, parked)
            for view, store, its in zip(self._views, self._stores, batch.messages, strict=True):
                wanted = self._until_parked(view.name, its)
                if wanted and carefully:
                    await self._fold_or_park(connection, view, store, wanted, batch.last)
                elif wanted:
                    await fold(connection, view, store, wanted)

    async def _fold_or_park(
        self,
        connection: Connection,
        view: View[M, Any],
        store: RowStore[M, Any],
        messages: Sequence[M],
        sequence: int,
    ) -> None:
        try:
            async with connection.transaction():
                await fold(connection, view, store, messages)
        except _POISON as error:
            self._stand_still([view.name], sequence)
            parked = Parked(view.name, sequence, f"{type(error).__name__}: {_in_short(error)}")
            await self._position.park(connection, parked)

    def _park_all(
        self, takers: Sequence[int], sequence: int, error: Unreadable, batch: Batch[M]
    ) -> None:
        """Everybody who wants it, by whichever way it is read."""
        names = [self._views[taker].name for taker in takers]
        batch.parked += [Parked(name, sequence, _in_short(error)) for name in names]
        self._stand_still(names, sequence)

    def _stand_still(self, views: Sequence[str], sequence: int) -> None:
        self.parked |= dict.fromkeys(views, sequence)
        self._wanted.clear()

    def _until_parked(self, view: str, messages: Sequence[M]) -> Sequence[M]:
        """A batch that was read before a view was parked may hold more for it."""
        at = self.parked.get(view)
        if at is None:
            return messages
        return [message for message in messages if _sequence(message) < at]

    def _takers(self, type_: str) -> list[tuple[Callable[[Message], Sequence[M]], list[int]]]:
        """Who wants it: the places of views, by how it is read for them."""
        takers = self._wanted.get(type_)
        if takers is None:
            by_read: dict[Callable[[Message], Sequence[M]], list[int]] = {}
            for place, view in enumerate(self._views):
                wants = view.wants is None or type_ in view.wants
                if wants and view.name not in self.parked:
                    by_read.setdefault(view.read or self._projection.read, []).append(place)
            takers = self._wanted[type_] = list(by_read.items())
        return takers


async def fold(
    connection: Connection, view: View[M, R], store: RowStore[M, R], messages: Sequence[M]
) -> None:
    """Load the rows that these messages touch, project in memory, write those that changed."""
    if view.append_only:
        rows = (view.project(None, message) for message in messages if view.key(message))
        await store.write(connection, [row for row in rows if row is not None])
        return
    touched: dict[Key, list[M]] = {}
    for message in messages:
        key = view.key(message)
        if key is not None:
            touched.setdefault(key, []).append(message)
    if not touched:
        return
    known = await store.load(connection, touched)
    changed: list[R] = []
    states: list[tuple[R, int]] = []
    for place, (key, its) in enumerate(touched.items()):
        if place % SLICE == 0:
            await asyncio.sleep(0)
        before = known.get(key)
        row = _projected(view, before, its, states)
        if row is not None and row != before:
            changed.append(row)
    if changed:
        await store.write(connection, changed)
    if states:
        await state_store(view, store.schema, bulk=store.bulk).write(connection, states)


def _projected(
    view: View[M, R], row: R | None, messages: Sequence[M], states: list[tuple[R, int]]
) -> R | None:
    """The row behind these messages; what it was behind each of them is added to ``states``."""
    for message in messages:
        after = view.project(row, message)
        if view.history is not None and after is not None and after is not row:
            states.append((after, _sequence(message)))
        row = after
    return row


def _in_short(error: Exception) -> str:
    """On one line, which may be a list of everything that is wrong with a payload."""
    return " ".join(str(error).split())[:LONGEST]


def _upto(batch: Batch[M], sequence: int) -> Batch[M]:
    return Batch(
        [[message for message in its if _sequence(message) <= sequence] for its in batch.messages],
        sequence,
        [parked for parked in batch.parked if parked.sequence <= sequence],
    )


def _behind(batch: Batch[M], sequence: int) -> Batch[M]:
    return Batch(
        [[message for message in its if _sequence(message) > sequence] for its in batch.messages],
        batch.last,
        [parked for parked in batch.parked if parked.sequence > sequence],
    )
