"""Says in what way the log and the archive part, and which of the two was touched."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from domain.audit import event_hash, headers_in
from finetrail.audit.bundle import ArchivedEvent

Side = Literal["log", "archive", "both"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold; ``sequence`` is where, ``side`` what was touched."""

    sequence: int
    way: str
    detail: str
    side: Side = "log"


def in_what_way(
    log: Sequence[ArchivedEvent], archived: Sequence[ArchivedEvent], previous: bytes
) -> Finding:
    """Compare what follows the last event that both have; at least one of them has more.

    ``previous`` is the hash of that event. The log's events bear no hashes.
    """
    here = log[0] if log else None
    there = archived[0] if archived else None
    if here is not None and there is not None and here.sequence == there.sequence:
        return _another(here, there, log, archived, previous)
    if there is not None and (here is None or there.sequence < here.sequence):
        return _only_archived(there, here, log, archived, previous)
    assert here is not None  # noqa: S101 - one of them has more
    return _only_in_log(here, there, archived, previous)


def rehashed(event: ArchivedEvent, previous: bytes) -> bytes:
    """What the hash of an event is behind this one."""
    data = hashlib.sha256(event.data).digest()
    headers = headers_in(event.headers)
    return event_hash(previous, event.sequence, event.subject.encode(), headers, data)


def _another(
    here: ArchivedEvent,
    there: ArchivedEvent,
    log: Sequence[ArchivedEvent],
    archived: Sequence[ArchivedEvent],
    previous: bytes,
) -> Finding:
    at = here.sequence
    if rehashed(here, previous) == there.hash:
        return Finding(at, *_changed(there, here), side="archive")
    touched: Side = "log" if rehashed(there, previous) == there.hash else "both"
    if _content(here) == _content(there):
        return Finding(at, "changed", "its hash is not that of its content", side="archive")
    if _id(here) == _id(there):
        return Finding(at, *_changed(here, there), side=touched)
    mine, theirs = {_id(each): each for each in log}, {_id(each): each for each in archived}
    moved, still_there = theirs.get(_id(here)), mine.get(_id(there))
    if moved is not None and still_there is not None:
        return Finding(at, "reordered", f"it is event {moved.sequence} of the archive", touched)
    if moved is not None:
        return Finding(at, "missing", "it was taken out, and those behind it moved up", touched)
    if still_there is not None:
        return Finding(at, "inserted", "what stood in its place has moved on", touched)
    return Finding(at, "changed", f"it is {_id(here)}, and was {_id(there)}", touched)


def _only_archived(
    there: ArchivedEvent,
    here: ArchivedEvent | None,
    log: Sequence[ArchivedEvent],
    archived: Sequence[ArchivedEvent],
    previous: bytes,
) -> Finding:
    at = there.sequence
    if rehashed(there, previous) != there.hash:
        return Finding(at, "inserted", "no chain leads to it", side="archive")
    elsewhere = {_id(each): each.sequence for each in log}.get(_id(there))
    if elsewhere is not None:
        return Finding(at, "reordered", f"it stands at {elsewhere}")
    gone = [each.sequence for each in archived if here is None or each.sequence < here.sequence]
    return Finding(at, "missing", f"{len(gone):,} events from here on" if len(gone) > 1 else "")


def _only_in_log(
    here: ArchivedEvent,
    there: ArchivedEvent | None,
    archived: Sequence[ArchivedEvent],
    previous: bytes,
) -> Finding:
    at = here.sequence
    if there is not None and rehashed(there, rehashed(here, previous)) == there.hash:
        return Finding(at, "missing", "what stands behind it follows on it", side="archive")
    moved = {_id(each): each.sequence for each in archived}.get(_id(here))
    if moved is not None:
        return Finding(at, "reordered", f"it is event {moved} of the archive")
    return Finding(at, "inserted", "it was not there when this part of the log was archived")


def _changed(now: ArchivedEvent, before: ArchivedEvent) -> tuple[str, str]:
    """How the same event differs."""
    if now.data != before.data:
        return "changed", "its data is not what it was"
    if now.subject != before.subject:
        return "subject changed", f"it is {now.subject}, and was {before.subject}"
    here, there = headers_in(now.headers), headers_in(before.headers)
    names = sorted({name.decode("utf-8", "replace") for name, _ in set(here) ^ set(there)})
    return "header changed", ", ".join(names) or "their order"


def _content(event: ArchivedEvent) -> tuple[str, bytes, bytes]:
    return event.subject, event.headers, event.data


def _id(event: ArchivedEvent) -> str:
    found = dict(headers_in(event.headers)).get(b"ce-id", b"")
    return found.decode("utf-8", "replace")
