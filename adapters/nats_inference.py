"""Asks whoever serves a model for predictions: requests on ``infer.<workspace>.<model>``."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from pydantic import ValidationError

from domain.subjects import inference_subject
from domain.work import Failed, Prediction, PredictReply, PredictRequest

BATCH_BYTES: Final = 400 * 1024  # of texts, and of scores in the answer; NATS takes 1 MiB a message
SCORE_BYTES: Final = 32  # a label's score as JSON, without the label
PREDICTION_BYTES: Final = 32
ESCAPED: Final = 6  # bytes of a control character in JSON; nothing takes more


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
                for texts in batches(request.texts, request.labels):
                    part = request.model_copy(update={"texts": texts})
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

    async def _ask(self, request: PredictRequest, timeout_s: float) -> PredictReply:
        subject = inference_subject(request.workspace, request.model_id)
        body = request.model_dump_json().encode()
        msg = await self._nc.request(subject, body, timeout=timeout_s)
        try:
            return PredictReply.model_validate_json(msg.data)
        except ValidationError as error:
            return _failed(request, "bad_reply", f"the answer cannot be read: {error}")


def batches(texts: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Texts in order, in groups whose request and answer both fit into a message."""
    row = PREDICTION_BYTES + sum(len(label.encode()) + SCORE_BYTES for label in labels)
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
