"""The runner: takes batches from the log, folds them per row, and moves rows and checkpoint together.

Exactly once comes from one statement: the checkpoint moves from where this runner believes it to be,
in the transaction that writes the rows, or nothing is written. An advisory lock merely keeps a second
runner quiet. Whatever breaks, the runner starts over from the checkpoint that Postgres holds.

The commit is asynchronous: after a crash of Postgres rows and checkpoint are both a moment older, and
the log brings them back.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Literal

import asyncpg

from domain.errors import StoreUnavailable
from projections import tables
from projections.figures import RUNNING
from projections.observing import observed
from projections.ports import EventSource, Message
from projections.postgres import AWAY
from projections.projection import Projection, Unreadable
from projections.schema import TablesReplaced, ensure_tables, fingerprint, rewind
from projections.upsert import RowStore
from projections.view import Key, M, R, View

CONNECT_S: Final = 5.0
STATEMENT_S: Final = 60.0  # a batch takes milliseconds; this long, and the server is gone
FIRST_RETRY_S: Final = 0.2
LONGEST_RETRY_S: Final = 5.0
STANDBY_S: Final = 1.0  # how soon a second runner takes over
SLICE: Final = 100  # messages that are read before Postgres's answers are looked at again
REPLACED_S: Final = 30.0  # how often a runner looks whether its tables are back

_CHECKPOINT: Final = tables.projection_checkpoint.fullname
_LOCK: Final = 0x66747072  # "ftpr"; the second half of the key is the projection's name
_FIND: Final = f"SELECT sequence FROM {_CHECKPOINT} WHERE name = $1"  # noqa: S608 - our own name
_MOVE: Final = (
    f"WITH moved AS (UPDATE {_CHECKPOINT} SET sequence = $1, error = NULL, updated_at = now() "  # noqa: S608 - our own name
    "WHERE name = $2 AND sequence = $3 AND fingerprint = $4 RETURNING name, sequence) "
    f"SELECT pg_notify('{tables.CHANNEL}', name || ' ' || sequence) FROM moved"
)
_AWAY: Final = (StoreUnavailable, *AWAY)
# The same messages would be refused again; asyncpg raises DataError also before it sends.
_POISON: Final = (Unreadable, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)

_log = logging.getLogger(__name__)


class _LostOwnership(Exception):
    """Somebody else has moved the checkpoint."""


@dataclass(slots=True)
class ProjectionState:
    """What health shows. ``stopped`` needs a person: the same message would stop it again."""

    name: str
    status: Literal["waiting", "standby", "running", "replaced", "stopped"] = "waiting"
    sequence: int = 0
    behind: int = 0  # messages, when the last one was delivered
    error: str | None = None


@dataclass(slots=True)
class _Read(Generic[M]):
    """A batch as far as it could be read: for each view its messages."""

    messages: list[list[M]]
    last: Message | None = None
    broken: Unreadable | None = None


async def connect(dsn: str) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_S,
        command_timeout=STATEMENT_S,
        server_settings={
            "application_name": "finetrail projections",
            "synchronous_commit": "off",
            "jit": "off",  # asyncpg's advice: compiling costs more than these statements
        },
    )


class Runner(Generic[M]):
    """Keeps one projection up to date."""

    def __init__(self, projection: Projection[M], source: EventSource, dsn: str) -> None:
        self.state = ProjectionState(projection.name)
        self._projection = projection
        self._source = source
        self._dsn = dsn
        self._fingerprint = fingerprint(projection)
        self._stores = [(view, RowStore(view)) for view in projection.views]
        self._wanted: dict[str, Sequence[int]] = {}
        self._delay = FIRST_RETRY_S

    async def run(self) -> None:
        """Project for ever, through absences of Postgres and the log; return only when stopped."""
        while True:
            try:
                await self._session()
            except _POISON as error:
                await self.stop(error)
                return
            except TablesReplaced as error:
                self._went("replaced", error)
                self._delay = REPLACED_S
            except _LostOwnership as error:
                _log.info("projection %s: %s", self.state.name, error)
            except _AWAY as error:
                self._went("waiting", error)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, LONGEST_RETRY_S)

    async def _session(self) -> None:
        connection = await connect(self._dsn)
        try:
            await self._own(connection)
            await ensure_tables(connection, self._projection, replace=False)
            after = await self._begin(connection)
            async with contextlib.aclosing(self._source.follow(after)) as batches:
                self._went("running")
                self._delay = FIRST_RETRY_S
                await self._follow(connection, batches)
        finally:
            connection.terminate()

    async def _follow(
        self,
        connection: "asyncpg.Connection[Any]",
        batches: AsyncGenerator[Sequence[Message], None],
    ) -> None:
        """Read each batch while Postgres writes the one before it."""
        sequence = self.state.sequence
        writing: asyncio.Task[None] | None = None
        try:
            async for batch in batches:
                read = await self._read(batch, sequence)
                if writing is not None:
                    await writing
                    writing = None
                if read.last is not None:
                    sequence = read.last.sequence
                    write = partial(self._write, connection, read.messages, read.last)
                    writing = asyncio.create_task(
                        observed(self.state.name, batch, read.last, write)
                    )
                if read.broken is not None:
                    if writing is not None:
                        await writing  # what stands before it still counts
                    raise read.broken
                if not batch:
                    await self._check(connection)
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def _own(self, connection: "asyncpg.Connection[Any]") -> None:
        lock = "SELECT pg_try_advisory_lock($1, hashtext($2))"
        while not await connection.fetchval(lock, _LOCK, self.state.name):
            self._went("standby")
            await asyncio.sleep(STANDBY_S)

    async def _begin(self, connection: "asyncpg.Connection[Any]") -> int:
        """Where to go on: behind the checkpoint, or from the start where the log is another one."""
        checkpoint: int = await connection.fetchval(_FIND, self.state.name)
        last = await self._source.last()
        if checkpoint > last:
            _log.warning(
                "the log of projection %s ends at %d, before the checkpoint %d: it is another log, "
                "or an older copy; starting over",
                self.state.name,
                last,
                checkpoint,
            )
            await rewind(connection, self._projection)
            checkpoint = 0
        self.state.sequence = checkpoint
        return checkpoint

    async def _check(self, connection: "asyncpg.Connection[Any]") -> None:
        """While nothing comes, see that Postgres is there and the checkpoint is still ours."""
        if await connection.fetchval(_FIND, self.state.name) != self.state.sequence:
            raise _LostOwnership("the checkpoint was moved by somebody else")

    async def _read(self, batch: Sequence[Message], after: int) -> "_Read[M]":
        """Read for each view what it wants, as far as it can be read."""
        read = _Read[M]([[] for _ in self._stores])
        for place, message in enumerate(batch):
            if place % SLICE == 0:
                await asyncio.sleep(0)
            if message.sequence <= (read.last.sequence if read.last else after):
                continue  # delivered again
            if takers := self._takers(self._projection.type_of(message)):
                try:
                    found = self._projection.read(message)
                except Unreadable as error:
                    read.broken = error
                    break
                for taker in takers:
                    read.messages[taker] += found
            read.last = message
        return read

    def _takers(self, type_: str) -> Sequence[int]:
        """Places of the views that want it."""
        takers = self._wanted.get(type_)
        if takers is None:
            views = enumerate(self._projection.views)
            takers = [n for n, view in views if view.wants is None or type_ in view.wants]
            self._wanted[type_] = takers
        return takers

    async def _write(
        self,
        connection: "asyncpg.Connection[Any]",
        messages: Sequence[Sequence[M]],
        last: Message,
    ) -> None:
        try:
            await self._move(connection, messages, last.sequence)
        except asyncpg.UniqueViolationError:
            copying = [store for _, store in self._stores if store.copies]
            if not copying:
                raise
            _log.warning("projection %s: some rows are there already", self.state.name)
            for store in copying:
                store.copies = False
            await self._move(connection, messages, last.sequence)
        self.state.sequence, self.state.behind = last.sequence, last.pending

    async def _move(
        self,
        connection: "asyncpg.Connection[Any]",
        messages: Sequence[Sequence[M]],
        last: int,
    ) -> None:
        """Write the rows and move the checkpoint, or do neither."""
        name, before = self.state.name, self.state.sequence
        async with connection.transaction():
            if not await connection.fetch(_MOVE, last, name, before, self._fingerprint):
                raise _LostOwnership(f"the checkpoint is no longer at {before}")
            for (view, store), its in zip(self._stores, messages, strict=True):
                if its:
                    await _fold(connection, view, store, its)

    async def stop(self, error: Exception) -> None:
        self._went("stopped", error)
        note = f"UPDATE {_CHECKPOINT} SET error = $2, updated_at = now() WHERE name = $1"  # noqa: S608 - our own name
        with contextlib.suppress(*_AWAY):
            connection = await connect(self._dsn)
            try:
                await connection.execute(note, self.state.name, self.state.error)
            finally:
                connection.terminate()

    def _went(
        self,
        status: Literal["waiting", "standby", "running", "replaced", "stopped"],
        error: Exception | None = None,
    ) -> None:
        """Note the state, and say in the log what is new."""
        reason = f"{type(error).__name__}: {error}" if error else None
        if (self.state.status, self.state.error) == (status, reason):
            return
        self.state.status, self.state.error = status, reason
        RUNNING.labels(self.state.name).set(status == "running")
        level = {"stopped": logging.CRITICAL, "replaced": logging.ERROR, "waiting": logging.WARNING}
        _log.log(
            level.get(status, logging.INFO),
            "projection %s is %s behind sequence %d%s",
            self.state.name,
            status,
            self.state.sequence,
            f": {reason}" if reason else "",
        )


async def _fold(
    connection: "asyncpg.Connection[Any]",
    view: View[M, R],
    store: RowStore[M, R],
    messages: Sequence[M],
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
    for key, its in touched.items():
        row = before = known.get(key)
        for message in its:
            row = view.project(row, message)
        if row is not None and row != before:
            changed.append(row)
    if changed:
        await store.write(connection, changed)
