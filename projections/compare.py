"""Compares the rows of two tables that were made from the same messages, and tells what differs."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Table

from projections.ddl import Connection, columns, columns_of

COMPARE_S: Final = 3600.0  # a million rows take seconds

_log = logging.getLogger(__name__)

_SUM: Final = "SELECT count(*), sum(hash_record_extended(t, 0)::numeric) FROM {0} AS t"


async def differences(
    connection: Connection, wanted: Sequence[Table], old: str, new: str
) -> dict[str, dict[str, Any]]:
    """For each table whose checksums differ between these schemas: how many rows, and one's key."""
    found = {}
    for table in wanted:
        one, other = f"{old}.{table.name}", f"{new}.{table.name}"
        sums = [
            await connection.fetchrow(_SUM.format(name), timeout=COMPARE_S) for name in (one, other)
        ]
        if sums[0] != sums[1]:
            found[table.name] = await _difference(connection, table, one, other)
    return found


async def carry_over(connection: Connection, wanted: Sequence[Table], old: str, new: str) -> None:
    """Add the rows whose messages the stream has forgotten, of tables with the same columns."""
    there = await columns(connection, old)
    for table in wanted:
        if not columns_of(table) <= there.get(table.name, frozenset()):
            _log.warning("rows of %s from before the stream begins are lost", table.name)
            continue
        names = ", ".join(column.name for column in table.columns)
        await connection.execute(
            f"INSERT INTO {new}.{table.name} ({names}) "  # noqa: S608 - our own names
            f"SELECT {names} FROM {old}.{table.name} ON CONFLICT DO NOTHING",
            timeout=COMPARE_S,
        )


async def _difference(connection: Connection, table: Table, one: str, other: str) -> dict[str, Any]:
    keys = [column.name for column in table.primary_key.columns]
    either = [f"coalesce(old.{key}, new.{key})::text" for key in keys]
    same = " AND ".join(f"old.{key} = new.{key}" for key in keys)
    ((rows, key),) = await connection.fetch(
        f"SELECT count(*), min(ARRAY[{', '.join(either)}]) "  # noqa: S608 - our own names
        f"FROM {one} AS old FULL JOIN {other} AS new ON {same} "
        "WHERE old::text IS DISTINCT FROM new::text",
        timeout=COMPARE_S,
    )
    return {"rows": rows, "key": dict(zip(keys, key or (), strict=False))}
