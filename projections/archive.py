"""The archive's runner: chains every event of the log, keeps it a second time, and has the chain signed.

Exactly once by the rule of all projections: rows and checkpoint move in one transaction, from where
this runner believes the checkpoint to be. Unlike them it never starts over: a log that does not fit
what was archived or signed is what it is there to find, so it stops and says which sequence it is.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import asyncpg

from domain.audit import Head, Key, chained_headers, event_hash, header_lines
from domain.errors import StoreUnavailable
from projections import archive_store as store
from projections.archive_store import Chain, KeyUnknown, Moved
from projections.figures import BEHIND, CHECKPOINT, HEAD_AGE_SECONDS, PROJECTED, RUNNING, UNSIGNED
from projections.ports import Message
from projections.postgres import AWAY
from projections.publishing import HeadPlace, Publisher
from projections.run import FIRST_RETRY_S, LONGEST_RETRY_S, STANDBY_S, ProjectionState
from projections.run import connect as connect_postgres

NAME: Final = "archive"
SLICE: Final = 100  # messages that are chained before others have their turn
_LOCK: Final = 0x66746163  # "ftac": one runner at a time

_AWAY: Final = (StoreUnavailable, *AWAY)

_log = logging.getLogger(__name__)


class LogDiffers(Exception):
    """The log is not the one that was archived or signed."""


class CannotSign(Exception):
    """There is no key to sign with; events are archived all the same."""


# The same would happen again.
_STOPS: Final = (
    LogDiffers,
    KeyUnknown,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
)


class ChainedMessage(Message, Protocol):
    @property
    def block(self) -> bytes:
        """The headers as they stand on the wire."""
        ...


class ChainedSource(Protocol):
    """The whole log, as `projections.ports.EventSource` gives it."""

    async def last(self) -> int: ...
    def follow(self, after: int) -> AsyncGenerator[Sequence[ChainedMessage], None]: ...


class Signer(Protocol):
    """The key, and what is kept beside it."""

    def sign(self, log: str, sequence: int, hash_: str, known: Sequence[Key]) -> Head:
        """Sign a head; ``known`` are the keys of which the archive knows.

        Raises:
            CannotSign: The key is missing, or it is not the one that it should be.
        """
        ...

    def public_keys(self) -> Sequence[Key]:
        """All that have signed here, each behind the one that has vouched for it."""
        ...

    def heads(self) -> Iterable[Head]:
        """What was signed before, as it is kept where a lost database does not reach."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """A head is signed as soon as one of the two is reached."""

    seconds: float = 60
    events: int = 1000


@dataclass(slots=True)
class _Unsigned:
    """What stands behind the last head."""

    events: int = 0
    since: float = 0.0  # when the first of them was archived
    refused: float = 0.0  # when signing failed last
    ahead: list[Head] = field(default_factory=list)  # signed before; still to be passed again


class Archiver:
    """Keeps the archive up to date, and signs."""

    def __init__(
        self,
        source: ChainedSource,
        dsn: str,
        signer: Signer,
        places: Sequence[HeadPlace],
        pace: Pace,
    ) -> None:
        self.state = ProjectionState(NAME)
        self._source = source
        self._dsn = dsn
        self._signer = signer
        self._publisher = Publisher(dsn, places)
        self._pace = pace
        self._chain = Chain()
        self._unsigned = _Unsigned()
        self._delay = FIRST_RETRY_S
        self._signed_at = time.time()
        HEAD_AGE_SECONDS.set_function(lambda: time.time() - self._signed_at)

    async def run(self) -> None:
        """Archive for ever, through absences of Postgres and the log; return only when stopped."""
        while True:
            try:
                await self._session()
            except _STOPS as error:
                await self.stop(error)
                return
            except Moved as error:
                _log.info("archive: %s", error)
            except _AWAY as error:
                self._went("waiting", error)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, LONGEST_RETRY_S)

    async def stop(self, error: Exception) -> None:
        self._went("stopped", error)
        note = "UPDATE archive.checkpoint SET error = $1, updated_at = now()"
        with contextlib.suppress(*AWAY):
            connection = await connect_postgres(self._dsn)
            try:
                await connection.execute(note, self.state.error)
            finally:
                connection.terminate()

    async def _session(self) -> None:
        connection = await connect_postgres(self._dsn)
        try:
            await self._own(connection)
            await store.make(connection)
            await self._begin(connection)
            publishing = asyncio.create_task(self._publisher.run(), name="publishing heads")
            try:
                await self._follow(connection, publishing)
            except asyncio.CancelledError:
                await self._sign_last(connection)
                raise
            finally:
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)
        finally:
            connection.terminate()

    async def _own(self, connection: "asyncpg.Connection[Any]") -> None:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            self._went("standby")
            await asyncio.sleep(STANDBY_S)

    async def _begin(self, connection: "asyncpg.Connection[Any]") -> None:
        """Find out how far the chain is and what was signed, also of an archive that was lost."""
        chain = self._chain = await store.chain(connection)
        self.state.sequence = chain.sequence
        await store.add_keys(connection, self._signer.public_keys())
        heads = {head.sequence: head for head in self._signer.heads()}
        heads |= {head.sequence: head for head in await store.heads(connection)}
        reached = [head for at, head in sorted(heads.items()) if at <= chain.sequence]
        archived = await store.hashes(connection, [head.sequence for head in reached])
        for head in reached:
            _check_head(head, head.sequence, archived.get(head.sequence, b""), chain.log)
        await store.add_heads(connection, reached)
        last, newest = await self._source.last(), max([chain.sequence, *heads])
        if last < newest:
            raise LogDiffers(f"the log ends with event {last}, and there was an event {newest}")
        if heads:
            self._signed_at = datetime.fromisoformat(heads[max(heads)].time).timestamp()
        signed = reached[-1].sequence if reached else 0
        self._unsigned = _Unsigned(
            await store.unsigned(connection, signed),
            time.monotonic(),
            ahead=[head for at, head in sorted(heads.items()) if at > chain.sequence],
        )
        UNSIGNED.set(self._unsigned.events)

    async def _follow(
        self, connection: "asyncpg.Connection[Any]", publishing: "asyncio.Task[None]"
    ) -> None:
        # The event that was archived last comes again, to see that it is the same.
        checked = self._chain.sequence == 0
        after = self._chain.sequence if checked else self._chain.sequence - 1
        async with contextlib.aclosing(self._source.follow(after)) as batches:
            async for batch in batches:
                if self.state.status != "running":
                    self._went("running")
                self._delay = FIRST_RETRY_S
                if batch and not checked:
                    await self._check_same(connection, batch[0])
                    checked = True
                new = [message for message in batch if message.sequence > self._chain.sequence]
                while new:
                    # No further than where a head is due.
                    count = max(1, self._pace.events - self._unsigned.events)
                    await self._take(connection, new[:count])
                    await self._sign_when_due(connection)
                    new = new[count:]
                if not batch and await store.chain(connection) != self._chain:
                    raise Moved("the archive's checkpoint was moved by somebody else")
                await self._sign_when_due(connection)
                if publishing.done():
                    publishing.result()  # it never ends but by a bug

    async def _check_same(
        self, connection: "asyncpg.Connection[Any]", message: ChainedMessage
    ) -> None:
        chain = self._chain
        before = await store.hash_before(connection, chain.sequence)
        if message.sequence != chain.sequence or _hashed(message, before)[0] != chain.hash:
            raise LogDiffers(
                f"event {chain.sequence}, which was archived last, is no longer in the log as it "
                "was: `finetrail audit verify` says since when"
            )

    async def _take(
        self, connection: "asyncpg.Connection[Any]", messages: Sequence[ChainedMessage]
    ) -> None:
        """Chain these messages, write them and move the checkpoint, or do neither."""
        before, ahead, passed = self._chain, deque(self._unsigned.ahead), list[Head]()
        sequence, digest, log = before.sequence, before.hash, before.log
        rows: list[store.Row] = []
        for place, message in enumerate(messages):
            if place % SLICE == 0:
                await asyncio.sleep(0)
            digest, headers = _hashed(message, digest)
            sequence, log = message.sequence, log or digest
            while ahead and ahead[0].sequence <= sequence:
                passed.append(ahead.popleft())
                _check_head(passed[-1], sequence, digest, log)
            rows.append((sequence, _time(message), message.subject, headers, message.data, digest))
        async with connection.transaction():
            after = Chain(sequence, digest, log)
            await store.append(connection, before, after, rows)
            await store.add_heads(connection, passed)
        self._chain = after
        self._wait_for_head(rows, passed, list(ahead))
        self.state.sequence, self.state.behind = sequence, messages[-1].pending
        PROJECTED.labels(NAME).inc(len(rows))
        CHECKPOINT.labels(NAME).set(sequence)
        BEHIND.labels(NAME).set(messages[-1].pending)

    def _wait_for_head(
        self, rows: Sequence[store.Row], passed: Sequence[Head], ahead: list[Head]
    ) -> None:
        """Count what is to be signed; behind a head that was signed before, only what follows it."""
        unsigned = self._unsigned
        if not unsigned.events:
            unsigned.since = time.monotonic()
        unsigned.ahead = ahead
        if passed:
            unsigned.events = sum(row[0] > passed[-1].sequence for row in rows)
        else:
            unsigned.events += len(rows)
        UNSIGNED.set(unsigned.events)

    async def _sign_when_due(self, connection: "asyncpg.Connection[Any]") -> None:
        if self._is_due():
            await self._sign(connection)

    def _is_due(self) -> bool:
        unsigned, now = self._unsigned, time.monotonic()
        if not unsigned.events or unsigned.ahead:  # what was signed before is to be proven first
            return False
        if unsigned.refused and now - unsigned.refused < LONGEST_RETRY_S:
            return False
        return unsigned.events >= self._pace.events or now - unsigned.since >= self._pace.seconds

    async def _sign(self, connection: "asyncpg.Connection[Any]") -> None:
        """Sign where the chain is now; without a key, say so and go on."""
        chain = self._chain
        log = (chain.log or chain.hash).hex()
        try:
            known = await store.keys(connection)
            head = self._signer.sign(log, chain.sequence, chain.hash.hex(), known)
            async with connection.transaction():
                if await store.chain(connection) != chain:
                    raise Moved("somebody else archives as well")
                await store.add_keys(connection, self._signer.public_keys())
                await store.add_heads(connection, [head])
        except (CannotSign, KeyUnknown) as error:
            self._unsigned.refused = time.monotonic()
            self._went("running", error)
            return
        self._unsigned = _Unsigned()
        self._signed_at = time.time()
        UNSIGNED.set(0)
        self._publisher.wake()
        self._went("running")

    async def _sign_last(self, connection: "asyncpg.Connection[Any]") -> None:
        """Before a clean stop; whoever stops us does not wait long."""
        with contextlib.suppress(*_AWAY, Moved):
            if self._unsigned.events and not self._unsigned.ahead:
                await self._sign(connection)
            await self._publisher.round()

    def _went(
        self,
        status: Literal["waiting", "standby", "running", "stopped"],
        error: Exception | None = None,
    ) -> None:
        """Note the state, and say in the log what is new."""
        reason = f"{type(error).__name__}: {error}" if error else None
        if (self.state.status, self.state.error) == (status, reason):
            return
        self.state.status, self.state.error = status, reason
        RUNNING.labels(NAME).set(status == "running")
        level = logging.ERROR if error else logging.INFO
        _log.log(
            {"stopped": logging.CRITICAL, "waiting": logging.WARNING}.get(status, level),
            "the archive is %s behind sequence %d%s",
            status,
            self._chain.sequence,
            f": {reason}" if reason else "",
        )


def _hashed(message: ChainedMessage, previous: bytes) -> tuple[bytes, bytes]:
    """The hash of a message behind this one, and its headers in one piece."""
    headers = chained_headers(message.block)
    data = hashlib.sha256(message.data).digest()
    subject = message.subject.encode()
    return event_hash(previous, message.sequence, subject, headers, data), header_lines(headers)


def _time(message: Message) -> datetime | None:
    try:
        told = datetime.fromisoformat(message.headers["ce-time"])
    except (KeyError, ValueError):
        return None
    return told if told.tzinfo else told.replace(tzinfo=UTC)


def _check_head(head: Head, sequence: int, found: bytes, log: bytes | None) -> None:
    """See that the chain has at ``sequence`` what was signed."""
    if log is None or head.log != log.hex():
        raise LogDiffers(
            f"the head at event {head.sequence} was signed for another log than this one; the files "
            "beside the audit key are not this log's"
        )
    if (head.sequence, head.hash) != (sequence, found.hex()):
        raise LogDiffers(
            f"the log up to event {head.sequence} is not what was signed at {head.time}"
        )
