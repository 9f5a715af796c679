"""Makes the tables of this build beside those of another, and says which ones are read now.

The tables of a build lie in a schema of their own, named after its fingerprint: of the tables, and
of what the build reads. Everybody reads them through views of the same names in schema `finetrail`.
Where another build's tables are there, this one's are filled beside them (`rebuild`) and the views
are switched: read models are never migrated.
"""

import hashlib
import logging
from dataclasses import dataclass
from typing import Any, Final

from projections import ddl, tables
from projections.ddl import Connection
from projections.projection import Projection

LOCK: Final = 0x66747363  # "ftsc": one process at a time makes tables, or switches them

_CHECKPOINT: Final = tables.projection_checkpoint.fullname
_VIEW: Final = tables.projection_view.fullname
_REBUILD: Final = tables.projection_rebuild.fullname
UNDER_WAY: Final = "status IN ('asked', 'filling', 'switching')"

_FIND: Final = f"SELECT fingerprint, generation FROM {_CHECKPOINT} WHERE name = $1"  # noqa: S608 - our own name
_START: Final = (
    f"INSERT INTO {_CHECKPOINT} (name, sequence, fingerprint) VALUES ($1, 0, $2) "  # noqa: S608 - our own name
    "ON CONFLICT (name) DO UPDATE SET sequence = 0, fingerprint = excluded.fingerprint, "
    f"error = NULL, updated_at = now(), generation = projection_checkpoint.generation + 1"
)
_PLACE: Final = (
    f"INSERT INTO {_VIEW} (name, projection, schema) VALUES ($1, $2, $3) "  # noqa: S608 - our own name
    "ON CONFLICT (name) DO UPDATE SET projection = excluded.projection, schema = excluded.schema, "
    "parked_at = NULL, error = NULL, parked_since = NULL"
)
_PLACES: Final = f"SELECT name, schema, parked_at FROM {_VIEW} WHERE projection = $1"  # noqa: S608 - our own name
_TURN_TO: Final = (
    f"INSERT INTO {_REBUILD} (projection, views, reason, status, fingerprint) "  # noqa: S608 - our own name
    "VALUES ($1, $2, 'upgrade', 'asked', $3)"
)
_GIVE_UP: Final = (
    f"UPDATE {_REBUILD} SET status = 'failed', error = $3, updated_at = now() "  # noqa: S608 - our own name
    f"WHERE projection = $1 AND fingerprint IS DISTINCT FROM $2 AND {UNDER_WAY}"
)
_UPGRADING: Final = (
    f"SELECT true FROM {_REBUILD} "  # noqa: S608 - our own name
    f"WHERE projection = $1 AND fingerprint = $2 AND reason = 'upgrade' AND {UNDER_WAY}"
)
_NEEDLESS: Final = f"""
    SELECT nspname FROM pg_namespace WHERE nspname ~ '{ddl.OURS}'
    EXCEPT SELECT schema FROM {_VIEW}
    EXCEPT SELECT schema FROM {_REBUILD} WHERE {UNDER_WAY}
"""  # noqa: S608 - our own names

_log = logging.getLogger(__name__)


class TablesReplaced(Exception):
    """Another build has made these tables for itself; this one must not write them."""


class BeingFilled(Exception):
    """The tables of this build are filled beside another build's, which it cannot write."""


@dataclass(frozen=True, slots=True)
class Live:
    """The tables that are read now, as far as this build can write them."""

    fingerprint: str
    generation: int
    schemas: dict[str, str]  # by view
    parked: dict[str, int]  # the sequence at which a view stands still


def fingerprint(projection: Projection[Any]) -> str:
    made = ddl.statements([table for view in projection.views for table in view.tables])
    parts = (*made, *projection.reads, str(projection.revision))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


