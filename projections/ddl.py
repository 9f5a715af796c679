"""The statements that make a projection's tables in some schema, and the views through which they are read."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import asyncpg
from sqlalchemy import MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from projections import tables

Connection: TypeAlias = "asyncpg.Connection[Any]"

# What a schema of ours may be called; no other is ever dropped.
OURS: Final = f"^{tables.SCHEMA}_[0-9a-f]{{8}}(_[0-9]+)?$"

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]
_KEY: Final = "SELECT true FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'p'"
_COLUMNS: Final = """
    SELECT c.relname, a.attname, format_type(a.atttypid, NULL), a.attnotnull,
        coalesce(a.attnum = ANY (i.indkey), false)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
    WHERE n.nspname = $1 AND c.relkind = 'r'
"""
_RELATIONS: Final = """
    SELECT c.relname, c.relkind::text FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1
"""

Columns = frozenset[tuple[str, str, bool, bool]]  # name, type, NOT NULL, part of the key


def statements(wanted: Sequence[Table]) -> list[str]:
    return [_sql(CreateTable(table)) for table in wanted] + _indexes(wanted)


async def create(connection: Connection, wanted: Sequence[Table], schema: str) -> None:
    for statement in statements([_in(table, schema) for table in wanted]):
        await connection.execute(statement)


async def create_bare(
    connection: Connection, wanted: Sequence[Table], schema: str, keyless: Sequence[Table]
) -> None:
    """Make tables that are filled faster than they can be read: without indexes and some keys.

    Nor are they vacuumed so long: each index would wait until the server calls that off again.
    """
    for table in wanted:
        there = _in(table, schema)
        await connection.execute(_sql(CreateTable(there)))
        await connection.execute(f"ALTER TABLE {there.fullname} SET (autovacuum_enabled = off)")
    for table in keyless:
        name = f"{schema}.{table.name}"
        await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT {table.name}_pkey")


async def complete(
    connection: Connection, wanted: Sequence[Table], schema: str, timeout_s: float
) -> None:
    """Make what `create_bare` left out, as far as it is not there."""
    there = [_in(table, schema) for table in wanted]
    for table in there:
        if not await connection.fetchval(_KEY, table.fullname):
            keys = ", ".join(column.name for column in table.primary_key.columns)
            add = f"ALTER TABLE {table.fullname} ADD PRIMARY KEY ({keys})"
            await connection.execute(add, timeout=timeout_s)
    for statement in _indexes(there, if_not_exists=True):
        await connection.execute(statement, timeout=timeout_s)
    for table in there:
        await connection.execute(f"ANALYZE {table.fullname}", timeout=timeout_s)
        await connection.execute(f"ALTER TABLE {table.fullname} RESET (autovacuum_enabled)")


async def show(connection: Connection, wanted: Sequence[Table], schema: str) -> None:
    """Let the names that everybody reads stand for the tables in this schema."""
    for table in wanted:
        select = f"SELECT * FROM {schema}.{table.name}"  # noqa: S608 - our own names
        try:
            async with connection.transaction():
                await connection.execute(f"CREATE OR REPLACE VIEW {table.fullname} AS {select}")
        except asyncpg.InvalidTableDefinitionError:  # its columns have changed
            await connection.execute(f"DROP VIEW {table.fullname} CASCADE")
            await connection.execute(f"CREATE VIEW {table.fullname} AS {select}")


async def relations(connection: Connection, schema: str) -> dict[str, str]:
    """What is there by name, and of which kind: `r` is a table, `v` a view."""
    return dict(await connection.fetch(_RELATIONS, schema))


async def columns(connection: Connection, schema: str) -> dict[str, Columns]:
    """The columns of every table there."""
    found: dict[str, set[tuple[str, str, bool, bool]]] = {}
    for table, name, type_, needed, key in await connection.fetch(_COLUMNS, schema):
        found.setdefault(table, set()).add((name, type_, needed, key))
    return {table: frozenset(its) for table, its in found.items()}


def columns_of(table: Table) -> Columns:
    """What `columns` says of a table that this build has made."""
    return frozenset(
        (
            column.name,
            str(column.type.compile(_DIALECT)).lower(),
            not column.nullable,
            column.primary_key,
        )
        for column in table.columns
    )


def _in(table: Table, schema: str) -> Table:
    return table.to_metadata(MetaData(), schema=schema)


def _indexes(wanted: Sequence[Table], *, if_not_exists: bool = False) -> list[str]:
    return [
        _sql(CreateIndex(index, if_not_exists=if_not_exists))
        for table in wanted
        for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]


def _sql(element: CreateTable | CreateIndex) -> str:
    return str(element.compile(dialect=_DIALECT))
