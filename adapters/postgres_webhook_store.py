"""Webhooks beside the log, in the schema ``state`` of Postgres: secrets, cursors, deliveries and their log."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters.postgres_away import AWAY
from adapters.webhook_tables import MAKE, MARKER
from domain.webhooks.deliveries import Answer, Attempt, Cursor, Delivery

TIMEOUT_S: Final = 5.0
CONNECTIONS: Final = 4  # each call takes a millisecond or two
CHECK_S: Final = 2.0  # how soon whoever has lost its lock knows
KEPT: Final = timedelta(days=30)  # lines of the delivery log
KEPT_DEAD: Final = timedelta(days=90)  # as long as its dead letter
KEPT_UNUSED: Final = timedelta(days=1)  # secrets: one is stored before the log tells of it
_MAKING: Final = 0x66747768  # "ftwh": two processes that make the tables at once would collide
OWNING: Final = 0x66747764  # "ftwd": who delivers; the second half of the key is the workspace
_DELIVERY: Final = (
    "webhook_id, sequence, message_id, type, lane, due_at, attempts, status, failure, retry_of"
)
_PUT: Final = (
    f"INSERT INTO state.webhook_delivery ({_DELIVERY}) "  # noqa: S608 - our own names
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
    "ON CONFLICT (webhook_id, sequence) DO UPDATE SET due_at = excluded.due_at, "
    "attempts = excluded.attempts, status = excluded.status, failure = excluded.failure, "
    "retry_of = excluded.retry_of, changed_at = now()"
)
_LOG: Final = (
    "INSERT INTO state.webhook_attempt (webhook_id, sequence, message_id, type, attempt, at, "
    "outcome, status, latency_s, error, answer) "
    "SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::int[], "
    "$6::timestamptz[], $7::text[], $8::int[], $9::float8[], $10::text[], $11::text[])"
)


class StoreMoved(Exception):
    """Another process has moved this webhook's cursor: it delivers now."""


