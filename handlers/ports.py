"""What the handlers need of the world, as small as they need it."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from domain.messages import Command, Envelope, Event, History, Outcome, StreamId
from domain.wire import Headers

Clock = Callable[[], datetime]  # aware, UTC


class EventStore(Protocol):
    """The log, one stream at a time; `tests/contracts/test_event_store.py` says what it promises."""

    async def read(self, stream: StreamId, after: int = 0) -> History[Event]: ...

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
