"""What Postgres holds that the log cannot give again: every schema but those of the read model.

A table goes as the commands that make it and a file of PostgreSQL's own COPY text, so that neither
`pg_dump` nor the same major version is needed. Tables, keys, indexes and counters are all that is
kept there; what is more than that is refused rather than left out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from finetrail.backup_files import BackupReader, BackupWriter, TablePart
from finetrail.stack.errors import StackError

PIECES: Final = 8  # of COPY's output that may wait for the disk
READ_MODEL: Final = "finetrail"  # and `finetrail_<build>`: made anew from the log
_SCHEMAS: Final = """
    SELECT nspname FROM pg_namespace
    WHERE nspname !~ '^(pg_|finetrail($|_))' AND nspname NOT IN ('information_schema', 'public')
    ORDER BY nspname
"""
_OTHERS: Final = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY($1) AND c.relkind NOT IN ('r', 'i', 'S')
    UNION ALL
    SELECT format('%I.%I()', n.nspname, p.proname) FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY($1)
    UNION ALL
    SELECT format('%I', t.tgname) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY($1) AND NOT t.tgisinternal
"""
_TABLES: Final = """
    SELECT c.oid, n.nspname AS schema_name, c.relname AS name FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY($1) AND c.relkind = 'r' ORDER BY 2, 3
"""
_COLUMNS: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
        a.attidentity::text AS identity, a.attgenerated::text AS generated,
        pg_get_expr(d.adbin, d.adrelid) AS default,
        pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname) AS counter
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
# Keys that point to other tables come last of all: those must be there and filled.
_CONSTRAINTS: Final = """
    SELECT conname AS name, pg_get_constraintdef(oid) AS text FROM pg_constraint
    WHERE conrelid = $1 AND contype IN ('p', 'u', 'c', 'x', 'f') ORDER BY contype = 'f', conname
"""
_INDEXES: Final = """
    SELECT pg_get_indexdef(i.indexrelid) AS text FROM pg_index i
    WHERE i.indrelid = $1 AND NOT EXISTS (
        SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid) ORDER BY 1
"""
_FILLED: Final = """
    SELECT n.nspname AS schema_name, c.relname AS name FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind = 'r'
"""

Connection = Any  # asyncpg's stubs are no types at run time


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    required: bool
    identity: str
    generated: str
    default: str | None
    counter: str | None

    @property
    def text(self) -> str:
        said = [quoted(self.name), self.type]
        if self.generated:
            said.append(f"GENERATED ALWAYS AS ({self.default}) STORED")
        elif self.identity:
            always = "ALWAYS" if self.identity == "a" else "BY DEFAULT"
            said.append(f"GENERATED {always} AS IDENTITY")
        elif self.default is not None and self.counter is None:
            said.append(f"DEFAULT {self.default}")
        if self.required:
            said.append("NOT NULL")
        return " ".join(said)


async def dump(dsn: str, writer: BackupWriter) -> tuple[TablePart, ...]:
    """Write every table as it is at one moment.

    Raises:
        StackError: Postgres is away, or holds there what this build cannot write.
    """
    async with (
        connected(dsn) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        schemas = [record["nspname"] for record in await connection.fetch(_SCHEMAS)]
        others = [record[0] for record in await connection.fetch(_OTHERS, schemas)]
        if others:
            raise StackError(
                f"The database holds what a backup cannot: {', '.join(others[:5])}.",
                f"Only tables belong into the schemas {', '.join(schemas)}; keep yours elsewhere.",
            )
        return tuple(
            [
                await _dumped(connection, table, writer)
                for table in await connection.fetch(_TABLES, schemas)
            ]
        )


async def check_empty(dsn: str) -> None:
    """See that no table of the database has a row.

    Raises:
        StackError: One has; it is named.
    """
    async with connected(dsn) as connection:
        for record in await connection.fetch(_FILLED):
            table = f"{quoted(record['schema_name'])}.{quoted(record['name'])}"
            if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table})"):  # noqa: S608 - quoted
                raise StackError(
                    f"The database is not empty: {table} has rows.",
                    "Restore into an empty one: another FINETRAIL_DATA_DIR or FINETRAIL_POSTGRES__DSN.",
                )


