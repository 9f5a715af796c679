"""What the agent needs of the world outside: the log, its work, the stored bytes."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from domain.blobs import BlobRef
from domain.inference import Begun, Control, End, GenerateRequest, InService, Piece, Refused
from domain.messages import Command, Envelope, Outcome
from domain.telemetry import LogEmitted, MetricsLogged
from domain.work import (
    EvaluateAssignment,
    PredictReply,
    PredictRequest,
    Presence,
    StopWork,
    TrainAssignment,
)

Answer = Callable[[PredictRequest], Awaitable[PredictReply]]
Send = Callable[[Begun | Piece | End | Refused], Awaitable[None]]  # ConnectionError: nobody hears
Generate = Callable[[GenerateRequest, Send], Awaitable[None]]
Hear = Callable[[str, Control], None]  # with the request's id; requests of others are passed over


class Blobs(Protocol):
    """Every failure is an `OSError`: ENOENT for a blob that is missing, EIO for a damaged one."""

    async def put_file(self, path: Path) -> BlobRef: ...

    async def fetch(self, ref: BlobRef, to: Path) -> None: ...


class Commands(Protocol):
    async def send(self, envelope: Envelope[Command], *, timeout_s: float = 10.0) -> Outcome:
        """Send and wait for the outcome; sending the same envelope again does no harm.

        Raises:
            domain.errors.CommandTimeout: Nobody has decided in time.
            domain.errors.BusUnavailable: Nobody has taken it.
        """
        ...


class WorkItem(Protocol):
    """One message of this agent's queue; it comes again unless it is acknowledged or kept."""

    @property
    def message(self) -> TrainAssignment | EvaluateAssignment | StopWork: ...

    async def keep(self) -> None:
        """Say that the work goes on, so that it is not handed out again."""
        ...

    async def ack(self) -> None: ...


class TelemetryLog(Protocol):
    async def emit(
        self, subject: str, message: LogEmitted | MetricsLogged, message_id: str
    ) -> None:
        """Store telemetry; what has this id already is not stored twice.

        Raises:
            ConnectionError: Perhaps it was not stored.
        """
        ...


class AgentLink(TelemetryLog, Protocol):
    """The agent's connection, which comes back by itself whenever it is lost."""

    async def next_work(self) -> WorkItem | None:
        """Wait a moment for the next message.

        Raises:
            ConnectionError: The connection was closed for good.
        """
        ...

    async def announce(self, presence: Presence) -> None: ...

    async def in_service(self) -> InService | None:
        """Ask what is in service; None where nobody answers."""
        ...

    async def serve(self, answer: Answer, generate: Generate, hear: Hear) -> None:
        """Answer requests from now on, any number at a time."""
        ...
