"""Fills tables anew beside those that are read, and puts them in their place.

While they are filled the others are read and followed as before. Once they have caught up, rows of
the same build are compared. Then the checkpoint is held for a moment, the last few messages are
taken in, and the views are switched in the transaction that holds it: a reader sees the one or the
other, and never less than before. Whoever wrote the old tables finds the checkpoint's generation
changed. Killed at any moment, the next one goes on from the position that it finds.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Generic

import asyncpg

from projections import ddl, tables
from projections.compare import carry_over, differences
from projections.ddl import Connection
from projections.ports import EventSource, Message
from projections.postgres import AWAY
from projections.projection import Projection
from projections.run import ProjectionState, connect
from projections.schema import (
    LOCK,
    UNDER_WAY,
    drop_leftovers,
    fingerprint,
    new_schema,
    place,
)
from projections.view import M
from projections.writing import Batch, LostOwnership, Parked, Writer

NEAR: Final = 50  # messages behind the log's end: near enough to hold the checkpoint
FOLD: Final = 10_000  # messages of one transaction while nobody waits for them
LOOK_S: Final = 0.5  # between looks whether a rebuild was asked for
RETRY_S: Final = 1.0
BEHIND_S: Final = 0.05  # between looks whether the tables that are read are as far as the new ones
HOLD_S: Final = 5.0  # the last few messages take milliseconds; longer, and the log is away
# Shorter than the server's look for deadlocks (1 s): of two that wait for each other, we let go.
LOCK_MS: Final = 200
INDEX_S: Final = 3600.0
KEPT: Final = 100  # of those that have ended

_OWNER: Final = 0x66747262  # "ftrb"; the second half of the key is projection and build
_CHECKPOINT: Final = tables.projection_checkpoint.fullname
_VIEW: Final = tables.projection_view.fullname
_REBUILD: Final = tables.projection_rebuild.fullname
_FOLLOWED: Final = f"SELECT sequence FROM {_CHECKPOINT} WHERE name = $1"  # noqa: S608 - our own name
_HOLD: Final = f"{_FOLLOWED} FOR UPDATE"
_NEXT: Final = f"""
    SELECT r.id, r.views, r.reason, r.schema, r.sequence, r.parked FROM {_REBUILD} AS r
    JOIN {_CHECKPOINT} AS c ON c.name = r.projection
    WHERE r.projection = $1 AND coalesce(r.fingerprint, c.fingerprint) = $2 AND {UNDER_WAY}
    ORDER BY r.reason DESC, r.id LIMIT 1
"""  # noqa: S608 - our own names
_BEGIN: Final = (
    f"UPDATE {_REBUILD} SET status = 'filling', fingerprint = $2, schema = $3, sequence = 0, "  # noqa: S608 - our own name
    "parked = '{}', views = $4, began_at = now(), updated_at = now() WHERE id = $1"
)
_MOVE: Final = (
    f"UPDATE {_REBUILD} SET sequence = $2, goal = $4, updated_at = now() "  # noqa: S608 - our own name
    f"WHERE id = $1 AND sequence = $3 AND schema = $5 AND {UNDER_WAY} RETURNING id"
)
_PARK: Final = f"UPDATE {_REBUILD} SET parked = parked || $2::jsonb WHERE id = $1"  # noqa: S608 - our own name
_END: Final = (
    f"UPDATE {_REBUILD} SET status = $2, error = $3, updated_at = now() "  # noqa: S608 - our own name
    f"WHERE id = $1 AND {UNDER_WAY}"
)
_FILLED: Final = f"UPDATE {_REBUILD} SET filled_at = now() WHERE id = $1"  # noqa: S608 - our own name
_FOUND: Final = f"UPDATE {_REBUILD} SET status = 'switching', found = $2 WHERE id = $1"  # noqa: S608 - our own name
_SWITCHED: Final = f"UPDATE {_REBUILD} SET switch_ms = $2 WHERE id = $1"  # noqa: S608 - our own name
_TAKE_OVER: Final = (
    f"UPDATE {_CHECKPOINT} SET fingerprint = $2, generation = generation + 1, sequence = $3, "  # noqa: S608 - our own name
    "error = NULL, updated_at = now() WHERE name = $1"
)
_STAND_STILL: Final = (
    f"UPDATE {_VIEW} SET parked_at = $2, error = $3, parked_since = now() WHERE name = $1"  # noqa: S608 - our own name
)
_FORGET: Final = (
    f"DELETE FROM {_REBUILD} WHERE NOT {UNDER_WAY} "  # noqa: S608 - our own name
    f"AND id <= (SELECT max(id) FROM {_REBUILD}) - {KEPT}"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One that is under way."""

    id: int
    views: list[str]
    upgrade: bool  # to this build's tables, from those of another
    schema: str
    sequence: int
    parked: dict[str, tuple[int, str]]

    @property
    def helped(self) -> list[str]:
        """The views to be put in place: one that cannot go on in this build only by an upgrade."""
        return [view for view in self.views if self.upgrade or view not in self.parked]

    @property
    def left(self) -> str:
        """What is not put in place, and why."""
        said = (
            f"{view} at sequence {at}: {why}"
            for view, (at, why) in self.parked.items()
            if view not in self.helped
        )
        return "; ".join(said)


