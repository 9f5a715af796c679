"""What it looks like from here when Postgres is away, or goes away in the middle of a statement."""

from typing import Final

import asyncpg

AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A server that is killed in mid-statement leaves the client's own state machine in between.
    asyncpg.InternalClientError,
)
