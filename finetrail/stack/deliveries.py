"""What the doctor wants to know of webhooks: whether somebody delivers, and how far they are behind."""

from typing import Any, Final

import asyncpg

from adapters.postgres_webhook_store import OWNING
from finetrail.stack.errors import StackError
from projections.tables import webhook

CURSORS: Final = "state.webhook_cursor"
# A webhook that wants little writes its position down every 5,000 events only.
LATE: Final = 10_000
SHOWN: Final = 3
_ENABLED: Final = f"""
    SELECT c.webhook_id, c.sequence, w.url,
        (SELECT count(*) FROM state.webhook_delivery AS d
         WHERE d.webhook_id = c.webhook_id AND d.status = 'waiting') AS waiting
    FROM {CURSORS} AS c JOIN {webhook.fullname} AS w ON w.id = c.webhook_id
    WHERE w.workspace = $1 AND w.status = 'enabled' ORDER BY c.sequence
"""  # noqa: S608 - our own names
# How Postgres shows a lock of two numbers.
_OWNED: Final = """
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid = $1::bigint::oid AND objid = (hashtext($2)::bigint & 4294967295)::oid)
"""


async def summary(dsn: str, workspace: str, last: int) -> str:
    """How far webhooks are, given where the log ends.

    Raises:
        StackError: Nobody delivers, or one of them is far behind.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(
            f"No connection: {error}.", "Check that it runs, and FINETRAIL_POSTGRES__DSN."
        ) from error
    try:
        return await _summary(connection, workspace, last)
    finally:
        await connection.close()


async def _summary(connection: "asyncpg.Connection[Any]", workspace: str, last: int) -> str:
    for table in (CURSORS, webhook.fullname):
        if await connection.fetchval("SELECT to_regclass($1)", table) is None:
            return "no webhooks yet"
    found = await connection.fetch(_ENABLED, workspace)
    if not found:
        return "no webhooks are enabled"
    waiting = sum(row["waiting"] for row in found)
    if not await connection.fetchval(_OWNED, OWNING, workspace):
        raise StackError(
            f"{len(found)} webhooks wait: no process delivers.",
            "Start `finetrail delivery`, or see its log; `finetrail up` and `core` do it too.",
        )
    late = [row for row in found if last - row["sequence"] > LATE]
    if late:
        which = ", ".join(
            f"{row['webhook_id']} ({row['url']}) by {last - row['sequence']:,} events"
            for row in late[:SHOWN]
        )
        raise StackError(
            f"{len(late)} of {len(found)} webhooks are behind the log: {which}.",
            "`finetrail webhooks deliveries WEBHOOK` says what its receiver answers.",
        )
    return f"{len(found)} webhooks are delivered to, {waiting} deliveries wait"