class PostgresWebhookStore:
    """Every call raises `ConnectionError` while Postgres is away.

    Commits of the one that delivers are asynchronous: after a crash of Postgres it stands a moment
    earlier, and delivers what came since once more.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def owned(self, workspace: str) -> AsyncIterator["asyncio.Task[None] | None"]:
        """Be the one that delivers, or None where somebody else is; the task fails when it ends."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                connection = await asyncpg.connect(
                    self._dsn, server_settings={"application_name": "finetrail delivery"}
                )
        except AWAY as error:
            raise _away(error) from error
        try:
            if not await _locked(connection, workspace):
                yield None
                return
            watching = asyncio.create_task(_watch(connection))
            try:
                yield watching
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        finally:
            connection.terminate()

    async def keep_secret(self, webhook_id: UUID, id_: str, value: str) -> str:
        """Keep it unless there is one of that id; give the one that is kept."""
        keep = (
            "INSERT INTO state.webhook_secret (webhook_id, id, value) VALUES ($1, $2, $3) "
            "ON CONFLICT (webhook_id, id) DO UPDATE SET value = state.webhook_secret.value "
            "RETURNING value"
        )
        async with self._connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = on")
            return str(await connection.fetchval(keep, webhook_id, id_, value))

    async def secret(self, webhook_id: UUID, id_: str) -> str | None:
        find = "SELECT value FROM state.webhook_secret WHERE webhook_id = $1 AND id = $2"
        async with self._connection() as connection:
            found: str | None = await connection.fetchval(find, webhook_id, id_)
        return found

    async def cursor(self, webhook_id: UUID) -> Cursor | None:
        find = "SELECT sequence, handled FROM state.webhook_cursor WHERE webhook_id = $1"
        async with self._connection() as connection:
            found = await connection.fetchrow(find, webhook_id)
        return Cursor(found["sequence"], found["handled"]) if found else None

    async def cursors(self) -> dict[UUID, Cursor]:
        find = "SELECT webhook_id, sequence, handled FROM state.webhook_cursor"
        async with self._connection() as connection:
            found = await connection.fetch(find)
        return {one["webhook_id"]: Cursor(one["sequence"], one["handled"]) for one in found}

    async def waiting(self) -> dict[UUID, int]:
        """How many deliveries of each webhook wait for an attempt."""
        count = (
            "SELECT webhook_id, count(*) AS n FROM state.webhook_delivery "
            "WHERE status = 'open' GROUP BY webhook_id"
        )
        async with self._connection() as connection:
            return {one["webhook_id"]: one["n"] for one in await connection.fetch(count)}

    async def place(self, webhook_id: UUID, cursor: Cursor, *, again: bool = False) -> None:
        """Put the cursor there; with ``again`` what waits behind it is dropped, to be taken in anew."""
        put = (
            "INSERT INTO state.webhook_cursor (webhook_id, sequence, handled) VALUES ($1, $2, $3) "
            "ON CONFLICT (webhook_id) DO UPDATE SET sequence = excluded.sequence, "
            "handled = excluded.handled, updated_at = now()"
        )
        drop = (
            "DELETE FROM state.webhook_delivery "
            "WHERE webhook_id = $1 AND sequence > $2 AND status = 'open'"
        )
        async with self._connection() as connection, connection.transaction():
            await connection.execute(put, webhook_id, cursor.sequence, cursor.handled)
            if again:
                await connection.execute(drop, webhook_id, cursor.sequence)

    async def take(
        self, webhook_id: UUID, before: int, after: int, deliveries: Sequence[Delivery]
    ) -> None:
        """Take in what is to be delivered, and move the cursor over it.

        Raises:
            StoreMoved: The cursor was not where the caller believed it.
        """
        move = (
            "UPDATE state.webhook_cursor SET sequence = $3, updated_at = now() "
            "WHERE webhook_id = $1 AND sequence = $2 RETURNING sequence"
        )
        async with self._connection() as connection, connection.transaction():
            if await connection.fetchval(move, webhook_id, before, after) is None:
                raise StoreMoved(f"webhook {webhook_id} is no longer at {before}")
            await connection.executemany(_PUT, [_values(one) for one in deliveries])

    async def deliveries(self, webhook_id: UUID) -> list[Delivery]:
        """What waits, and what is to be put aside, in the order of the log."""
        find = (
            f"SELECT {_DELIVERY} FROM state.webhook_delivery "  # noqa: S608 - our own names
            "WHERE webhook_id = $1 AND status <> 'dead' ORDER BY sequence"
        )
        async with self._connection() as connection:
            return [Delivery(**dict(one)) for one in await connection.fetch(find, webhook_id)]

    async def record(
        self, webhook_id: UUID, attempts: Sequence[Attempt], waiting: Sequence[Delivery], done: Sequence[int]
    ) -> None:  # fmt: skip
        """Write what was tried: deliveries that wait on or are given up, and sequences that are done."""
        remove = "DELETE FROM state.webhook_delivery WHERE webhook_id = $1 AND sequence = ANY($2)"
        async with self._connection() as connection, connection.transaction():
            if attempts:
                await connection.execute(_LOG, *_columns(attempts))
            if waiting:
                await connection.executemany(_PUT, [_values(one) for one in waiting])
            if done:
                await connection.execute(remove, webhook_id, list(done))

    async def hasten(self, webhook_id: UUID, now: datetime) -> None:
        """Try at once what waits."""
        due = "UPDATE state.webhook_delivery SET due_at = $2 WHERE webhook_id = $1 AND status = 'open'"
        async with self._connection() as connection:
            await connection.execute(due, webhook_id, now)

    async def reopen(self, message_id: str, letter: int, now: datetime) -> Delivery | None:
        """Let a dead delivery begin again; None where it is not dead."""
        begin = (
            "UPDATE state.webhook_delivery SET status = 'open', attempts = 0, due_at = $3, "  # noqa: S608 - our own names
            "retry_of = $2, changed_at = now() WHERE message_id = $1 AND status = 'dead' "
            f"RETURNING {_DELIVERY}"
        )
        async with self._connection() as connection:
            found = await connection.fetchrow(begin, message_id, letter, now)
        return Delivery(**dict(found)) if found else None

    async def give_up(self, message_id: str) -> None:
        drop = "DELETE FROM state.webhook_delivery WHERE message_id = $1 AND status = 'dead'"
        async with self._connection() as connection:
            await connection.execute(drop, message_id)

    async def position(self, name: str) -> int:
        find = "SELECT sequence FROM state.webhook_position WHERE name = $1"
        async with self._connection() as connection:
            return int(await connection.fetchval(find, name) or 0)

    async def move(self, name: str, sequence: int) -> None:
        put = (
            "INSERT INTO state.webhook_position (name, sequence) VALUES ($1, $2) "
            "ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence"
        )
        async with self._connection() as connection:
            await connection.execute(put, name, sequence)

    async def attempts(
        self, webhook_id: UUID, *, before: int | None = None, limit: int = 50
    ) -> list[Attempt]:
        """The delivery log, newest first."""
        find = (
            "SELECT * FROM state.webhook_attempt WHERE webhook_id = $1 "
            "AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        )
        async with self._connection() as connection:
            return [
                _attempt(one) for one in await connection.fetch(find, webhook_id, before, limit)
            ]

    async def mark_read(self, workspace: str, key_id: str, ids: Sequence[str]) -> int:
        """Note that this key has read these notifications; give how many it had not before."""
        put = (
            "INSERT INTO state.notification_read (workspace, key_id, notification) "
            "SELECT $1, $2, unnest($3::text[]) ON CONFLICT DO NOTHING RETURNING 1"
        )
        async with self._connection() as connection:
            return len(await connection.fetch(put, workspace, key_id, list(dict.fromkeys(ids))))

    async def marked_read(self, workspace: str, key_id: str, ids: Sequence[str]) -> frozenset[str]:
        """Which of these notifications this key has read."""
        find = (
            "SELECT notification FROM state.notification_read "
            "WHERE workspace = $1 AND key_id = $2 AND notification = ANY($3)"
        )
        async with self._connection() as connection:
            found = await connection.fetch(find, workspace, key_id, list(ids))
        return frozenset(one["notification"] for one in found)

    async def forget(self, webhook_id: UUID) -> None:
        """Keep nothing of a webhook that was removed."""
        async with self._connection() as connection, connection.transaction():
            for table in ("secret", "cursor", "delivery", "attempt"):
                await connection.execute(
                    f"DELETE FROM state.webhook_{table} WHERE webhook_id = $1",  # noqa: S608 - our own names
                    webhook_id,
                )

    async def prune(self, now: datetime, used: Collection[tuple[UUID, str]]) -> None:
        """Drop what is too old, and secrets of the same webhooks that are none of the used ones."""
        unused = (
            "DELETE FROM state.webhook_secret s WHERE made_at < $1 "
            "AND webhook_id = ANY($2) AND NOT EXISTS ("
            "SELECT FROM unnest($2::uuid[], $3::text[]) AS u (webhook_id, id) "
            "WHERE u.webhook_id = s.webhook_id AND u.id = s.id)"
        )
        old = "DELETE FROM state.webhook_attempt WHERE at < $1"
        dead = "DELETE FROM state.webhook_delivery WHERE status = 'dead' AND changed_at < $1"
        ids, names = [id_ for id_, _ in used], [name for _, name in used]
        async with self._connection() as connection:
            await connection.execute(unused, now - KEPT_UNUSED, ids, names)
            await connection.execute(old, now - KEPT)
            await connection.execute(dead, now - KEPT_DEAD)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["asyncpg.pool.PoolConnectionProxy[Any]"]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                pool = self._pool or await self._open()
                async with pool.acquire() as connection:
                    yield connection
        except AWAY as error:
            raise _away(error) from error

    async def _open(self) -> "asyncpg.Pool[Any]":
        async with self._opening:
            if self._pool is None:
                pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=CONNECTIONS,
                    server_settings={
                        "application_name": "finetrail webhooks",
                        "synchronous_commit": "off",
                    },
                )
                try:
                    async with pool.acquire() as connection:
                        await make_tables(connection)
                except BaseException:
                    pool.terminate()  # the next call opens another one
                    raise
                self._pool = pool
            return self._pool


