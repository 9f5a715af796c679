"""What a serving process does: it predicts, generates, warms up and cancels, all between two tokens."""

import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, assert_never

import torch
from pydantic import BaseModel, ValidationError

from domain.inference import GenerateRequest, Refused
from domain.jobs.tabular import TABULAR_MODELS
from domain.work import Failed, PredictReply
from gpu_agent.environment import set_up
from gpu_agent.generation import Engine
from gpu_agent.outcomes import WorkFailed, out_of_memory
from gpu_agent.predictor import Predictor
from gpu_agent.protocol import (
    SIGN_S,
    CancelOrder,
    GenerateOrder,
    Predicted,
    ServingInput,
    ServingRequest,
    Warmed,
    WarmOrder,
    Working,
    serving_order,
)
from gpu_agent.rendering import prompt_ids, text_ids
from gpu_agent.serving import Say
from gpu_agent.speakers import Speakers
from gpu_agent.tabular.predictor import TablePredictor

LOADING_S: Final = 900.0  # a large base model from a slow disk, or from the hub
# What happened in here is told in the words of whoever asked for text.
CODES: Final = {
    "checkpoint_unreadable": "adapter_unreadable",
    "conversation_refused": "bad_request",
}


class EmptyPrompt(WorkFailed):
    """There is nothing to go on from."""

    code = "bad_request"


class Answering:
    """`take` what is asked, and `step` while `busy`; every answer is given to ``say``."""

    def __init__(self, config: ServingInput, say: Say) -> None:
        device = set_up(config.device, config.threads)
        self._say_it = say
        self._said_at = time.monotonic()
        self._threads = config.threads
        self._engine = Engine()
        self._speakers = Speakers(config, device, self._loading)
        self._predictor = Predictor(config, device, self._loading)
        self._tables = TablePredictor()

    @property
    def busy(self) -> bool:
        return self._engine.busy

    def take(self, line: bytes) -> None:
        try:
            order = serving_order.validate_json(line)
        except ValidationError as error:
            print(f"not an order: {error}", file=sys.stderr)  # noqa: T201 - the agent keeps stderr
            return
        match order:
            case ServingRequest():
                self._predict(order)
            case GenerateOrder():
                self._generate(order)
            case CancelOrder():
                if end := self._engine.cancel(order.request_id):
                    self._say(end)
            case WarmOrder():
                self._warm(order)
            case _:
                assert_never(order)

    def step(self) -> None:
        """One token for everybody; a failure is everybody's too, for they are computed together."""
        try:
            replies = self._engine.step()
        except Exception as error:  # noqa: BLE001 - the top of the process
            replies = self._engine.abandon(_failed(error, "generation_failed"))
        for reply in replies:
            self._say(reply)
        if self.busy and time.monotonic() - self._said_at > SIGN_S:
            self._say(Working())

    def _predict(self, order: ServingRequest) -> None:
        torch.set_num_threads(self._threads)  # generating may have changed it
        try:
            tabular = order.base_model in TABULAR_MODELS
            reply = self._tables.answer(order) if tabular else self._predictor.answer(order)
        except Exception as error:  # noqa: BLE001 - the top of the process
            failed = _failed(error, "prediction_failed")
            reply = PredictReply(request_id=order.request_id, error=failed)
        self._say(Predicted(reply=reply))

    def _generate(self, order: GenerateOrder) -> None:
        request = order.request
        try:
            speaker = self._speakers.of(request.served, order.folders)
            ids = _prompt(speaker.model.tokenizer, request)
            self._engine.add(request.request_id, speaker, ids, request.sampling)
        except Exception as error:  # noqa: BLE001 - the top of the process
            failed = _failed(error, "generation_failed")
            told = failed.model_copy(update={"code": CODES.get(failed.code, failed.code)})
            self._say(Refused(request_id=request.request_id, error=told))

    def _warm(self, order: WarmOrder) -> None:
        failed = None
        try:
            match order.served.method:
                case "sequence_classification":
                    self._predictor.warm(order.served, order.folders.adapter or Path())
                case "tabular":
                    self._tables.warm(order.served, order.folders.adapter or Path())
                case "sft" | "dpo" | "orpo" | "kto" | "simpo" | "grpo":
                    self._speakers.of(order.served, order.folders)
        except Exception as error:  # noqa: BLE001 - the top of the process
            failed = _failed(error, "loading_failed")
        self._say(Warmed(warm_id=order.warm_id, error=failed))

    def _loading(self) -> None:
        self._say(Working(silence_s=LOADING_S))

    def _say(self, message: BaseModel) -> None:
        self._said_at = time.monotonic()
        self._say_it(message)


def _prompt(tokenizer: Any, request: GenerateRequest) -> Sequence[int]:
    if request.prompt is not None:
        ids = text_ids(tokenizer, request.prompt)
    else:
        ids = prompt_ids(tokenizer, [(turn.role, turn.content) for turn in request.messages])
    if not ids:
        raise EmptyPrompt("the prompt is empty")
    return ids


def _failed(error: Exception, code: str) -> Failed:
    """What to tell whoever asked; what nobody foresaw goes to the log with all its lines."""
    if isinstance(error, WorkFailed):
        return error.fact()
    traceback.print_exception(error)
    if out_of_memory(error):
        return Failed(code="out_of_memory", message="there is not enough memory", retryable=True)
    message = str(error).partition("\n")[0] or type(error).__name__
    return Failed(code=code, message=message, retryable=False)
