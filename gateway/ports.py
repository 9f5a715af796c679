"""What the gateway needs from the world outside, as it sees it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable
from uuid import UUID

from domain.blobs import BlobRef
from domain.inference import GenerateReply, GenerateRequest
from domain.messages import Command, Envelope, Outcome
from domain.request_figures import RequestFigures
from domain.sealing import SealedField
from domain.telemetry import LogEmitted
from domain.webhooks.deliveries import Answer, Attempt, Cursor, Delivery
from domain.work import PredictReply, PredictRequest

Log = Literal["EVENTS", "TELEMETRY", "DEAD"]


@runtime_checkable
class CommandBus(Protocol):
    async def send(self, envelope: Envelope[Command], *, timeout_s: float = 10.0) -> Outcome:
        """Send and wait for the outcome.

        Raises:
            CommandTimeout: No outcome in time; the command is in the stream and will be decided.
            BusUnavailable: The stream did not take it.
        """
        ...


class FeedMessage(Protocol):
    """A message as it stands in a stream."""

    @property
    def sequence(self) -> int: ...
    @property
    def subject(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def data(self) -> bytes: ...


class FeedState(Protocol):
    """How far a stream reaches; of an empty one ``last`` is 0 or the last that was ever there."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...


@runtime_checkable
class Feed(Protocol):
    """Reads streams; every call but ``live`` raises ``StoreUnavailable`` when they are away."""

    async def page(
        self, log: Log, subject: str, after: int, limit: int
    ) -> tuple[Sequence[FeedMessage], bool]:
        """Messages behind ``after`` in order, at most ``limit``, and whether there may be more."""
        ...

    async def last(self, log: Log, subject: str) -> FeedMessage | None:
        """The newest message on one exact subject."""
        ...

    async def state(self, log: Log) -> FeedState: ...

    def live(self, log: Log) -> AbstractAsyncContextManager[AsyncIterator[FeedMessage]]:
        """Every message of the stream as it comes, at most once: what is missed is not told."""
        ...

    async def emit(
        self, workspace: str, job_id: UUID, lines: LogEmitted, *, message_id: UUID
    ) -> int:
        """Put lines that no attempt wrote into a job's log, once an id; gives their sequence."""
        ...


class BlobWriter(Protocol):
    @property
    def ref(self) -> BlobRef:
        """Names the bytes written so far."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    async def write(self, chunk: bytes) -> None: ...
    async def commit(self) -> BlobRef: ...


@runtime_checkable
class Blobs(Protocol):
    def writer(self) -> BlobWriter:
        """Nothing is left of what is not committed."""
        ...

    def read(
        self, sha256: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]: ...

    async def size(self, sha256: str) -> int | None:
        """Bytes that the blob has, or None where there is no such blob."""
        ...

    async def link(self, sha256: str, *, expires_s: int, filename: str) -> str | None:
        """A link of the store's own to the blob; None where it makes none."""
        ...


@runtime_checkable
class Inference(Protocol):
    async def predict(self, request: PredictRequest, *, timeout_s: float) -> PredictReply:
        """Ask whoever serves the model.

        That nobody does, or not in time, is an error in the reply: ``no_agent``, ``timed_out``.
        """
        ...

    def generate(
        self, request: GenerateRequest, model_id: UUID
    ) -> AbstractAsyncContextManager[AsyncIterator[GenerateReply]]:
        """Ask whoever serves the model for text.

        The last reply is an ``End`` or a ``Refused``, whatever goes wrong: ``no_agent``,
        ``no_connection``, ``too_long``, ``silent``, ``lost``, ``bad_reply``. Leaving the context
        before it frees the agent at once.
        """
        ...


class RequestStore(Protocol):
    """Request statistics that outlive the process; ``ConnectionError`` while they cannot be kept."""

    async def write(self, gateway: UUID, figures: Sequence[RequestFigures]) -> None:
        """Put them in the place of what this gateway gave for the same minutes before."""
        ...

    async def read(
        self, since: datetime, until: datetime, step_s: int, route: str | None
    ) -> Sequence[RequestFigures]:
        """Sums over all gateways by steps, oldest first."""
        ...

    async def forget(self, before: datetime) -> None: ...


class WebhookStore(Protocol):
    """What is kept of webhooks beside the log; ``ConnectionError`` while it is away."""

    async def keep_secret(self, webhook_id: UUID, id_: str, value: str) -> str:
        """Keep it unless there is one of that id; give the one that is kept."""
        ...

    async def secret(self, webhook_id: UUID, id_: str) -> str | None: ...

    async def cursors(self) -> Mapping[UUID, Cursor]: ...

    async def waiting(self) -> Mapping[UUID, int]: ...

    async def attempts(
        self, webhook_id: UUID, *, before: int | None = None, limit: int = 50
    ) -> Sequence[Attempt]:
        """Newest first."""
        ...

    async def record(
        self,
        webhook_id: UUID,
        attempts: Sequence[Attempt],
        waiting: Sequence[Delivery],
        done: Sequence[int],
    ) -> None: ...


class PersonKeys(Protocol):
    """The keys of people, beside the log; ``ConnectionError`` while they cannot be had."""

    async def get_or_make(self, person_id: UUID) -> bytes | None:
        """The person's key; None where it was destroyed."""
        ...

    async def find(self, people: Collection[UUID]) -> Mapping[UUID, bytes | None]:
        """The keys of those who ever had one; None for one that was destroyed."""
        ...

    async def destroy(self, people: Collection[UUID]) -> int:
        """Leave no key of theirs; gives how many there were. Doing it again changes nothing."""
        ...


class Sealer(Protocol):
    """Makes and opens sealed texts."""

    def seal(self, key: bytes, person_id: UUID, field: SealedField, text: str) -> str: ...

    def open(self, key: bytes, field: SealedField, text: str) -> str | None:
        """What it says; None where the key or the field is another one."""
        ...


class WebhookSender(Protocol):
    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post once and say what came of it."""
        ...


class ReadMarks(Protocol):
    """What somebody has read of what they were told; ``ConnectionError`` while it is away."""

    async def mark_read(self, workspace: str, key_id: str, ids: Sequence[str]) -> int:
        """Give how many were not marked before."""
        ...

    async def marked_read(self, workspace: str, key_id: str, ids: Sequence[str]) -> frozenset[str]:
        """Which of these were marked."""
        ...
