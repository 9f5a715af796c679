"""Makes the tables, and makes them anew when this build wants other ones.

Each projection keeps a fingerprint of its tables and of what it reads beside its checkpoint. Where
the fingerprint differs its tables are dropped, made, and filled again from the log: read models are
never migrated.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from projections import tables
from projections.projection import Projection

_LOCK: Final = 0x66747363  # "ftsc": one process at a time makes tables

_CHECKPOINT: Final = tables.projection_checkpoint.fullname
_FIND: Final = f"SELECT fingerprint FROM {_CHECKPOINT} WHERE name = $1"  # noqa: S608 - our own name
_START: Final = (
    f"INSERT INTO {_CHECKPOINT} (name, sequence, fingerprint) VALUES ($1, 0, $2) "  # noqa: S608 - our own name
    "ON CONFLICT (name) DO UPDATE "
    "SET sequence = 0, fingerprint = excluded.fingerprint, error = NULL, updated_at = now()"
)

_log = logging.getLogger(__name__)


class TablesReplaced(Exception):
    """Another build has made these tables for itself; this one must not write them."""


def fingerprint(projection: Projection[Any]) -> str:
    parts = (*_ddl(_tables(projection)), *projection.reads, str(projection.revision))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


async def ensure_tables(
    connection: "asyncpg.Connection[Any]", projection: Projection[Any], *, replace: bool
) -> None:
    """Make the projection's tables if they are missing or, with ``replace``, another build's.

    Raises:
        TablesReplaced: They are another build's and are not to be replaced.
    """
    wanted = fingerprint(projection)
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = on")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {tables.SCHEMA}")
        if not await _exist(connection, [tables.projection_checkpoint]):
            await _create(connection, [tables.projection_checkpoint])
        found = await connection.fetchval(_FIND, projection.name)
        if found == wanted and await _exist(connection, _tables(projection)):
            return
        if found not in {None, wanted} and not replace:
            raise TablesReplaced(f"another build has made the tables of {projection.name}")
        await connection.execute(f"DROP TABLE IF EXISTS {_names(projection)} CASCADE")
        await _create(connection, _tables(projection))
        await connection.execute(_START, projection.name, wanted)
    reason = "this build wants others" if found not in {None, wanted} else "some were missing"
    _log.warning(
        "the tables of %s are made anew, to be filled by the log: %s", projection.name, reason
    )


async def rewind(connection: "asyncpg.Connection[Any]", projection: Projection[Any]) -> None:
    """Put the projection back to the log's beginning, with empty tables unless they outlive it."""
    async with connection.transaction():
        if not projection.outlives_log:
            await connection.execute(f"TRUNCATE {_names(projection)}")
        await connection.execute(
            f"UPDATE {_CHECKPOINT} SET sequence = 0, updated_at = now() WHERE name = $1",  # noqa: S608 - our own name
            projection.name,
        )


def _names(projection: Projection[Any]) -> str:
    return ", ".join(table.fullname for table in _tables(projection))


def _tables(projection: Projection[Any]) -> list[Table]:
    return [view.table for view in projection.views]


def _ddl(wanted: Sequence[Table]) -> list[str]:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made: list[CreateTable | CreateIndex] = [CreateTable(table) for table in wanted]
    made += [CreateIndex(index) for table in wanted for index in _in_order(table)]
    return [str(element.compile(dialect=dialect)) for element in made]


def _in_order(table: Table) -> list[Any]:
    return sorted(table.indexes, key=lambda index: str(index.name))


async def _create(connection: "asyncpg.Connection[Any]", wanted: Sequence[Table]) -> None:
    for statement in _ddl(wanted):
        await connection.execute(statement)


async def _exist(connection: "asyncpg.Connection[Any]", wanted: Sequence[Table]) -> bool:
    found = await connection.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = $1", tables.SCHEMA
    )
    return {table.name for table in wanted} <= {record[0] for record in found}
