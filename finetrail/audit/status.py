"""How far the archive is, and what of it is signed."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from domain.audit import Head
from finetrail.audit.key_file import open_key
from finetrail.audit.sources import NoArchive, open_archive
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from projections import archive_store as store

LOOK_AGAIN_S: Final = 2.0
PATIENCE: Final = 3.0  # times of signing, before events without a head are a reason to look


@dataclass(frozen=True, slots=True)
class Kept:
    """How far a place outside of the database has the heads."""

    where: str
    sequence: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Status:
    archived: int
    error: str | None
    head: Head | None
    age_s: float | None  # of the head
    unsigned: int
    unsigned_s: float | None  # how long the first of them has been there
    key: str | None
    kept: tuple[Kept, ...]


async def status(settings: Settings) -> Status:
    """Ask the archive.

    Raises:
        NoArchive: It does not answer, or there is none yet.
    """
    async with open_archive(settings) as connection:
        return await _status(connection, settings)


async def _status(connection: "asyncpg.Connection[Any]", settings: Settings) -> Status:
    head = await store.last_head(connection)
    row = await connection.fetchrow("SELECT sequence, error FROM archive.checkpoint")
    signed = head.sequence if head else 0
    find = "SELECT recorded_at FROM archive.event WHERE sequence > $1 ORDER BY sequence LIMIT 1"
    oldest: datetime | None = await connection.fetchval(find, signed)
    places = await connection.fetch(
        "SELECT place, sequence, error FROM archive.published ORDER BY 1"
    )
    key = open_key(settings).public_key()
    now = datetime.now(UTC)
    return Status(
        archived=row["sequence"] if row else 0,
        error=row["error"] if row else "its checkpoint is gone",
        head=head,
        age_s=(now - datetime.fromisoformat(head.time)).total_seconds() if head else None,
        unsigned=await store.unsigned(connection, signed),
        unsigned_s=(now - oldest).total_seconds() if oldest else None,
        key=key.key if key else None,
        kept=tuple(Kept(*place) for place in places),
    )


async def summary(settings: Settings, last: int = 0) -> str:
    """A line for the doctor, given where the log ends.

    Raises:
        StackError: Events are not archived, not signed, or heads are not kept.
    """
    try:
        found = await status(settings)
        if not found.error and found.archived < last:
            found = await _seen_to_move(settings, found, last)
    except NoArchive as nothing:
        return nothing.message
    except asyncpg.PostgresError as error:
        raise StackError(f"The archive cannot be read: {error}.", "See the log.") from error
    verify = "`finetrail audit verify` says what is wrong; docs/how-to/prove-what-happened.md."
    if found.error:
        raise StackError(f"The archive has stopped: {found.error}.", verify)
    late = PATIENCE * settings.audit.sign_seconds
    if found.unsigned and (found.unsigned_s or 0) > late and (found.age_s or late) >= late:
        raise StackError(
            f"{found.unsigned} events have waited {found.unsigned_s or 0:.0f} s to be signed.",
            "The log of the process that projects says why: the key, most likely.",
        )
    for place in found.kept:
        if place.error:
            raise StackError(
                f"Heads cannot be kept in {place.where}: {place.error}.", "They are tried again."
            )
    behind = last - found.archived
    late_by = f"; the log is {behind:,} events ahead of the archive" if behind > 0 else ""
    if found.head is None:
        return f"{found.archived} events archived, none signed yet{late_by}"
    return (
        f"signed up to event {found.head.sequence} {found.age_s or 0:.0f} s ago, "
        f"{found.unsigned} behind it{late_by}"
    )


async def _seen_to_move(settings: Settings, before: Status, last: int) -> Status:
    """Look again: what came just now is archived within milliseconds.

    Raises:
        StackError: The archive stands still.
    """
    await asyncio.sleep(LOOK_AGAIN_S)
    found = await status(settings)
    if found.archived == before.archived:
        raise StackError(
            f"The archive stands at event {found.archived} and does not move, {last - found.archived:,} "
            "events behind the log.",
            "Does a process that projects run? Its log says what it waits for.",
        )
    return found