async def ensure_tables(
    connection: Connection, projection: Projection[Any], *, replace: bool
) -> None:
    """Make the projection's tables if they are missing.

    Where another build's are read, ``replace`` lets this one's be filled and put in their place.

    Raises:
        TablesReplaced: They are another build's and are not to be replaced.
    """
    wanted = fingerprint(projection)
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = on")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await _keep_books(connection)
        await _move_from_before(connection, projection)
        row = await connection.fetchrow(_FIND, projection.name)
        found = row["fingerprint"] if row else None
        if found == wanted and await _all_there(connection, projection):
            return
        if found not in {None, wanted} and await _any_there(connection, projection):
            if not replace:
                raise TablesReplaced(f"another build has made the tables of {projection.name}")
            await _turn_to(connection, projection, wanted)
            return
        await _begin_anew(connection, projection, wanted)
    if found is not None:
        _log.warning(
            "the tables of %s are made anew, to be filled by the log: some were missing",
            projection.name,
        )


async def find_live(connection: Connection, projection: Projection[Any]) -> Live:
    """Which tables are to be written.

    While this build's are filled beside another build's, it goes on with those of them that it has
    too, if they are the same.

    Raises:
        TablesReplaced: They are another build's, and this one's are not being filled.
        BeingFilled: They are another build's with other columns.
    """
    ours = fingerprint(projection)
    try:
        await ensure_tables(connection, projection, replace=False)
    except TablesReplaced:
        if not await connection.fetchval(_UPGRADING, projection.name, ours):
            raise
    # First, so that whatever is switched in between is noticed when the checkpoint is moved.
    row = await connection.fetchrow(_FIND, projection.name)
    if row is None:
        raise TablesReplaced(f"the tables of {projection.name} have just been dropped")
    places = {place["name"]: place for place in await connection.fetch(_PLACES, projection.name)}
    mine = {view.name: view for view in projection.views if view.name in places}
    if row["fingerprint"] != ours:
        for name, view in mine.items():
            there = await ddl.columns(connection, places[name]["schema"])
            if any(there.get(table.name) != ddl.columns_of(table) for table in view.tables):
                raise BeingFilled(f"table {name} has other columns until it is filled anew")
    return Live(
        fingerprint=row["fingerprint"],
        generation=row["generation"],
        schemas={name: places[name]["schema"] for name in mine},
        parked={name: places[name]["parked_at"] for name in mine if places[name]["parked_at"]},
    )


async def rewind(connection: Connection, projection: Projection[Any]) -> None:
    """Put the projection back to the log's beginning, with empty tables unless they outlive it."""
    async with connection.transaction():
        places = await connection.fetch(_PLACES, projection.name)
        schemas = {place["name"]: place["schema"] for place in places}
        for view in projection.views:
            if view.name in schemas and not projection.outlives_log:
                names = (f"{schemas[view.name]}.{table.name}" for table in view.tables)
                await connection.execute(f"TRUNCATE {', '.join(names)}")
        await connection.execute(
            f"UPDATE {_VIEW} SET parked_at = NULL, error = NULL, parked_since = NULL "  # noqa: S608 - our own name
            "WHERE projection = $1",
            projection.name,
        )
        await connection.execute(
            f"UPDATE {_REBUILD} SET schema = NULL, sequence = 0 "  # noqa: S608 - our own name
            f"WHERE projection = $1 AND {UNDER_WAY}",
            projection.name,
        )
        await connection.execute(
            f"UPDATE {_CHECKPOINT} SET sequence = 0, updated_at = now() WHERE name = $1",  # noqa: S608 - our own name
            projection.name,
        )


async def new_schema(connection: Connection, fingerprint_: str) -> str:
    """Make a schema for a build's tables."""
    taken = {row[0] for row in await connection.fetch("SELECT nspname FROM pg_namespace")}
    name, number = f"{tables.SCHEMA}_{fingerprint_[:8]}", 1
    while name in taken:
        number += 1
        name = f"{tables.SCHEMA}_{fingerprint_[:8]}_{number}"
    await connection.execute(f"CREATE SCHEMA {name}")
    return name


