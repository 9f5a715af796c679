"""Reads the log itself, chains it again, and compares it with what was signed and what was archived."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nats.errors import Error as NatsError

from adapters.nats_connection import close, connect
from adapters.nats_event_source import NatsEventSource
from domain.audit import START, Key, chained_headers, header_lines
from domain.errors import StoreUnavailable
from finetrail.audit.bundle import ArchivedEvent
from finetrail.audit.difference import Finding, Side, in_what_way, rehashed
from finetrail.audit.key_file import is_signed
from finetrail.audit.published import published
from finetrail.audit.sources import (
    ArchiveReader,
    KnownHead,
    NoArchive,
    kept_heads,
    kept_keys,
    open_archive,
)
from finetrail.settings import SettingMissing, Settings
from finetrail.stack.errors import StackError
from projections import archive_store as store
from projections.archive import ChainedMessage, ChainedSource

CONNECT_S: Final = 10.0
LOOKED_AHEAD: Final = 1000  # events behind one that does not hold, to say in what way
QUIET: Final = 3  # seconds without a message at the end of a log whose last ones are gone

Progress = Callable[[int, int], None]  # events, of how many


@dataclass(slots=True)
class Verified:
    """What was found. Everything up to ``proven`` is as it was signed."""

    log: str = ""
    first: int = 0
    last: int = 0
    events: int = 0
    seconds: float = 0.0
    compared: bool = False  # with the archive
    without_archive: str = ""  # the reason
    published: list[str] = field(default_factory=list)  # what other places had, or why nothing
    archived: int = 0  # up to which sequence
    heads: int = 0
    proven: int = 0
    proven_at: str = ""
    proven_by: str = ""
    unsigned: int = 0
    later: int = 0  # heads of events behind a restored log
    gaps: list[tuple[int, int]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.findings


async def verify_log(settings: Settings, trusted: Sequence[str], progress: Progress) -> Verified:
    """Check the whole log.

    Args:
        trusted: public keys, or their ids, that heads must go back to; else any that are known.

    Raises:
        StackError: The log does not answer.
    """
    async with open_source(settings) as source:
        return await verify_source(source, settings, trusted, progress)


async def verify_source(
    source: ChainedSource,
    settings: Settings,
    trusted: Sequence[str],
    progress: Progress,
    *,
    restored: bool = False,
) -> Verified:
    """Check the whole log that ``source`` reads.

    Args:
        restored: it comes from a backup, so more may have been signed since, or nothing yet.
    """
    found = Verified()
    async with contextlib.AsyncExitStack() as opened:
        log = await _log(source)
        known, archived_keys, archive = kept_heads(settings, log), list[Key](), None
        try:
            connection = await opened.enter_async_context(open_archive(settings))
        except (NoArchive, SettingMissing) as error:
            found.without_archive = str(error)
        else:
            archive = ArchiveReader(connection)
            found.compared = True
            found.archived = (await store.chain(connection)).sequence
            archived_keys = await store.keys(connection)
            known += [KnownHead(head, "archive") for head in await store.heads(connection)]
        elsewhere = await published(settings, log, known)
        found.published, found.findings = elsewhere.told, elsewhere.findings
        known += elsewhere.heads
        keys = kept_keys(settings, [*archived_keys, *elsewhere.keys], log)
        heads = signed_heads(known, keys, trusted, found)
        await Verifier(source, heads, archive, found, restored=restored).run(progress)
    return found


@contextlib.asynccontextmanager
async def open_source(settings: Settings) -> AsyncIterator[NatsEventSource]:
    """The log, as whoever may only read it.

    Raises:
        StackError: It does not answer.
    """
    login = settings.nats_login("projections")
    try:
        async with asyncio.timeout(CONNECT_S):
            nc = await connect(
                login.url,
                user=login.user,
                password=login.password,
                name="finetrail audit",
                inbox_prefix=login.inbox_prefix,
            )
    except (TimeoutError, OSError, NatsError) as error:
        raise StackError(
            f"The log at {login.url} does not answer.",
            "Check that it runs, and FINETRAIL_NATS__URL.",
        ) from error
    try:
        yield NatsEventSource(nc, "EVENTS")
    except StoreUnavailable as error:
        raise StackError(f"The log cannot be read: {error}.", "Try it again.") from error
    finally:
        await close(nc)


def signed_heads(
    known: Sequence[KnownHead], keys: Sequence[Key], trusted: Sequence[str], found: Verified
) -> dict[int, KnownHead]:
    """The heads that hold, by sequence; what is wrong with others is noted."""
    by_id = {key.key: key for key in keys}
    allowed = _trusted(keys, trusted)
    if trusted and not allowed:
        found.findings.append(Finding(0, "key", "the key that you trust has not signed here"))
    heads: dict[int, KnownHead] = {}
    for each in known:
        head = each.head
        before = heads.get(head.sequence)
        if not is_signed(head, by_id):
            wrong = "its signature does not hold" if head.key in by_id else "nobody knows its key"
        elif before is not None and before.head.hash != head.hash:
            wrong = f"{before.place} has another one for this event"
        else:
            if head.key in allowed:
                heads.setdefault(head.sequence, each)
            continue
        found.findings.append(Finding(head.sequence, "head", f"{wrong} ({each.place})"))
    return dict(sorted(heads.items()))


def _trusted(keys: Sequence[Key], trusted: Sequence[str]) -> set[str]:
    """Keys that go back to one of these; all of them where none is named."""
    allowed: set[str] = set()
    for key in keys:
        if not trusted or key.by in allowed or {key.key, key.public_key} & set(trusted):
            allowed.add(key.key)
    return allowed


class Verifier:
    """One pass through the log."""

    def __init__(
        self,
        source: ChainedSource,
        heads: dict[int, KnownHead],
        archive: ArchiveReader | None,
        found: Verified,
        *,
        restored: bool = False,
    ) -> None:
        self._source = source
        self._restored = restored
        self._heads = deque(heads.values())
        self._archive = archive
        self._found = found
        self._chain = START
        self._broken = False  # nothing behind that can be told

    async def run(self, progress: Progress) -> None:
        found, began = self._found, time.perf_counter()
        last = await self._source.last()
        async with contextlib.aclosing(_until(self._source, last)) as batches:
            async for messages in batches:
                for place, message in enumerate(messages):
                    rows = await self._archived(message.sequence)
                    event = self._chained(message)
                    if rows != [event] and (rows or message.sequence <= found.archived):
                        more = await _more(messages[place:], batches)
                        await self._differ([_bare(each) for each in more], rows)
                        break
                    self._take(event)
                    if self._broken:
                        break
                if self._broken:
                    break
                found.seconds = time.perf_counter() - began
                progress(found.events, last)
        if not self._broken:
            await self._see_the_end(max(last, found.archived))
        found.seconds = time.perf_counter() - began

    async def _archived(self, sequence: int) -> list[ArchivedEvent]:
        return [] if self._archive is None else await self._archive.up_to(sequence)

    def _chained(self, message: ChainedMessage) -> ArchivedEvent:
        event = _bare(message)
        return replace(event, hash=rehashed(event, self._chain))

    def _take(self, event: ArchivedEvent) -> None:
        found = self._found
        if not found.events:
            found.log, found.first = event.hash.hex(), event.sequence
        elif event.sequence > found.last + 1:
            found.gaps.append((found.last + 1, event.sequence - 1))
        self._chain = event.hash
        found.events, found.last = found.events + 1, event.sequence
        found.unsigned += 1
        while self._heads and self._heads[0].head.sequence <= event.sequence:
            self._pass(self._heads.popleft(), event)

    def _pass(self, known: KnownHead, event: ArchivedEvent) -> None:
        found, head = self._found, known.head
        if head.log != found.log:
            self._find(
                Finding(found.first, "changed", "it is not the first event of what was signed")
            )
        elif (head.sequence, head.hash) == (event.sequence, event.hash.hex()):
            found.heads, found.unsigned = found.heads + 1, 0
            found.proven, found.proven_at, found.proven_by = head.sequence, head.time, head.key
        else:
            wrong = (
                f"something from here up to event {head.sequence} is not as it was signed at "
                f"{head.time} ({known.place})"
            )
            side: Side = "both" if self._archive is not None else "log"
            self._find(Finding(found.proven + 1, "changed", wrong, side))

    def _find(self, finding: Finding) -> None:
        self._found.findings.append(finding)
        self._broken = True

    async def _differ(self, log: list[ArchivedEvent], rows: list[ArchivedEvent]) -> None:
        """Name the event where log and archive part."""
        following = await self._archive.next(LOOKED_AHEAD) if self._archive is not None else []
        self._find(in_what_way(log, [*rows, *following], self._chain))

    async def _see_the_end(self, last: int) -> None:
        """What was archived or signed behind the log's last event is missing."""
        found = self._found
        if rows := await self._archived(last):
            await self._differ([], rows)
        elif self._restored:
            found.later = len(self._heads)
        elif self._heads:
            known = self._heads[-1]
            wrong = (
                f"the log ends with event {found.last}, and {known.head.sequence} was signed "
                f"({known.place})"
            )
            self._find(Finding(found.last + 1, "missing", wrong))
        elif found.events and not found.proven:
            self._find(Finding(found.last, "head", "nothing of it was signed"))


