"""Asks whoever serves a model for predictions and text: requests on ``infer.<workspace>.<model>``."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Self
from uuid import UUID

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError
from pydantic import ValidationError

from domain.inference import (
    KEEP_S,
    SILENCE_S,
    End,
    GenerateReply,
    GenerateRequest,
    InService,
    Piece,
    Refused,
    generate_reply,
)
from domain.subjects import control_subject, inference_subject, serving_subject
from domain.work import Failed, Prediction, PredictReply, PredictRequest

BATCH_BYTES: Final = 400 * 1024  # of texts, and of scores in the answer; NATS takes 1 MiB a message
SCORE_BYTES: Final = 32  # a label's score as JSON, without the label
PREDICTION_BYTES: Final = 32
ESCAPED: Final = 6  # bytes of a control character in JSON; nothing takes more
_NO_RESPONDERS: Final = "503"


class NatsInference:
    """Splits what is too large for one message and puts the answers together again."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def predict(self, request: PredictRequest, *, timeout_s: float) -> PredictReply:
        """Predictions in the order of the texts; what goes wrong is the reply's ``error``."""
        predictions: list[Prediction] = []
        seconds = 0.0
        try:
            async with asyncio.timeout(timeout_s):
                for part in parts(request):
                    reply = await self._ask(part, timeout_s)
                    if reply.error is not None:
                        return reply
                    predictions += reply.predictions
                    seconds += reply.seconds
        except NoRespondersError:
            return _failed(request, "no_agent", "no agent serves this model now")
        except TimeoutError:
            return _failed(request, "timed_out", f"no answer within {timeout_s:g} s")
        except (NatsError, OSError) as error:
            return _failed(request, "no_connection", f"NATS cannot be reached: {error}")
        return PredictReply(
            request_id=request.request_id, predictions=tuple(predictions), seconds=seconds
        )

    @asynccontextmanager
    async def generate(
        self, request: GenerateRequest, model_id: UUID
    ) -> AsyncIterator[AsyncIterator[GenerateReply]]:
        """Replies up to an ``End`` or a ``Refused``; leaving before that tells the agent to stop."""
        replies = _Replies(request.request_id)
        control = control_subject(request.workspace, request.request_id)
        inbox = self._nc.new_inbox()
        try:
            subscription = await self._nc.subscribe(inbox, cb=replies.take)
        except (NatsError, OSError) as error:
            replies.fail("no_connection", f"NATS cannot be reached: {error}")
            yield replies
            return
        keeping = asyncio.create_task(self._keep(control), name=f"keep {request.request_id}")
        try:
            await self._publish(request, model_id, inbox, replies)
            yield replies
        finally:
            keeping.cancel()
            with suppress(NatsError, OSError):
                if not replies.agent_is_done:
                    await self._nc.publish(control, b"cancel")
                await subscription.unsubscribe()
            await asyncio.gather(keeping, return_exceptions=True)

    async def tell_in_service(
        self, workspace: str, ask: Callable[[], Awaitable[InService | None]]
    ) -> None:
        """Answer agents that want to know what is in service, one after the other; None is no answer."""

        async def answer(msg: Msg) -> None:
            if msg.reply and (known := await ask()) is not None:
                with suppress(NatsError, OSError):  # it asks again in a few seconds
                    await self._nc.publish(msg.reply, known.model_dump_json().encode())

        await self._nc.subscribe(serving_subject(workspace), queue="gateway", cb=answer)

    async def _publish(
        self, request: GenerateRequest, model_id: UUID, inbox: str, replies: "_Replies"
    ) -> None:
        subject = inference_subject(request.workspace, model_id)
        try:
            await self._nc.publish(subject, request.model_dump_json().encode(), reply=inbox)
        except MaxPayloadError:
            replies.fail("too_long", "the text is longer than one request can be", retryable=False)
        except (NatsError, OSError) as error:
            replies.fail("no_connection", f"NATS cannot be reached: {error}")

    async def _keep(self, control: str) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            with suppress(NatsError, OSError):  # then the agent hears nothing and gives up
                await self._nc.publish(control, b"keep")

    async def _ask(self, request: PredictRequest, timeout_s: float) -> PredictReply:
        subject = inference_subject(request.workspace, request.model_id)
        body = request.model_dump_json().encode()
        msg = await self._nc.request(subject, body, timeout=timeout_s)
        try:
            return PredictReply.model_validate_json(msg.data)
        except ValidationError as error:
            return _failed(request, "bad_reply", f"the answer cannot be read: {error}")