async def make_tables(connection: "asyncpg.pool.PoolConnectionProxy[Any]") -> None:
    if await connection.fetchval("SELECT to_regclass($1)", MARKER) is not None:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MAKING)
        await connection.execute(MAKE)


async def _locked(connection: "asyncpg.Connection[Any]", workspace: str) -> bool:
    try:
        lock = "SELECT pg_try_advisory_lock($1, hashtext($2))"
        return bool(await connection.fetchval(lock, OWNING, workspace))
    except AWAY as error:
        raise _away(error) from error


async def _watch(connection: "asyncpg.Connection[Any]") -> None:
    """Fail once the connection that holds the lock is gone."""
    try:
        while True:
            await asyncio.sleep(CHECK_S)
            await connection.execute("SELECT 1", timeout=TIMEOUT_S)
    except AWAY as error:
        raise _away(error) from error


def _away(error: Exception) -> ConnectionError:
    return ConnectionError(f"webhooks: {str(error) or type(error).__name__}")


def _values(one: Delivery) -> tuple[object, ...]:
    return (
        one.webhook_id,
        one.sequence,
        one.message_id,
        one.type,
        one.lane,
        one.due_at,
        one.attempts,
        one.status,
        one.failure,
        one.retry_of,
    )


def _columns(attempts: Sequence[Attempt]) -> list[list[Any]]:
    rows = [
        (
            one.webhook_id,
            one.sequence,
            one.message_id,
            one.type,
            one.attempt,
            one.at,
            one.outcome,
            one.answer.status,
            one.answer.latency_s,
            _storable(one.answer.error),
            _storable(one.answer.text),
        )
        for one in attempts
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _storable(text: str) -> str:
    """Postgres has no NUL in texts."""
    return text.replace("\0", "")


def _attempt(one: "asyncpg.Record") -> Attempt:
    return Attempt(
        webhook_id=one["webhook_id"],
        sequence=one["sequence"],
        message_id=one["message_id"],
        type=one["type"],
        attempt=one["attempt"],
        at=one["at"],
        outcome=one["outcome"],
        answer=Answer(
            latency_s=one["latency_s"],
            status=one["status"],
            error=one["error"],
            text=one["answer"],
        ),
        id=one["id"],
    )
