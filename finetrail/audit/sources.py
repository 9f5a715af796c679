"""What is known of the log from outside of it: the archive in Postgres, and heads in files."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters.audit_files import HEADS, KEYS, LOG_DIGITS, read_heads, read_keys
from domain.audit import Head, Key
from finetrail.audit.bundle import ArchivedEvent
from finetrail.audit.key_file import FOLDER, vouched
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from projections import archive_store as store

PAGE: Final = 2000  # events of one question
CONNECT_S: Final = 5.0
_PAGE: Final = (
    "SELECT sequence, subject, headers, data, hash FROM archive.event "
    "WHERE sequence > $1 AND sequence <= $2 ORDER BY sequence LIMIT $3"
)


@dataclass(frozen=True, slots=True)
class KnownHead:
    head: Head
    place: str  # where it is kept


class NoArchive(StackError):
    """There is nothing archived yet, or no database."""


@asynccontextmanager
async def open_archive(settings: Settings) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """A connection to the database of the archive.

    Raises:
        NoArchive: It does not answer, or nothing was archived in it.
    """
    try:
        connection = await asyncpg.connect(settings.postgres_dsn, timeout=CONNECT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NoArchive(
            f"The archive's database does not answer: {error}.",
            "Check that it runs, and FINETRAIL_POSTGRES__DSN.",
        ) from error
    try:
        if not await store.is_there(connection):
            raise NoArchive(
                "Nothing is archived in this database yet.",
                "The process that projects makes the archive when it starts.",
            )
        yield connection
    finally:
        await connection.close()


async def events_between(
    connection: "asyncpg.Connection[Any]", after: int, last: int
) -> AsyncIterator[Sequence[ArchivedEvent]]:
    """Archived events in order, in pages."""
    while rows := await connection.fetch(_PAGE, after, last, PAGE):
        yield [ArchivedEvent(*row) for row in rows]
        after = rows[-1]["sequence"]


class ArchiveReader:
    """The archive beside a log that is read in order."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection
        self._rows: deque[ArchivedEvent] = deque()
        self._after = 0

    async def up_to(self, sequence: int) -> list[ArchivedEvent]:
        """What comes next up to this sequence."""
        found: list[ArchivedEvent] = []
        while await self._fill() and self._rows[0].sequence <= sequence:
            found.append(self._rows.popleft())
        return found

    async def next(self, count: int) -> list[ArchivedEvent]:
        """What comes next, to compare with; not to be gone on with."""
        await self._fill()
        return list(self._rows)[:count]

    async def _fill(self) -> bool:
        if not self._rows:
            rows = await self._connection.fetch(_PAGE, self._after, 2**63 - 1, PAGE)
            self._rows.extend(ArchivedEvent(*row) for row in rows)
            self._after = self._rows[-1].sequence if self._rows else self._after
        return bool(self._rows)


def kept_heads(settings: Settings, log: str | None = None) -> list[KnownHead]:
    """Heads in files: of the data directory, and of the folder that they are published to."""
    files = [settings.folder / FOLDER / HEADS, *_published(settings, log, HEADS)]
    return [KnownHead(head, str(path)) for path in files for head in read_heads(path)]


def kept_keys(settings: Settings, archived: Iterable[Key], log: str | None) -> Sequence[Key]:
    """All keys that are vouched for, wherever they are kept."""
    files = [settings.folder / FOLDER / KEYS, *_published(settings, log, KEYS)]
    found = [*archived, *(key for path in files for key in read_keys(path))]
    return vouched(sorted(found, key=lambda key: (key.time, key.key != key.by)))


def _published(settings: Settings, log: str | None, name: str) -> Sequence[Path]:
    """The file of this log; all that are there where it has none, for its beginning may be forged."""
    if settings.audit.publish_folder is None:
        return ()
    folder = settings.audit.publish_folder.expanduser().absolute()
    own = folder / f"{(log or '')[:LOG_DIGITS]}-{name}"
    return [own] if own.exists() else sorted(folder.glob(f"*-{name}"))