class _Replies:
    """The replies to one request in order; what is missing or malformed ends them."""

    def __init__(self, request_id: str) -> None:
        self.agent_is_done = False
        self._request_id = request_id
        self._waiting: asyncio.Queue[Msg | Refused] = asyncio.Queue()
        self._pieces = 0
        self._ended = False

    async def take(self, msg: Msg) -> None:
        self._waiting.put_nowait(msg)

    def fail(self, code: str, message: str, *, retryable: bool = True) -> None:
        """What went wrong before anybody was asked."""
        self.agent_is_done = True
        self._waiting.put_nowait(self._refused(code, message, retryable=retryable))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GenerateReply:
        if self._ended:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(SILENCE_S):
                said = await self._waiting.get()
        except TimeoutError:
            reply: GenerateReply = self._refused("silent", f"no word for {SILENCE_S:g} s")
        else:
            reply = said if isinstance(said, Refused) else self._read(said)
        self._ended = isinstance(reply, End | Refused)
        return reply

    def _read(self, msg: Msg) -> GenerateReply:
        if msg.headers and msg.headers.get("Status") == _NO_RESPONDERS:
            self.agent_is_done = True
            return self._refused("no_agent", "no agent serves this model now")
        try:
            reply = generate_reply.validate_json(msg.data)
        except ValidationError as error:
            return self._refused("bad_reply", f"the answer cannot be read: {error}")
        if isinstance(reply, Piece):
            if reply.number != self._pieces:
                return self._refused("lost", "a part of the answer was lost on its way")
            self._pieces += 1
        self.agent_is_done = isinstance(reply, End | Refused)
        return reply

    def _refused(self, code: str, message: str, *, retryable: bool = True) -> Refused:
        error = Failed(code=code, message=message, retryable=retryable)
        return Refused(request_id=self._request_id, error=error)


def parts(request: PredictRequest) -> Iterator[PredictRequest]:
    """The request in parts that fit into messages: of its texts or of its rows."""
    if not request.rows:
        for texts in batches(request.texts, request.labels):
            yield request.model_copy(update={"texts": texts})
        return
    spelled = [json.dumps(row, ensure_ascii=False) for row in request.rows]
    begin = 0
    for group in batches(spelled, request.labels, list(request.rows[0])):
        yield request.model_copy(update={"rows": request.rows[begin : begin + len(group)]})
        begin += len(group)


def batches(
    texts: Sequence[str], labels: Sequence[str], columns: Sequence[str] = ()
) -> Iterator[tuple[str, ...]]:
    """Texts in order, in groups whose request and answer both fit into a message.

    ``columns`` are names that may stand in every answer.
    """
    row = PREDICTION_BYTES + sum(len(label.encode()) + SCORE_BYTES for label in labels)
    row += sum(_json_bytes(column) + 4 for column in columns)
    most = max(1, BATCH_BYTES // row)
    group: list[str] = []
    size = 0
    for text in texts:
        length = _json_bytes(text)
        if group and (size + length > BATCH_BYTES or len(group) >= most):
            yield tuple(group)
            group, size = [], 0
        group.append(text)
        size += length
    if group:
        yield tuple(group)


def _json_bytes(text: str) -> int:
    return len(text.encode()) + (ESCAPED - 1) * sum(char < " " or char in '"\\' for char in text)


def _failed(request: PredictRequest, code: str, message: str) -> PredictReply:
    error = Failed(code=code, message=message, retryable=True)
    return PredictReply(request_id=request.request_id, error=error)
