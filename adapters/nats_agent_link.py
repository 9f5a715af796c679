"""The agent's side of NATS: work and requests in; presence, telemetry and answers out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from pydantic import BaseModel, TypeAdapter, ValidationError

from domain.inference import Begun, Control, End, GenerateRequest, InService, Piece, Refused
from domain.subjects import SERVING_QUEUE, presence_subject, serving_subject
from domain.telemetry import LogEmitted, MetricsLogged
from domain.work import (
    EvaluateAssignment,
    Failed,
    PredictReply,
    PredictRequest,
    Presence,
    StopWork,
    TrainAssignment,
    WorkMessage,
)

PULL_S: Final = 2.0  # a pull request dies with the server, and is missed for at most this long
PAUSE_S: Final = 0.5  # after an answer that is neither work nor "none yet"
EMIT_TIMEOUT_S: Final = 2.0  # a healthy server acknowledges in a millisecond
IN_SERVICE_TIMEOUT_S: Final = 1.0  # a gateway answers in milliseconds
CLOSE_S: Final = 1.0  # to say that nothing more comes
WORDS: Final[dict[bytes, Control]] = {b"keep": "keep", b"cancel": "cancel"}

Send = Callable[[Begun | Piece | End | Refused], Awaitable[None]]

_log = logging.getLogger(__name__)
_work: TypeAdapter[TrainAssignment | EvaluateAssignment | StopWork] = TypeAdapter(WorkMessage)


@dataclass(frozen=True, slots=True)
class NatsWorkItem:
    """A message of the work stream and what it says."""

    message: TrainAssignment | EvaluateAssignment | StopWork
    raw: Msg

    async def keep(self) -> None:
        try:
            await self.raw.in_progress()
        except NatsError as problem:  # it comes again, and its holder knows it
            _log.warning("work could not be kept: %s", problem)

    async def ack(self) -> None:
        try:
            await self.raw.ack()
        except NatsError as problem:
            _log.warning("work could not be acknowledged: %s", problem)


class NatsAgentLink:
    """Everything but commands that an agent says or hears, over one connection.

    Work is pulled with nats-py and not with FastStream's `get_one`: that wants a broker with a
    second connection, and creates the consumer where it finds none, which an agent may not do and
    would learn only from a timeout.
    """

    def __init__(self, nc: Client, *, agent_id: str, workspace: str) -> None:
        self._nc = nc
        self._js = nc.jetstream()
        self._agent_id = agent_id
        self._workspace = workspace
        self._pull: JetStreamContext.PullSubscription | None = None
        self._subscriptions: list[Subscription] = []
        self._answering: set[asyncio.Task[None]] = set()

    async def next_work(self) -> NatsWorkItem | None:
        """Wait a moment for the next message; one that cannot be read is thrown away.

        Raises:
            ConnectionError: The connection was closed for good, as after a changed password.
        """
        if self._nc.is_closed:
            raise ConnectionError("the connection to NATS was closed for good")
        try:
            if self._pull is None:
                self._pull = await self._js.pull_subscribe_bind(
                    durable=f"agent-{self._agent_id}", stream="WORK"
                )
            (raw,) = await self._pull.fetch(1, timeout=PULL_S)
        except TimeoutError:
            return None
        except NatsError as problem:
            _log.warning("no work can be taken: %s", problem)
            await asyncio.sleep(PAUSE_S)
            return None
        try:
            return NatsWorkItem(_work.validate_json(raw.data), raw)
        except ValidationError as problem:
            _log.error("a work message cannot be read and is dropped: %s", problem)
            await raw.term()
            return None

    async def announce(self, presence: Presence) -> None:
        if self._nc.is_connected:  # an old one that is delivered later would be a lie
            body = presence.model_dump_json().encode()
            await self._nc.publish(presence_subject(presence.agent_id), body)

    async def emit(
        self, subject: str, message: LogEmitted | MetricsLogged, message_id: str
    ) -> None:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": message_id,
            "ce-source": f"/finetrail/{subject.split('.')[1]}/{self._agent_id}",
            "ce-type": message.type,
            "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "content-type": "application/json",
            "Nats-Msg-Id": message_id,
        }
        body = message.model_dump_json().encode()
        try:
            # The last token is this agent's own: it may publish no other.
            spoken = f"{subject}.{self._agent_id}"
            await self._js.publish(spoken, body, timeout=EMIT_TIMEOUT_S, headers=headers)
        except (NatsError, TimeoutError) as problem:
            raise ConnectionError(f"telemetry was not taken: {problem}") from problem

    async def in_service(self) -> InService | None:
        """Ask a gateway; None where none answers."""
        try:
            subject = serving_subject(self._workspace)
            msg = await self._nc.request(subject, timeout=IN_SERVICE_TIMEOUT_S)
            return InService.model_validate_json(msg.data)
        except (NatsError, TimeoutError):
            return None
        except ValidationError as problem:
            _log.warning("what is in service cannot be read: %s", problem)
            return None

    async def serve(
        self,
        answer: Callable[[PredictRequest], Awaitable[PredictReply]],
        generate: Callable[[GenerateRequest, Send], Awaitable[None]],
        hear: Callable[[str, Control], None],
    ) -> None:
        async def on_request(msg: Msg) -> None:
            # The client awaits its callbacks one by one; a slow answer must not hold up the next.
            task = asyncio.create_task(self._reply(msg, answer, generate))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        async def on_control(msg: Msg) -> None:
            if (word := WORDS.get(msg.data)) is not None:
                hear(msg.subject.rpartition(".")[2], word)

        self._subscriptions = [
            await self._nc.subscribe(f"control.{self._workspace}.*", cb=on_control),
            await self._nc.subscribe(
                f"infer.{self._workspace}.*", queue=SERVING_QUEUE, cb=on_request
            ),
        ]

    async def close(self) -> None:
        """Take no more requests; answers that do not end in a moment are dropped."""
        for subscription in self._subscriptions:
            if not self._nc.is_closed:
                await subscription.unsubscribe()
        if self._answering:
            await asyncio.wait(self._answering, timeout=CLOSE_S)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _reply(
        self,
        msg: Msg,
        answer: Callable[[PredictRequest], Awaitable[PredictReply]],
        generate: Callable[[GenerateRequest, Send], Awaitable[None]],
    ) -> None:
        if not msg.reply:
            return  # nobody waits
        try:
            if _Kind.model_validate_json(msg.data).kind == "generate":
                await self._stream(
                    msg.reply, GenerateRequest.model_validate_json(msg.data), generate
                )
            else:
                await self._predict(msg.reply, PredictRequest.model_validate_json(msg.data), answer)
        except ValidationError as problem:
            await self._publish(msg.reply, _unreadable(msg.data, problem))
        except ConnectionError as problem:
            _log.warning("an answer was not delivered: %s", problem)

    async def _predict(
        self,
        inbox: str,
        request: PredictRequest,
        answer: Callable[[PredictRequest], Awaitable[PredictReply]],
    ) -> None:
        reply = await answer(request)
        try:
            await self._publish(inbox, reply)
        except MaxPayloadError:
            too_large = "the answer is larger than one message; send fewer texts at a time"
            await self._publish(inbox, _refusal(request.request_id, "reply_too_large", too_large))

    async def _stream(
        self,
        inbox: str,
        request: GenerateRequest,
        generate: Callable[[GenerateRequest, Send], Awaitable[None]],
    ) -> None:
        try:
            await generate(request, lambda reply: self._publish(inbox, reply))
        except MaxPayloadError:
            too_large = "a part of the answer is larger than one message; ask for no alternatives"
            failed = Failed(code="reply_too_large", message=too_large, retryable=False)
            await self._publish(inbox, Refused(request_id=request.request_id, error=failed))

    async def _publish(self, inbox: str, reply: BaseModel) -> None:
        try:
            await self._nc.publish(inbox, reply.model_dump_json().encode())
        except MaxPayloadError:
            raise
        except NatsError as problem:
            raise ConnectionError(str(problem) or type(problem).__name__) from problem


class _Kind(BaseModel):
    kind: str = "predict"
    request_id: str = ""


def _unreadable(body: bytes, problem: ValidationError) -> PredictReply | Refused:
    message = f"the request cannot be read: {problem}"
    try:
        known = _Kind.model_validate_json(body)
    except ValidationError:
        known = _Kind()
    if known.kind != "generate":
        return _refusal(known.request_id, "bad_request", message)
    error = Failed(code="bad_request", message=message, retryable=False)
    return Refused(request_id=known.request_id, error=error)


def _refusal(request_id: str, code: str, message: str) -> PredictReply:
    return PredictReply(
        request_id=request_id, error=Failed(code=code, message=message, retryable=False)
    )