async def _log(source: ChainedSource) -> str | None:
    """Which log it is: the hash of its first event."""
    if await source.last():
        async with contextlib.aclosing(source.follow(0)) as batches:
            async for batch in batches:
                return rehashed(_bare(batch[0]), START).hex() if batch else None
    return None


async def _until(
    source: ChainedSource, last: int
) -> AsyncGenerator[Sequence[ChainedMessage], None]:
    """All messages up to this sequence, also where the last ones are gone."""
    quiet = 0
    if not last:
        return
    async with contextlib.aclosing(source.follow(0)) as batches:
        async for batch in batches:
            if wanted := [message for message in batch if message.sequence <= last]:
                yield wanted
            quiet = 0 if batch else quiet + 1
            # Behind the last one nothing is pending, whatever sequence the log has given.
            done = batch and (batch[-1].sequence >= last or not batch[-1].pending)
            if done or quiet == QUIET:
                return


async def _more(
    messages: Sequence[ChainedMessage], batches: AsyncIterator[Sequence[ChainedMessage]]
) -> list[ChainedMessage]:
    found = list(messages)
    while len(found) < LOOKED_AHEAD and (batch := await anext(batches, None)) is not None:
        found += batch
    return found[:LOOKED_AHEAD]


def _bare(message: ChainedMessage) -> ArchivedEvent:
    headers = header_lines(chained_headers(message.block))
    return ArchivedEvent(message.sequence, message.subject, headers, message.data, b"")
