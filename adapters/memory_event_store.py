"""The event store in memory: for tests, and the twin that shows what the contract asks."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from adapters.event_records import encode_records
from domain.errors import VersionConflict
from domain.messages import Command, Envelope, Event, History, Recorded, StreamId
from domain.wire import Headers, decode_recorded


class MemoryEventStore:
    """Keeps bytes, not objects, so that what cannot be read back shows up here too."""

    def __init__(self) -> None:
        self._log: list[tuple[str, Headers, bytes]] = []

    async def read(
        self, stream: StreamId, after: int = 0, *, limit: int | None = None
    ) -> History[Event]:
        found = (
            decode_recorded(subject, sequence, headers, body)
            for sequence, (subject, headers, body) in enumerate(self._log, 1)
            if subject == stream.subject and sequence > after
        )
        return History(tuple(islice(found, limit)))

    async def append(
        self,
        stream: StreamId,
        events: Sequence[Event],
        *,
        expected_revision: int,
        cause: Envelope[Command],
        recorded_at: datetime,
    ) -> int:
        records = encode_records(events, cause, recorded_at)
        if not records:
            raise ValueError("there is nothing to append")
        tail = await self.read(stream, after=expected_revision)
        if done := tail.outcome_of(cause.id):
            return done.sequence
        if tail.events or self._revision(stream) != expected_revision:
            raise VersionConflict(f"{stream.subject} is past {expected_revision}")
        self._log += [(stream.subject, headers, body) for _, headers, body in records]
        return len(self._log)

    async def everything(self, after: int = 0) -> list[Recorded[Event]]:
        """The whole log in order, as a reader of all events sees it."""
        return [
            decode_recorded(subject, sequence, headers, body)
            for sequence, (subject, headers, body) in enumerate(self._log, 1)
            if sequence > after
        ]

    def put_raw(self, subject: str, headers: Headers, body: bytes) -> None:
        """Store a record as another writer might have written it."""
        self._log.append((subject, headers, body))

    def _revision(self, stream: StreamId) -> int:
        sequences = enumerate(self._log, 1)
        return max((n for n, (subject, *_) in sequences if subject == stream.subject), default=0)