class _GaveUp(Exception):
    """It is of no use to go on; what is read stays as it is."""


class ShadowPosition:
    """How far the new tables are filled."""

    def __init__(self, rebuild: Rebuild) -> None:
        self.goal = 0
        self._rebuild = rebuild

    async def move(self, connection: Connection, before: int, last: int) -> bool:
        its = self._rebuild
        goal = max(self.goal, last)
        return bool(await connection.fetch(_MOVE, its.id, last, before, goal, its.schema))

    async def park(self, connection: Connection, parked: Parked) -> None:
        self._rebuild.parked[parked.view] = parked.sequence, parked.reason
        told = json.dumps({parked.view: [parked.sequence, parked.reason]})
        await connection.execute(_PARK, self._rebuild.id, told)


class Filler(Generic[M]):
    """Takes messages into tables that nobody reads, as far as it is asked to."""

    def __init__(
        self,
        projection: Projection[M],
        rebuild: Rebuild,
        connection: Connection,
        batches: AsyncGenerator[Sequence[Message], None],
    ) -> None:
        self.sequence = rebuild.sequence
        self.behind = 0
        self._position = ShadowPosition(rebuild)
        schemas = dict.fromkeys(rebuild.views, rebuild.schema)
        parked = {view: at for view, (at, _) in rebuild.parked.items()}
        self._writer = Writer(projection, self._position, schemas, parked, bulk=True)
        self._connection = connection
        self._batches = batches
        self._left: Sequence[Message] = ()

    async def come_near(self) -> None:
        """Until little is left; each batch is read while Postgres writes the one before it."""
        writing: asyncio.Task[None] | None = None
        read_until, near = self.sequence, False
        try:
            while not near:
                batch = self._writer.empty(read_until)
                near = await self._fill(batch)
                if writing is not None:
                    await writing
                if batch.last > read_until:
                    read_until = batch.last
                    writing = asyncio.create_task(self._write(batch))
            if writing is not None:
                await writing
                writing = None
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def reach(self, goal: int) -> None:
        """Take in everything up to ``goal``, and nothing behind it."""
        while self.sequence < goal:
            messages = await self._next()
            upto = [message for message in messages if message.sequence <= goal]
            self._left = messages[len(upto) :]
            batch = self._writer.empty(self.sequence)
            await self._writer.read(upto, batch)
            if self._left or not messages:
                batch.last = goal  # the log holds no more up to there
            await self._write(batch)

    async def _fill(self, batch: Batch[M]) -> bool:
        """Read so many that a transaction is worth it; True where little is left behind them."""
        start = batch.last
        while batch.last - start < FOLD:
            messages = await self._next()
            await self._writer.read(messages, batch)
            if messages:
                self.behind = messages[-1].pending
                self._position.goal = batch.last + self.behind
            if not messages or self.behind < NEAR:
                return True
        return False

    async def _next(self) -> Sequence[Message]:
        if self._left:
            left, self._left = self._left, ()
            return left
        return await anext(self._batches)

    async def _write(self, batch: Batch[M]) -> None:
        await self._writer.write(self._connection, batch, self.sequence)
        self.sequence = batch.last


