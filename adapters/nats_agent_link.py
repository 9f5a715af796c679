"""The agent's side of NATS: work in; presence, telemetry and predictions out."""

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
from pydantic import TypeAdapter, ValidationError

from domain.subjects import presence_subject
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
        self._requests: Subscription | None = None
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
            await self._js.publish(subject, body, timeout=EMIT_TIMEOUT_S, headers=headers)
        except (NatsError, TimeoutError) as problem:
            raise ConnectionError(f"telemetry was not taken: {problem}") from problem

    async def serve(self, answer: Callable[[PredictRequest], Awaitable[PredictReply]]) -> None:
        async def on_request(msg: Msg) -> None:
            # The client awaits its callbacks one by one; a slow answer must not hold up the next.
            task = asyncio.create_task(self._reply(msg, answer))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        subject = f"infer.{self._workspace}.*"
        self._requests = await self._nc.subscribe(subject, queue="infer", cb=on_request)

    async def close(self) -> None:
        """Take no more requests; answers that are on their way are dropped."""
        if self._requests is not None and not self._nc.is_closed:
            await self._requests.unsubscribe()
        for task in self._answering:
            task.cancel()

    async def _reply(
        self, msg: Msg, answer: Callable[[PredictRequest], Awaitable[PredictReply]]
    ) -> None:
        if not msg.reply:
            return  # nobody waits
        try:
            request = PredictRequest.model_validate_json(msg.data)
        except ValidationError as problem:
            reply = _refusal("", "bad_request", f"the request cannot be read: {problem}")
        else:
            reply = await answer(request)
        try:
            await self._nc.publish(msg.reply, reply.model_dump_json().encode())
        except MaxPayloadError:
            too_large = "the answer is larger than one message; send fewer texts at a time"
            small = _refusal(reply.request_id, "reply_too_large", too_large)
            await self._nc.publish(msg.reply, small.model_dump_json().encode())
        except NatsError as problem:
            _log.warning("a prediction was not delivered: %s", problem)


def _refusal(request_id: str, code: str, message: str) -> PredictReply:
    return PredictReply(
        request_id=request_id, error=Failed(code=code, message=message, retryable=False)
    )
