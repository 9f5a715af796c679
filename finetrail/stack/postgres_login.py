"""Asking a PostgreSQL server whether it is there and takes our login."""

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
