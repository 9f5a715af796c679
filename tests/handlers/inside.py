"""The handlers without a server: the memory store, and a bus that decides at once."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from adapters.memory_event_store import MemoryEventStore
from adapters.memory_person_keys import MemoryPersonKeys
from domain.errors import Rejected
from domain.jobs.commands import CancelJob
from domain.messages import Command, Envelope, Event, Outcome, Recorded, StreamId
from domain.subjects import REACTION_SOURCE, Aggregate
from handlers.commands import CommandDesk
from handlers.follow_ups import Hand, World
from handlers.histories import Histories
from handlers.reactions import follow_ups
from tests import samples

E = TypeVar("E", bound=Event)


def envelope(
    command: Command,
    aggregate: Aggregate,
    id_: UUID,
    *,
    command_id: int = 1,
    source: str = "gateway",
) -> Envelope[Command]:
    return Envelope(
        id=UUID(int=command_id),
        stream=StreamId(samples.WORKSPACE, aggregate, id_),
        source=source,
        actor=source,
        correlation_id=UUID(int=command_id),
        causation_id=None,
        sent_at=samples.NOW,
        command=command,
    )


class MemoryBlobs:
    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.contents: dict[str, bytes] = {}

    async def read(
        self, sha256: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        if sha256 not in self.contents:
            raise FileNotFoundError(sha256)
        end = None if length is None else offset + length
        content = self.contents[sha256][offset:end]
        for start in range(0, len(content), 7):  # rows must not depend on where chunks end
            yield content[start : start + 7]

    async def size(self, sha256: str) -> int | None:
        return self.sizes.get(sha256)


class InsideBus:
    """Decides what is sent at once, and keeps it to be looked at."""

    def __init__(self, desk: CommandDesk) -> None:
        self._desk = desk
        self.sent: list[Envelope[Command]] = []
        self.outcomes: list[Outcome] = []

    async def send(
        self,
        envelope: Envelope[Command],
        *,
        timeout_s: float = 10.0,  # noqa: ARG002 - the port's
    ) -> Outcome:
        self.sent.append(envelope)
        try:
            outcome = await self._desk.decide(envelope)
        except Rejected as refusal:
            outcome = Outcome(
                status="rejected", sequence=0, code=refusal.code, message=str(refusal)
            )
        self.outcomes.append(outcome)
        return outcome

    async def post(self, envelope: Envelope[Command]) -> None:
        await self.send(envelope)


@dataclass
class Inside:
    """A log with its handlers, driven by hand."""

    now: datetime = samples.NOW
    store: MemoryEventStore = field(default_factory=MemoryEventStore)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    person_keys: MemoryPersonKeys = field(default_factory=MemoryPersonKeys)
    handed: list[Hand] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.histories = Histories(self.store)
        self.desk = CommandDesk(self.histories, lambda: self.now)
        self.bus = InsideBus(self.desk)
        self.world = World(self.store, self.blobs, self.person_keys, self.scan)
        self._reacted = 0
        self._recorded = 0

    async def happened(
        self, aggregate: Aggregate, id_: UUID, *events: Event, source: str = REACTION_SOURCE
    ) -> None:
        """Record events as they are, without asking any rule."""
        stream = StreamId(samples.WORKSPACE, aggregate, id_)
        for event in events:
            self._recorded += 1
            cause: Envelope[Command] = Envelope(
                id=UUID(int=10**9 + self._recorded),
                stream=stream,
                source=source,
                actor=source,
                correlation_id=UUID(int=77),
                causation_id=None,
                sent_at=self.now,
                command=_ANY,
            )
            revision = (await self.store.read(stream)).revision
            await self.store.append(
                stream, [event], expected_revision=revision, cause=cause, recorded_at=self.now
            )

    async def scan(
        self, workspace: str, aggregate: Aggregate, type_: type[E]
    ) -> AsyncIterator[Recorded[E]]:
        for recorded in await self.store.everything():
            of = (recorded.stream.workspace, recorded.stream.aggregate, type(recorded.event))
            if of == (workspace, aggregate, type_):
                yield recorded  # type: ignore[misc]  # the comparison says nothing of the parameter

    async def react(self) -> None:
        """Carry out what follows from every event that was not reacted to, until nothing does."""
        while fresh := await self.store.everything(after=self._reacted):
            for recorded in fresh:
                self._reacted = recorded.sequence
                for follow_up in await follow_ups(recorded, self.world):
                    if isinstance(follow_up, Hand):
                        self.handed.append(follow_up)
                    else:
                        await self.bus.send(follow_up)

    async def react_again(self) -> None:
        self._reacted = 0
        await self.react()

    async def types(self) -> list[str]:
        return [type(recorded.event).__name__ for recorded in await self.store.everything()]

    def commands(self) -> Sequence[str]:
        return [type(asked.command).__name__ for asked in self.bus.sent]


_ANY = CancelJob(job_id=samples.JOB)  # stands for whatever command led to a given event
