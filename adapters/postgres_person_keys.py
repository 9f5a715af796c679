"""The keys of people in the schema ``state`` of Postgres, where nothing is kept that was destroyed.

A destroyed key leaves an empty place behind, so that nobody makes another one for that person.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters.postgres_away import AWAY

KEY_BYTES: Final = 32
TIMEOUT_S: Final = 5.0
CONNECTIONS: Final = 4  # each call takes a millisecond
TABLE: Final = "state.person_key"
_LOCK: Final = 0x6674706B  # "ftpk": two processes that make the table at once would collide
_MAKE: Final = f"""
    CREATE SCHEMA IF NOT EXISTS state;
    CREATE TABLE IF NOT EXISTS {TABLE} (
        person_id uuid PRIMARY KEY,
        key bytea,
        created_at timestamptz NOT NULL DEFAULT now(),
        destroyed_at timestamptz
    );
"""
_FIND: Final = f"SELECT person_id, key FROM {TABLE} WHERE person_id = ANY($1)"  # noqa: S608 - our own name
_KEEP: Final = (
    f"INSERT INTO {TABLE} (person_id, key) VALUES ($1, $2) "  # noqa: S608 - our own name
    f"ON CONFLICT (person_id) DO UPDATE SET key = {TABLE}.key RETURNING key"
)
_DESTROY: Final = (
    f"UPDATE {TABLE} SET key = NULL, destroyed_at = now() "  # noqa: S608 - our own name
    "WHERE person_id = ANY($1) AND key IS NOT NULL RETURNING person_id"
)
_EMPTY: Final = (
    f"INSERT INTO {TABLE} (person_id, destroyed_at) "
    "SELECT unnest($1::uuid[]), now() ON CONFLICT (person_id) DO NOTHING"
)


class PostgresPersonKeys:
    """Every call raises `ConnectionError` while Postgres is away."""

    def __init__(self, dsn: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._dsn = dsn
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()

    async def aclose(self) -> None:
        if self._pool is not None:
            self._pool.terminate()

    async def get_or_make(self, person_id: UUID) -> bytes | None:
        """The person's key; None where it was destroyed."""
        found = await self.find([person_id])
        if person_id in found:
            return found[person_id]
        async with self._connection() as connection, connection.transaction():
            # What is sealed with a key that a crash has lost could never be opened.
            await connection.execute("SET LOCAL synchronous_commit = on")
            made = secrets.token_bytes(KEY_BYTES)
            key: bytes | None = await connection.fetchval(_KEEP, person_id, made)
            return key

    async def find(self, people: Collection[UUID]) -> dict[UUID, bytes | None]:
        """The keys of those who ever had one; None for one that was destroyed."""
        async with self._connection() as connection:
            return {one["person_id"]: one["key"] for one in await connection.fetch(_FIND, people)}

    async def destroy(self, people: Collection[UUID]) -> int:
        """Leave no key of theirs; gives how many there were. Doing it again changes nothing."""
        ids = sorted(set(people))
        async with self._connection() as connection:
            async with connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = on")
                gone = await connection.fetch(_DESTROY, ids)
                await connection.execute(_EMPTY, ids)
            if gone:  # an update leaves the former row in the table's file until it is written anew
                await connection.execute(f"VACUUM (FULL) {TABLE}")
        return len(gone)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["asyncpg.pool.PoolConnectionProxy[Any]"]:
        try:
            async with asyncio.timeout(self._timeout_s):
                async with (await self._opened()).acquire() as connection:
                    yield connection
        except AWAY as error:
            raise _away(error) from error

    async def _opened(self) -> "asyncpg.Pool[Any]":
        async with self._opening:
            if self._pool is None:
                pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=CONNECTIONS,
                    timeout=self._timeout_s,
                    server_settings={"application_name": "finetrail person keys"},
                )
                try:
                    await _make(pool)
                except BaseException:
                    pool.terminate()
                    raise
                self._pool = pool
            return self._pool


async def _make(pool: "asyncpg.Pool[Any]") -> None:
    async with pool.acquire() as connection:
        if await connection.fetchval("SELECT to_regclass($1)", TABLE) is not None:
            return
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            await connection.execute(_MAKE)


def _away(error: Exception) -> ConnectionError:
    return ConnectionError(f"person keys: {str(error) or type(error).__name__}")