class Rebuilder(Generic[M]):
    """Does the rebuilds of one projection that this build can do, one after the other."""

    def __init__(
        self,
        projection: Projection[M],
        source: EventSource,
        dsn: str,
    ) -> None:
        self.state = ProjectionState(f"rebuild of {projection.name}")
        self._projection = projection
        self._fingerprint = fingerprint(projection)
        self._source = source
        self._dsn = dsn

    async def run(self) -> None:
        """For ever, through absences of Postgres and the log."""
        while True:
            try:
                await self._session()
            except LostOwnership as error:
                _log.info("rebuild of %s: %s", self._projection.name, error)
            except (TimeoutError, *AWAY) as error:
                _log.warning("rebuild of %s waits: %r", self._projection.name, error)
            await asyncio.sleep(RETRY_S)

    async def stop(self, error: Exception) -> None:
        self.state.status, self.state.error = "stopped", f"{type(error).__name__}: {error}"

    async def _session(self) -> None:
        connection = await connect(self._dsn)
        try:
            lock = "SELECT pg_try_advisory_lock($1, hashtext($2))"
            mine = f"{self._projection.name} {self._fingerprint}"
            while not await connection.fetchval(lock, _OWNER, mine):  # noqa: ASYNC110 - its holder may die
                await asyncio.sleep(RETRY_S)
            await self._tidy(connection)
            while True:
                row = await connection.fetchrow(_NEXT, self._projection.name, self._fingerprint)
                if row is None:
                    await asyncio.sleep(LOOK_S)
                    continue
                try:
                    await self._rebuild(connection, row)
                except _GaveUp as error:
                    _log.error("rebuild of %s: %s", ", ".join(row["views"]), error)
                    await connection.execute(_END, row["id"], "failed", str(error))
                await self._tidy(connection)
        finally:
            connection.terminate()

    async def _rebuild(self, connection: Connection, row: asyncpg.Record) -> None:
        rebuild = await self._begin(connection, row)
        named = ", ".join(rebuild.views)
        _log.info("filling %s anew behind sequence %d", named, rebuild.sequence)
        async with contextlib.AsyncExitStack() as ends:
            working = await connect(self._dsn)
            ends.callback(working.terminate)
            batches = self._source.follow(rebuild.sequence)
            await ends.enter_async_context(contextlib.aclosing(batches))
            filler = Filler(self._projection, rebuild, working, batches)
            await filler.come_near()
            await connection.execute(_FILLED, rebuild.id)
            await ddl.complete(working, self._tables(rebuild), rebuild.schema, INDEX_S)
            if not rebuild.upgrade or self._projection.outlives_log:
                await self._look(connection, filler, rebuild)
            took = await self._switch(connection, filler, rebuild)
        await connection.execute(_SWITCHED, rebuild.id, took * 1e3)
        _log.info("%s filled anew; switched in %.1f ms", ", ".join(rebuild.helped), took * 1e3)
        if rebuild.left:
            _log.error(
                "left as it was, for this build cannot take in every message: %s", rebuild.left
            )

    async def _begin(self, connection: Connection, row: asyncpg.Record) -> Rebuild:
        """Go on with its tables, or make them where they are missing."""
        unknown = set(row["views"]) - {view.name for view in self._projection.views}
        if unknown:
            raise _GaveUp(f"this build has no view {', '.join(sorted(unknown))}")
        schema: str | None = row["schema"]
        last = await self._source.last()
        if schema and row["sequence"] <= last and await ddl.relations(connection, schema):
            parked = {view: (at, why) for view, (at, why) in json.loads(row["parked"]).items()}
            upgrade = row["reason"] == "upgrade"
            return Rebuild(row["id"], row["views"], upgrade, schema, row["sequence"], parked)
        async with self._exclusively(connection):
            schema = await new_schema(connection, self._fingerprint)
            views = [view for view in self._projection.views if view.name in row["views"]]
            wanted = [table for view in views for table in view.tables]
            keyless = [view.table for view in views if view.append_only]
            keyless += [view.history for view in views if view.history is not None]
            await ddl.create_bare(connection, wanted, schema, keyless)
            names = [view.name for view in views]
            await connection.execute(_BEGIN, row["id"], self._fingerprint, schema, names)
        return Rebuild(row["id"], names, row["reason"] == "upgrade", schema, 0, {})

    async def _look(self, connection: Connection, filler: Filler[M], rebuild: Rebuild) -> None:
        """At one position of both: bring along what the log has forgotten, and compare the rows."""
        snapshot = await connect(self._dsn)
        try:
            async with snapshot.transaction(isolation="repeatable_read"):
                live = await self._meet(connection, filler, rebuild, snapshot)
                found: dict[str, dict[str, Any]] = {}
                for view in self._projection.views:
                    old = live.get(view.name)
                    if view.name not in rebuild.helped or old is None:
                        continue
                    if self._projection.outlives_log:
                        await carry_over(snapshot, view.tables, old, rebuild.schema)
                    if not rebuild.upgrade:
                        found |= await differences(snapshot, view.tables, old, rebuild.schema)
        finally:
            snapshot.terminate()
        for table, difference in found.items():
            _log.error("view %s differed from what the log says: %s", table, difference)
        await connection.execute(_FOUND, rebuild.id, json.dumps(found))

    async def _meet(
        self, connection: Connection, filler: Filler[M], rebuild: Rebuild, snapshot: Connection
    ) -> dict[str, str]:
        """Begin the snapshot when both are at one sequence; the schemas of views worth a look."""
        async with self._held(connection, filler, rebuild):
            await snapshot.execute("SELECT 1")
        there = f"SELECT name, schema FROM {_VIEW} WHERE projection = $1 AND parked_at IS NULL"  # noqa: S608 - our own name
        return dict(await snapshot.fetch(there, self._projection.name))

    def _see_that_it_helps(self, rebuild: Rebuild) -> None:
        if not rebuild.helped:
            raise _GaveUp(f"this build cannot take in every message either: {rebuild.left}")

    async def _switch(self, connection: Connection, filler: Filler[M], rebuild: Rebuild) -> float:
        """Seconds that it took from the first view to the last."""
        while True:
            try:
                async with self._held(connection, filler, rebuild):
                    began = perf_counter()
                    await self._put_in_place(connection, filler, rebuild)
                return perf_counter() - began
            except asyncpg.LockNotAvailableError:
                _log.info("a reader is at work on %s; trying again", ", ".join(rebuild.views))
                await asyncio.sleep(LOOK_S)

    @contextlib.asynccontextmanager
    async def _held(
        self, connection: Connection, filler: Filler[M], rebuild: Rebuild
    ) -> AsyncGenerator[None, None]:
        """A transaction in which nothing is written into what is read, and both are at one sequence.

        In an upgrade the new tables may be ahead: the old ones are not followed where they cannot be.
        """
        while True:
            if await connection.fetchval(_FOLLOWED, self._projection.name) > filler.sequence + NEAR:
                await filler.come_near()
            async with self._exclusively(connection):
                async with asyncio.timeout(HOLD_S):
                    followed = await connection.fetchval(_HOLD, self._projection.name)
                    await filler.reach(followed)
                self._see_that_it_helps(rebuild)
                if rebuild.upgrade or followed == filler.sequence:
                    yield
                    return
            await asyncio.sleep(BEHIND_S)  # it comes, and then goes on beyond us

    async def _put_in_place(
        self, connection: Connection, filler: Filler[M], rebuild: Rebuild
    ) -> None:
        name = self._projection.name
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
        if rebuild.upgrade:
            await self._hide_what_is_no_more(connection)
        await place(connection, self._projection, rebuild.helped, rebuild.schema)
        for view, (at, why) in rebuild.parked.items():
            if view in rebuild.helped:
                await connection.execute(_STAND_STILL, view, at, why)
        await connection.execute(_TAKE_OVER, name, self._fingerprint, filler.sequence)
        await connection.execute(
            "SELECT pg_notify($1, $2)", tables.CHANNEL, f"{name} {filler.sequence}"
        )
        await connection.execute(_END, rebuild.id, "switched", None)

    async def _hide_what_is_no_more(self, connection: Connection) -> None:
        """Views of the build before that this one does not have."""
        ours = [view.name for view in self._projection.views]
        gone = f"DELETE FROM {_VIEW} WHERE projection = $1 AND name <> ALL ($2) RETURNING name"  # noqa: S608 - our own name
        for (name,) in await connection.fetch(gone, self._projection.name, ours):
            await connection.execute(f"DROP VIEW IF EXISTS {tables.SCHEMA}.{name} CASCADE")

    async def _tidy(self, connection: Connection) -> None:
        """Drop what nobody reads; where somebody still does, later."""
        try:
            async with self._exclusively(connection):
                await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
                await drop_leftovers(connection, self._projection)
                await connection.execute(_FORGET)
        except asyncpg.LockNotAvailableError as error:
            _log.info("old tables of %s are still being read: %s", self._projection.name, error)

    @contextlib.asynccontextmanager
    async def _exclusively(self, connection: Connection) -> AsyncGenerator[None, None]:
        """A transaction in which nobody else makes, switches or drops tables."""
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = on")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            yield

    def _tables(self, rebuild: Rebuild) -> list[Any]:
        views = [view for view in self._projection.views if view.name in rebuild.views]
        return [table for view in views for table in view.tables]
