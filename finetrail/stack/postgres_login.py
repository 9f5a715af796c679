"""Asking a PostgreSQL server whether it is there, and what it is."""

import asyncpg

from finetrail.stack.errors import StackError


async def answers(dsn: str) -> bool:
    """Whether the server takes this login.

    Raises:
        StackError: It is there and refuses the password, which waiting will not change.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise StackError(
            "PostgreSQL refuses the password in this data directory's secrets.json.",
            "Restore the secrets.json that belongs to this database.",
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


async def summary(dsn: str) -> str:
    """Version and number of tables.

    Raises:
        StackError: It cannot be reached.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(
            f"No connection: {error}.", "Check that it runs, and FINETRAIL_POSTGRES__DSN."
        ) from error
    try:
        found = await connection.fetchval("SHOW server_version")
        tables = await connection.fetchval(
            "SELECT count(*) FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
        )
    finally:
        await connection.close()
    return f"version {found}, {tables} tables"
