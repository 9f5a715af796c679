"""Request statistics in the schema ``state`` of Postgres: no read model, never replayed, kept 30 days."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters.postgres_away import AWAY
from domain.request_figures import RequestFigures

TIMEOUT_S: Final = 5.0
BUCKETS: Final = 15  # columns are not made at run time; the gateway's bounds are as many, less one
TABLE: Final = "state.request_minutes"
_LOCK: Final = 0x66747374  # "ftst": two gateways that make the schema at once would collide
_MAKE: Final = f"""
    CREATE SCHEMA IF NOT EXISTS state;
    CREATE TABLE IF NOT EXISTS {TABLE} (
        minute timestamptz NOT NULL,
        method text NOT NULL,
        route text NOT NULL,
        status text NOT NULL,
        gateway uuid NOT NULL,
        count bigint NOT NULL,
        seconds double precision NOT NULL,
        slowest_s double precision NOT NULL,
        buckets bigint[] NOT NULL,
        PRIMARY KEY (minute, method, route, status, gateway)
    );
"""
_WRITE: Final = (
    f"INSERT INTO {TABLE} VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "  # noqa: S608 - our own name
    "ON CONFLICT (minute, method, route, status, gateway) DO UPDATE SET count = excluded.count, "
    "seconds = excluded.seconds, slowest_s = excluded.slowest_s, buckets = excluded.buckets"
)
_SUMS: Final = ", ".join(f"sum(buckets[{n}])::bigint" for n in range(1, BUCKETS + 1))
_READ: Final = (
    f"SELECT date_bin($3, minute, $1) AS time, method, route, status, "  # noqa: S608 - our own names
    "sum(count)::bigint AS count, sum(seconds) AS seconds, max(slowest_s) AS slowest_s, "
    f"ARRAY[{_SUMS}] AS buckets FROM {TABLE} "
    "WHERE minute >= $1 AND minute < $2 AND ($4::text IS NULL OR route = $4) "
    "GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 2, 4"
)


class PostgresRequestStore:
    """A connection for each call: there are four a minute, and none that could be stale.

    Every call raises `ConnectionError` while Postgres is away.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def write(self, gateway: UUID, figures: Sequence[RequestFigures]) -> None:
        """Put these figures in the place of those that this gateway gave for the same minutes."""
        rows = [
            (
                one.time,
                one.method,
                one.route,
                one.status,
                gateway,
                one.count,
                one.seconds,
                one.slowest_s,
                list(one.buckets),
            )
            for one in figures
        ]
        async with self._connection() as connection, connection.transaction():
            await connection.executemany(_WRITE, rows)

    async def read(
        self, since: datetime, until: datetime, step_s: int, route: str | None
    ) -> Sequence[RequestFigures]:
        """Sums over all gateways, by steps that are counted from ``since``."""
        async with self._connection() as connection:
            found = await connection.fetch(_READ, since, until, timedelta(seconds=step_s), route)
        return [RequestFigures(**dict(record)) for record in found]

    async def forget(self, before: datetime) -> None:
        async with self._connection() as connection:
            await connection.execute(f"DELETE FROM {TABLE} WHERE minute < $1", before)  # noqa: S608 - our own name

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                connection = await asyncpg.connect(
                    self._dsn, server_settings={"application_name": "finetrail statistics"}
                )
                try:
                    if await connection.fetchval("SELECT to_regclass($1)", TABLE) is None:
                        await _make(connection)
                    yield connection
                finally:
                    connection.terminate()
        except AWAY as error:
            reason = str(error) or type(error).__name__
            raise ConnectionError(f"request statistics: {reason}") from error


async def _make(connection: "asyncpg.Connection[Any]") -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_MAKE)
