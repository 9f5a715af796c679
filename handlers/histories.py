"""Folded streams, kept so that a long one is not read from its start for each command."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from domain.errors import VersionConflict
from domain.messages import Command, Decider, Envelope, Event, Outcome, Recorded, StreamId
from handlers.in_turn import InTurn
from handlers.ports import EventStore

S = TypeVar("S")

CAPACITY: Final = 1024  # streams; a job's is some tens of kilobytes
PAGE: Final = (
    2000  # events that lie in memory at once, of a stream that is as long as a workspace is old
)
# Commands of one stream whose outcomes are remembered: all of them but in the queue, where what came so
# long before changes nothing that is still there.
REMEMBERED: Final = 50_000


class Decided:
    """Commands and the sequences of their last events; the last ones, at least as many as are named."""

    __slots__ = ("_newer", "_older")

    def __init__(self) -> None:
        self._newer: dict[UUID, int] = {}
        self._older: dict[UUID, int] = {}

    def note(self, command_id: UUID, sequence: int) -> None:
        if len(self._newer) >= REMEMBERED:
            self._older, self._newer = self._newer, {}
        self._newer[command_id] = sequence

    def sequence_of(self, command_id: UUID) -> int | None:
        return self._newer.get(command_id) or self._older.get(command_id)


@dataclass(frozen=True, slots=True)
class Folded(Generic[S]):
    """A stream as far as it was read."""

    state: S
    revision: int = 0
    decided: Decided = field(default_factory=Decided)

    def outcome_of(self, command_id: UUID) -> Outcome | None:
        """What this command led to when it was decided before."""
        sequence = self.decided.sequence_of(command_id)
        return None if sequence is None else Outcome(status="recorded", sequence=sequence)


class Histories:
    """Reads a stream's newer events on each load and folds them onto what is known of it."""

    def __init__(self, store: EventStore, capacity: int = CAPACITY) -> None:
        self._store = store
        self._capacity = capacity
        self._known: OrderedDict[StreamId, Folded[Any]] = OrderedDict()
        self._listeners: dict[StreamId, Callable[[Recorded[Event]], None]] = {}
        self._doubted: dict[StreamId, int] = {}  # at which revision somebody else was first
        self._turn = InTurn()  # a long stream that several want is read once

    def listen(self, stream: StreamId, told: Callable[[Recorded[Event]], None]) -> None:
        """Tell of every event of a stream as it is folded, in order; of all of them again after a conflict."""
        self._listeners[stream] = told

    async def load(self, stream: StreamId, decider: Decider[Any, S, Any]) -> Folded[S]:
        async with self._turn(stream):
            known = await self._load(stream, decider)
            doubted = self._doubted.pop(stream, None)
            if doubted is not None and known.revision == doubted:
                # Somebody was first, and nothing has come: what was read before is not as it is.
                del self._known[stream]
                known = await self._load(stream, decider)
            return known

    async def _load(self, stream: StreamId, decider: Decider[Any, S, Any]) -> Folded[S]:
        known: Folded[S] = self._known.get(stream) or Folded(decider.initial)
        told = self._listeners.get(stream)
        more = True
        while more:
            page = (await self._store.read(stream, after=known.revision, limit=PAGE)).events
            state, more = known.state, len(page) >= PAGE
            for recorded in page:
                state = decider.evolve(state, recorded.event)
                known.decided.note(recorded.causation_id, recorded.sequence)
                if told is not None:
                    told(recorded)
            if page:
                known = Folded(state, page[-1].sequence, known.decided)
                self._keep(stream, known)
        return known

    async def append(
        self,
        stream: StreamId,
        events: Sequence[Event],
        *,
        expected_revision: int,
        cause: Envelope[Command],
        recorded_at: datetime,
    ) -> int:
        """As the store does; after a conflict that nothing newer explains a stream is read anew."""
        try:
            return await self._store.append(
                stream,
                events,
                expected_revision=expected_revision,
                cause=cause,
                recorded_at=recorded_at,
            )
        except VersionConflict:
            if stream in self._known:
                self._doubted[stream] = expected_revision
            raise

    def _keep(self, stream: StreamId, known: Folded[Any]) -> None:
        if not known.revision:
            return
        self._known[stream] = known
        self._known.move_to_end(stream)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
