"""What the doctor wants to know of a database: its version, and how far each projection is."""

import asyncpg

from finetrail.stack.errors import StackError
from projections.tables import projection_checkpoint, projection_view

CHECKPOINTS = projection_checkpoint.fullname
VIEWS = projection_view.fullname


async def summary(dsn: str) -> str:
    """Version, projections and the last sequence that all of them have seen.

    Raises:
        StackError: It cannot be reached, a projection has stopped, or a view is parked.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(
            f"No connection: {error}.", "Check that it runs, and FINETRAIL_POSTGRES__DSN."
        ) from error
    try:
        return await _summary(connection)
    finally:
        await connection.close()


async def _summary(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
    found = f"version {await connection.fetchval('SHOW server_version')}"
    if await connection.fetchval("SELECT to_regclass($1)", CHECKPOINTS) is None:
        return f"{found}, no tables yet"
    rows = await connection.fetch(f"SELECT name, sequence, error FROM {CHECKPOINTS} ORDER BY name")  # noqa: S608 - our own name
    stopped = [row for row in rows if row["error"]]
    if stopped:
        which = "; ".join(f"{row['name']} at {row['sequence']}: {row['error']}" for row in stopped)
        raise StackError(
            f"{found}, but projections have stopped: {which}.",
            "See logs/core.log; the next start tries again.",
        )
    if parked := await _parked(connection):
        raise StackError(
            f"{found}, but views show what was before an event that they cannot take in: {parked}.",
            "With a version that can: `finetrail rebuild VIEW` (docs/how-to/rebuild-read-models.md).",
        )
    lowest = min((row["sequence"] for row in rows), default=0)
    return f"{found}, {len(rows)} projections, all of them at {lowest} or later"


async def _parked(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
    if await connection.fetchval("SELECT to_regclass($1)", VIEWS) is None:
        return ""
    rows = await connection.fetch(
        f"SELECT name, parked_at, error FROM {VIEWS} WHERE parked_at IS NOT NULL ORDER BY name"  # noqa: S608 - our own name
    )
    return "; ".join(f"{row['name']} at {row['parked_at']}: {row['error']}" for row in rows)
