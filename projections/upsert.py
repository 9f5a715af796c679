"""The SQL of a view, made once from its table: load the rows of some keys, write rows by `unnest`.

A thousand rows travel as one array a column, in one statement: as fast as COPY into a staging table
and merging from there, without the staging table. Rows that no message changes are copied right into
their table, which takes half the time.
"""

import json
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Any, Final, Generic

import asyncpg
from pydantic_core import to_json
from sqlalchemy import Column, Table, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from projections.view import Json, Key, M, R, View

COPIED: Final = 100  # rows from which on a COPY is worth its additional round trip

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


class TableWriter:
    """Writes the rows of one table, each given as the values of its columns.

    With ``bulk`` rows that no message changes are always copied: their table has no key yet.
    """

    def __init__(self, table_: Table, schema: str, *, append_only: bool, bulk: bool) -> None:
        columns, keys = list(table_.columns), list(table_.primary_key.columns)
        table = f"{schema}.{table_.name}"
        self.schema, self.bulk, self._table = schema, bulk, table_.name
        # Off from the first row on that is there already, by whatever hand.
        self.copies = append_only
        self._columns = [column.name for column in columns]
        self._writers = [_writer(column) for column in columns]
        rest = [column.name for column in columns if column not in keys]
        update = ", ".join(f"{name} = excluded.{name}" for name in rest)
        then = "NOTHING" if append_only else f"UPDATE SET {update}"
        self._upsert = (
            f"INSERT INTO {table} ({_names(columns)}) SELECT * FROM unnest({_arrays(columns)}) "  # noqa: S608 - our own names
            f"ON CONFLICT ({_names(keys)}) DO {then}"
        )

    async def write_values(
        self, connection: "asyncpg.Connection[Any]", rows: Sequence[Sequence[Any]]
    ) -> None:
        columns = zip(*rows, strict=True)
        arrays = (
            write(values) if write else values
            for write, values in zip(self._writers, columns, strict=True)
        )
        if self.copies and (self.bulk or len(rows) >= COPIED):
            await connection.copy_records_to_table(
                self._table,
                schema_name=self.schema,
                columns=self._columns,
                records=zip(*arrays, strict=True),
            )
        else:
            await connection.execute(self._upsert, *arrays)


class RowStore(TableWriter, Generic[M, R]):
    """Reads and writes the rows of one view."""

    def __init__(self, view: View[M, R], schema: str, *, bulk: bool = False) -> None:
        super().__init__(view.table, schema, append_only=view.append_only, bulk=bulk)
        columns, keys = list(view.table.columns), list(view.table.primary_key.columns)
        self._row = view.row
        self._key_of = attrgetter(*(column.name for column in keys))
        self._values_of = attrgetter(*self._columns)
        self._json = [i for i, column in enumerate(columns) if isinstance(column.type, JSONB)]
        self._load = (
            f"SELECT {_names(columns, 't.')} FROM unnest({_arrays(keys)}) AS k({_names(keys)}) "  # noqa: S608 - our own names
            f"JOIN {schema}.{view.table.name} AS t USING ({_names(keys)})"
        )

    async def load(
        self, connection: "asyncpg.Connection[Any]", keys: Collection[Key]
    ) -> dict[Key, R]:
        """Those of these rows that exist."""
        records = await connection.fetch(self._load, *zip(*keys, strict=True))
        rows = [self._row(*self._read(record)) for record in records]
        return {self._key_of(row): row for row in rows}

    async def write(self, connection: "asyncpg.Connection[Any]", rows: Sequence[R]) -> None:
        await self.write_values(connection, [self._values_of(row) for row in rows])

    def _read(self, record: asyncpg.Record) -> list[Any]:
        values = list(record)
        for place in self._json:
            if values[place] is not None:
                values[place] = json.loads(values[place])
        return values


def _names(columns: Sequence[Column[Any]], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{column.name}" for column in columns)


def _arrays(columns: Sequence[Column[Any]]) -> str:
    """One typed array parameter a column."""
    types = (column.type.compile(_DIALECT) for column in columns)
    return ", ".join(f"${place}::{type_}[]" for place, type_ in enumerate(types, start=1))


def _writer(column: Column[Any]) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """How a column's values are made fit for Postgres; None where they are as they are."""
    if isinstance(column.type, JSONB):
        return _jsons
    return _texts if isinstance(column.type, Text) else None


def _jsons(values: Sequence[object]) -> list[str | None]:
    """Rows that were made from one another share what has not changed; it is written once."""
    written: dict[int, str | None] = {}
    for value in values:
        if id(value) not in written:
            written[id(value)] = _json(value)
    return [written[id(value)] for value in values]


def _texts(values: Sequence[str | None]) -> Sequence[str | None]:
    if "\x00" not in "".join(filter(None, values)):
        return values
    return [_text(value) for value in values]


def _text(value: str | None) -> str | None:
    """Postgres has no NUL in a text; people's data has."""
    return value and value.replace("\x00", "\ufffd")


def _json(value: object) -> str | None:
    if value is None:
        return None
    written = value if isinstance(value, Json) else to_json(value).decode()
    return json.dumps(_without_nul(json.loads(written))) if "\\u0000" in written else written


def _without_nul(value: object) -> object:
    match value:
        case str():
            return _text(value)
        case list():
            return [_without_nul(item) for item in value]
        case dict():
            return {_text(key): _without_nul(item) for key, item in value.items()}
        case _:
            return value