async def load(dsn: str, backup: BackupReader) -> int:
    """Make and fill every table of a backup in one transaction; gives the number of rows.

    Raises:
        StackError: Postgres is away or refuses.
    """
    tables = backup.manifest.tables
    async with connected(dsn) as connection, connection.transaction():
        for schema in sorted({table.schema_name for table in tables}):
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        for table in tables:
            await connection.execute(
                f"DROP TABLE IF EXISTS {_named(table)}"
            )  # empty: it was checked
            for command in table.make:
                await connection.execute(command)
            if table.file == backup.person_keys and not backup.holds(table.file):
                continue
            await connection.copy_to_table(
                table.name,
                schema_name=table.schema_name,
                columns=list(table.columns),
                source=backup.read(table.file),
            )
        keys = [command for table in tables for command in table.then]
        for command in sorted(keys, key=lambda text: "FOREIGN KEY" in text):
            await connection.execute(command)
    return sum(table.rows for table in tables)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            yield connection
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(
            f"Postgres: {error}.", "Check that it runs, and FINETRAIL_POSTGRES__DSN."
        ) from error


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _dumped(connection: Connection, table: Any, writer: BackupWriter) -> TablePart:
    schema, name = table["schema_name"], table["name"]
    columns = [_Column(**dict(record)) for record in await connection.fetch(_COLUMNS, table["oid"])]
    kept = tuple(column.name for column in columns if not column.generated)
    place = f"{quoted(schema)}.{quoted(name)}"
    path = f"database/{schema}.{name}.copy"
    rows = await connection.fetchval(f"SELECT count(*) FROM {place}")  # noqa: S608 - quoted
    await writer.add(path, _rows(connection, schema, name, kept))
    body = ", ".join(column.text for column in columns)
    return TablePart(
        schema_name=schema,
        name=name,
        make=(f"CREATE TABLE {place} ({body})",),
        then=(
            *await _constraints(connection, table["oid"], place),
            *await _counters(connection, place, columns),
        ),
        columns=kept,
        file=path,
        rows=rows,
    )


async def _rows(
    connection: Connection, schema: str, name: str, columns: tuple[str, ...]
) -> AsyncIterator[bytes]:
    """COPY's output as it comes."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES)

    async def copy() -> None:
        try:
            await connection.copy_from_table(
                name, schema_name=schema, columns=list(columns), output=waiting.put
            )
        finally:
            await waiting.put(None)

    copying = asyncio.create_task(copy())
    try:
        while (piece := await waiting.get()) is not None:
            yield piece
        await copying
    finally:
        copying.cancel()


async def _constraints(connection: Connection, oid: int, place: str) -> list[str]:
    keys = [
        f"ALTER TABLE {place} ADD CONSTRAINT {quoted(record['name'])} {record['text']}"
        for record in await connection.fetch(_CONSTRAINTS, oid)
    ]
    return [*keys, *(record["text"] for record in await connection.fetch(_INDEXES, oid))]


async def _counters(connection: Connection, place: str, columns: list[_Column]) -> list[str]:
    commands = []
    for column in columns:
        if column.counter is None:
            continue
        state = f"SELECT last_value, is_called FROM {column.counter}"  # noqa: S608 - quoted by Postgres
        last, called = await connection.fetchrow(state)
        if not column.identity:
            owned = f"{place}.{quoted(column.name)}"
            commands += [
                f"CREATE SEQUENCE {column.counter} OWNED BY {owned}",
                f"ALTER TABLE {place} ALTER COLUMN {quoted(column.name)} SET DEFAULT {column.default}",
            ]
        commands.append(f"SELECT setval('{column.counter}', {last}, {str(called).lower()})")
    return commands


def _named(table: TablePart) -> str:
    return f"{quoted(table.schema_name)}.{quoted(table.name)}"
