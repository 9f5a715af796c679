"""What the projections need of the log."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from domain.feed import FedEvent, FeedTail


class Message(Protocol):
    """A message as it stands in a stream."""

    @property
    def sequence(self) -> int: ...
    @property
    def subject(self) -> str: ...
    @property
    def type(self) -> str:
        """What its headers say that it is, told without reading the others; empty where they do not."""
        ...

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def data(self) -> bytes: ...
    @property
    def pending(self) -> int:
        """How many more the stream held behind this one when it was delivered."""
        ...


class EventSource(Protocol):
    """One stream, or a part of it."""

    async def last(self) -> int:
        """Sequence of the stream's newest message; 0 when there never was one.

        Raises:
            StoreUnavailable: The log does not answer.
        """
        ...

    def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]:
        """All messages behind ``after``, in order and without a gap, in batches of what is there.

        While nothing comes, an empty batch says about every second that the log is being watched.
        It never ends and outlives the server's absence; whoever stops early closes it.
        """
        ...


class FeedLog(Protocol):
    """The stream that other systems read; written by one at a time."""

    async def tail(self) -> FeedTail:
        """Where it ends.

        Raises:
            StoreUnavailable: It does not answer.
        """
        ...

    async def store(self, events: Sequence[FedEvent], last: int) -> int:
        """Write events behind the message ``last``, in order; give the sequence of the last one.

        Raises:
            VersionConflict: The feed does not end there.
            StoreUnavailable: It does not answer; some of them may be stored.
        """
        ...
