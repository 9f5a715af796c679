"""The shapes that every aggregate shares: command, event, envelope, history, outcome, decider."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import ClassVar, Generic, Literal, TypeVar
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict

from domain.subjects import Aggregate, event_subject

MAX_PAYLOAD = 64 * 1024  # bytes of one event's data; anything larger is a blob named by its hash


class Command(BaseModel):
    """What somebody wants. A stray field is the sender's mistake, and so is a number that is none."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


class Event(BaseModel):
    """What happened. The writer may be newer than the reader, so unknown fields are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    schema_version: ClassVar[int] = 1


C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class StreamId:
    """One aggregate's stream: one exact subject of the log."""

    workspace: str
    aggregate: Aggregate
    id: UUID

    @property
    def subject(self) -> str:
        return event_subject(self.workspace, self.aggregate, self.id)

    @classmethod
    def of_subject(cls, subject: str) -> "StreamId":
        """Read it back from ``events.<w>.<aggregate>.<id>`` or ``commands.<source>.<w>.…``."""
        workspace, aggregate, id_ = subject.split(".")[-3:]
        return cls(workspace, aggregate, UUID(id_))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Envelope(Generic[C]):
    """A command with who, when and why."""

    id: UUID
    stream: StreamId
    source: str  # the subject's token: pinned by the sender's permission, never read from the body
    actor: str  # e.g. "key:3f9a2c1b", "agent:018f…", "reaction"
    correlation_id: UUID
    causation_id: UUID | None
    sent_at: datetime
    command: C
    traceparent: str = ""  # W3C; of the span in which it was sent
    client_address: str = ""  # of the request that it came with, where that is recorded


@dataclass(frozen=True, slots=True)
class Recorded(Generic[E_co]):
    """An event as it stands in the log."""

    id: UUID
    stream: StreamId
    sequence: int  # of the whole log, from 1
    recorded_at: datetime
    actor: str
    source: str
    correlation_id: UUID
    causation_id: UUID  # the command's id
    event: E_co
    traceparent: str = ""  # W3C; of the span in which it was decided
    payload: bytes = (
        b""  # the event's JSON as it was written; empty where its shape has changed since
    )


@dataclass(frozen=True, slots=True)
class History(Generic[E_co]):
    """What one stream holds, oldest first."""

    events: tuple[Recorded[E_co], ...] = ()

    @property
    def revision(self) -> int:
        """Log sequence of the stream's last event; 0 for a stream that does not exist."""
        return self.events[-1].sequence if self.events else 0

    def outcome_of(self, command_id: UUID) -> "Outcome | None":
        """What this command led to when it was decided before, however long ago."""
        done = [recorded for recorded in self.events if recorded.causation_id == command_id]
        return Outcome(status="recorded", sequence=done[-1].sequence) if done else None


class Outcome(BaseModel):
    """The answer to a command."""

    model_config = ConfigDict(frozen=True)

    status: Literal["recorded", "unchanged", "rejected", "failed"]
    sequence: int  # log position to wait for before reading; 0 when nothing was ever recorded
    code: str = ""  # of the refusal
    message: str = ""


def event_id(command_id: UUID, index: int) -> UUID:
    """A repeated command collides with itself."""
    return uuid5(command_id, str(index))


def follow_up_id(cause: UUID, reaction: str) -> UUID:
    """Id of the command that a reaction sends because of an event; a redelivery collides with itself."""
    return uuid5(cause, reaction)


@dataclass(frozen=True, slots=True)
class Decider(Generic[C, S, E]):
    """The rules of one aggregate as three pure values."""

    initial: S
    decide: Callable[[C, S], Sequence[E]]
    evolve: Callable[[S, E], S]

    def fold(self, events: Sequence[E]) -> S:
        return reduce(self.evolve, events, self.initial)
