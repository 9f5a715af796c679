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
from projections.ddl import Connection
from projections.figures import PARKED, RUNNING
from projections.observing import observed
from projections.ports import EventSource, Message
from projections.postgres import AWAY
from projections.projection import Projection
from projections.schema import BeingFilled, Live, TablesReplaced, find_live, rewind
from projections.view import M
from projections.writing import Batch, LostOwnership, Parked, Writer

CONNECT_S: Final = 5.0
STATEMENT_S: Final = 60.0  # a batch takes milliseconds; this long, and the server is gone
FIRST_RETRY_S: Final = 0.2
LONGEST_RETRY_S: Final = 5.0
STANDBY_S: Final = 1.0  # how soon a second runner takes over
REPLACED_S: Final = 30.0  # how often a runner looks whether its tables are back
FILLED_S: Final = 1.0  # how often it looks whether its tables are filled

_CHECKPOINT: Final = tables.projection_checkpoint.fullname
LOCK: Final = 0x66747072  # "ftpr"; the second half of the key is the projection's name
_FIND: Final = f"SELECT sequence, generation FROM {_CHECKPOINT} WHERE name = $1"  # noqa: S608 - our own name
_MOVE: Final = (
    f"WITH moved AS (UPDATE {_CHECKPOINT} SET sequence = $1, error = NULL, updated_at = now() "  # noqa: S608 - our own name
    "WHERE name = $2 AND sequence = $3 AND fingerprint = $4 AND generation = $5 "
    "RETURNING name, sequence) "
    f"SELECT pg_notify('{tables.CHANNEL}', name || ' ' || sequence) FROM moved"
)
_PARK: Final = (
    f"UPDATE {tables.projection_view.fullname} "  # noqa: S608 - our own name
    "SET parked_at = $2, error = $3, parked_since = now() WHERE name = $1"
)
_AWAY: Final = (StoreUnavailable, *AWAY)
_log = logging.getLogger(__name__)


class _Switched(LostOwnership):
    """Other tables are read now; the next session writes those."""


@dataclass(slots=True)
class ProjectionState:
    """What health shows. ``stopped`` needs a person: the same message would stop it again."""

    name: str
    status: Literal["waiting", "standby", "running", "replaced", "stopped"] = "waiting"
    sequence: int = 0
    behind: int = 0  # messages, when the last one was delivered
    error: str | None = None


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


class LivePosition:
    """The checkpoint of what is read, moved from where the runner believes it to be."""

    def __init__(self, name: str, live: Live) -> None:
        self._name = name
        self._live = live

    async def move(self, connection: Connection, before: int, last: int) -> bool:
        live = self._live
        return bool(
            await connection.fetch(
                _MOVE, last, self._name, before, live.fingerprint, live.generation
            )
        )

    async def park(self, connection: Connection, parked: Parked) -> None:
        await connection.execute(_PARK, parked.view, parked.sequence, parked.reason)
        PARKED.labels(self._name, parked.view).set(1)
        _log.critical(
            "view %s is parked before sequence %d and shows what was before it: %s",
            parked.view,
            parked.sequence,
            parked.reason,
        )


class Runner(Generic[M]):
    """Keeps one projection up to date."""

    def __init__(self, projection: Projection[M], source: EventSource, dsn: str) -> None:
        self.state = ProjectionState(projection.name)
        self._projection = projection
        self._source = source
        self._dsn = dsn
        self._delay = FIRST_RETRY_S

    async def run(self) -> None:
        """Project for ever, through absences of Postgres and the log."""
        while True:
            try:
                await self._session()
            except TablesReplaced as error:
                self._went("replaced", error)
                self._delay = REPLACED_S
            except BeingFilled as error:
                self._went("waiting", error)
                self._delay = FILLED_S
            except _Switched:
                continue
            except LostOwnership as error:
                _log.info("projection %s: %s", self.state.name, error)
            except _AWAY as error:
                self._went("waiting", error)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, LONGEST_RETRY_S)

    async def _session(self) -> None:
        connection = await connect(self._dsn)
        try:
            await self._own(connection)
            live = await find_live(connection, self._projection)
            for view in live.schemas:
                PARKED.labels(self.state.name, view).set(view in live.parked)
            writer = Writer(
                self._projection, LivePosition(self.state.name, live), live.schemas, live.parked
            )
            after = await self._begin(connection)
            async with contextlib.aclosing(self._source.follow(after)) as batches:
                self._went("running")
                self._delay = FIRST_RETRY_S
                await self._follow(connection, writer, live, batches)
        finally:
            connection.terminate()

    async def _follow(
        self,
        connection: Connection,
        writer: Writer[M],
        live: Live,
        batches: AsyncGenerator[Sequence[Message], None],
    ) -> None:
        """Read each batch while Postgres writes the one before it."""
        sequence = self.state.sequence
        writing: asyncio.Task[None] | None = None
        try:
            async for batch in batches:
                read = writer.empty(sequence)
                await writer.read(batch, read)
                if writing is not None:
                    await writing
                    writing = None
                if read.last > sequence:
                    sequence, last = read.last, batch[-1]
                    write = partial(self._write, connection, writer, read, last.pending)
                    writing = asyncio.create_task(observed(self.state.name, batch, last, write))
                if not batch:
                    await self._check(connection, live)
        except LostOwnership as error:
            await self._check(connection, live)
            raise error from None
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def _own(self, connection: Connection) -> None:
        lock = "SELECT pg_try_advisory_lock($1, hashtext($2))"
        while not await connection.fetchval(lock, LOCK, self.state.name):
            self._went("standby")
            await asyncio.sleep(STANDBY_S)

    async def _begin(self, connection: Connection) -> int:
        """Where to go on: behind the checkpoint, or from the start where the log is another one."""
        checkpoint = int(await connection.fetchval(_FIND, self.state.name))
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

    async def _check(self, connection: Connection, live: Live) -> None:
        """While nothing comes, see that Postgres is there and the checkpoint is still ours."""
        row = await connection.fetchrow(_FIND, self.state.name)
        if row and row["generation"] != live.generation:
            raise _Switched("other tables are read now")
        if row is None or row["sequence"] != self.state.sequence:
            raise LostOwnership("the checkpoint was moved by somebody else")

    async def _write(
        self, connection: Connection, writer: Writer[M], batch: Batch[M], behind: int
    ) -> None:
        await writer.write(connection, batch, self.state.sequence)
        self.state.sequence, self.state.behind = batch.last, behind

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