async def drop_leftovers(connection: Connection, projection: Projection[Any]) -> None:
    """Drop the tables that are neither read nor being filled any more."""
    places = dict(await connection.fetch(f"SELECT name, schema FROM {_VIEW}"))  # noqa: S608 - our own name
    filling = f"SELECT schema FROM {_REBUILD} WHERE schema IS NOT NULL AND {UNDER_WAY}"  # noqa: S608 - our own name
    kept = {row[0] for row in await connection.fetch(filling)}
    for schema in set(places.values()) - kept:
        there = await ddl.relations(connection, schema)
        for view in projection.views:
            if places.get(view.name) != schema:
                for table in view.tables:
                    if table.name in there:
                        await connection.execute(f"DROP TABLE {schema}.{table.name}")
    for (schema,) in await connection.fetch(_NEEDLESS):
        await connection.execute(f"DROP SCHEMA {schema} CASCADE")


async def place(
    connection: Connection, projection: Projection[Any], views: list[str], schema: str
) -> None:
    """Let these views be read from this schema."""
    for view in projection.views:
        if view.name in views:
            await ddl.show(connection, view.tables, schema)
            await connection.execute(_PLACE, view.name, projection.name, schema)


async def _keep_books(connection: Connection) -> None:
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {tables.SCHEMA}")
    there = await ddl.relations(connection, tables.SCHEMA)
    missing = [table for table in tables.BOOKKEEPING if table.name not in there]
    await ddl.create(connection, missing, tables.SCHEMA)
    if tables.projection_checkpoint not in missing:  # one of a build before this column
        await connection.execute(
            f"ALTER TABLE {_CHECKPOINT} "
            "ADD COLUMN IF NOT EXISTS generation bigint NOT NULL DEFAULT 0"
        )


async def _move_from_before(connection: Connection, projection: Projection[Any]) -> None:
    """Move tables that lie where the views belong: builds before this one made them there."""
    there = await ddl.relations(connection, tables.SCHEMA)
    old = [view for view in projection.views if there.get(view.table.name) == "r"]
    if not old:
        return
    row = await connection.fetchrow(_FIND, projection.name)
    schema = await new_schema(connection, row["fingerprint"] if row else "0" * 8)
    for view in old:
        for table in view.tables:
            if there.get(table.name) == "r":
                await connection.execute(f"ALTER TABLE {table.fullname} SET SCHEMA {schema}")
                await ddl.show(connection, [table], schema)
        await connection.execute(_PLACE, view.name, projection.name, schema)
    _log.warning("the tables of %s were moved to schema %s", projection.name, schema)


async def _all_there(connection: Connection, projection: Projection[Any]) -> bool:
    """Whether each table is where it should be, and is read."""
    places = {name: schema for name, schema, _ in await connection.fetch(_PLACES, projection.name)}
    if any(view.name not in places for view in projection.views):
        return False
    shown = await ddl.relations(connection, tables.SCHEMA)
    made = {schema: await ddl.relations(connection, schema) for schema in set(places.values())}
    return all(
        shown.get(table.name) == "v" and made[places[view.name]].get(table.name) == "r"
        for view in projection.views
        for table in view.tables
    )


async def _any_there(connection: Connection, projection: Projection[Any]) -> bool:
    shown = await ddl.relations(connection, tables.SCHEMA)
    return any(view.table.name in shown for view in projection.views)


async def _turn_to(connection: Connection, projection: Projection[Any], wanted: str) -> None:
    """Have this build's tables filled beside those that are read."""
    await connection.execute(
        _GIVE_UP, projection.name, wanted, "another build was started, which fills its own tables"
    )
    if not await connection.fetchval(_UPGRADING, projection.name, wanted):
        views = [view.name for view in projection.views]
        await connection.execute(_TURN_TO, projection.name, views, wanted)


async def _begin_anew(connection: Connection, projection: Projection[Any], wanted: str) -> None:
    await connection.execute(_GIVE_UP, projection.name, None, "the tables were made anew")
    for view in projection.views:
        for table in view.tables:
            await connection.execute(f"DROP VIEW IF EXISTS {table.fullname} CASCADE")
    await connection.execute(f"DELETE FROM {_VIEW} WHERE projection = $1", projection.name)  # noqa: S608 - our own name
    await drop_leftovers(connection, projection)
    schema = await new_schema(connection, wanted)
    for view in projection.views:
        await ddl.create(connection, view.tables, schema)
    await place(connection, projection, [view.name for view in projection.views], schema)
    await connection.execute(_START, projection.name, wanted)
