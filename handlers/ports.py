"""What the handlers need of the world, as small as they need it."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from domain.messages import Command, Envelope, Event, History, Outcome, Recorded, StreamId
from domain.subjects import Aggregate
from domain.wire import Headers

E = TypeVar("E", bound=Event)

Clock = Callable[[], datetime]  # aware, UTC


class EventStore(Protocol):
    """The log, one stream at a time; `tests/contracts/test_event_store.py` says what it promises."""

    async def read(
        self, stream: StreamId, after: int = 0, *, limit: int | None = None
    ) -> History[Event]: ...

    async def append(
        self,
        stream: StreamId,
        events: Sequence[Event],
        *,
        expected_revision: int,
        cause: Envelope[Command],
        recorded_at: datetime,
    ) -> int: ...


class CommandBus(Protocol):
    """How reactions and the scheduler ask for something."""

    async def send(self, envelope: Envelope[Command], *, timeout_s: float = 10.0) -> Outcome: ...

    async def post(self, envelope: Envelope[Command]) -> None: ...


class Blobs(Protocol):
    """Stored bytes, by their SHA-256."""

    def read(
        self, sha256: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]: ...

    async def size(self, sha256: str) -> int | None: ...


class PersonKeys(Protocol):
    """The keys of people, to be destroyed; ``ConnectionError`` while they cannot be had."""

    async def destroy(self, people: Collection[UUID]) -> int: ...


class Scan(Protocol):
    """Events of one type, of all streams of a kind in one workspace, oldest first.

    Raises `StoreUnavailable` while the log is away; a newer writer's events are passed over.
    """

    def __call__(
        self, workspace: str, aggregate: Aggregate, type_: type[E]
    ) -> AsyncIterator[Recorded[E]]: ...


class Publish(Protocol):
    """Put a message into its stream and wait for the acknowledgement."""

    async def __call__(self, subject: str, body: bytes, headers: Headers) -> None: ...


class Message(Protocol):
    """A message as it stands in a stream."""

    @property
    def sequence(self) -> int: ...
    @property
    def subject(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def data(self) -> bytes: ...
