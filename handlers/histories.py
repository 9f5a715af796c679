"""Folded streams, kept so that a long one is not read from its start for each command."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from domain.errors import VersionConflict
from domain.messages import Command, Decider, Envelope, Event, Outcome, StreamId
from handlers.ports import EventStore

S = TypeVar("S")

CAPACITY: Final = 1024  # streams; a job's is some tens of kilobytes


@dataclass(frozen=True, slots=True)
class Folded(Generic[S]):
    """A stream as far as it was read."""

    state: S
    revision: int = 0
    decided: dict[UUID, int] = field(default_factory=dict)  # command -> sequence of its last event

    def outcome_of(self, command_id: UUID) -> Outcome | None:
        """What this command led to when it was decided before, however long ago."""
        sequence = self.decided.get(command_id)
        return None if sequence is None else Outcome(status="recorded", sequence=sequence)


class Histories:
    """Reads a stream's newer events on each load and folds them onto what is known of it."""

    def __init__(self, store: EventStore, capacity: int = CAPACITY) -> None:
        self._store = store
        self._capacity = capacity
        self._known: OrderedDict[StreamId, Folded[Any]] = OrderedDict()

    async def load(self, stream: StreamId, decider: Decider[Any, S, Any]) -> Folded[S]:
        known: Folded[S] = self._known.get(stream) or Folded(decider.initial)
        tail = await self._store.read(stream, after=known.revision)
        if tail.events:
            state = known.state
            for recorded in tail.events:
                state = decider.evolve(state, recorded.event)
                known.decided[recorded.causation_id] = recorded.sequence
            known = Folded(state, tail.revision, known.decided)
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
        """As the store does; after a conflict the stream is read anew from its start."""
        try:
            return await self._store.append(
                stream,
                events,
                expected_revision=expected_revision,
                cause=cause,
                recorded_at=recorded_at,
            )
        except VersionConflict:
            self._known.pop(stream, None)
            raise

    def _keep(self, stream: StreamId, known: Folded[Any]) -> None:
        if not known.revision:
            return
        self._known[stream] = known
        self._known.move_to_end(stream)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
