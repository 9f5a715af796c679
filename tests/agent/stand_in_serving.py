"""A serving child without a model: it predicts the first label, repeats what it is told, and dies of "die".

Text asked for with the prompt "slow" comes a word at a time until it is cancelled, to "large" the
answer is larger than a message, "wait" is met with silence for ever, and any other prompt is the answer.
"""

import os
import sys
import threading
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue

from pydantic import BaseModel

from domain.inference import Begun, End, GenerateRequest, Piece
from domain.work import Prediction, PredictReply
from gpu_agent.pipes import claim_stdout, die_with_parent
from gpu_agent.protocol import (
    CancelOrder,
    GenerateOrder,
    Predicted,
    ServingInput,
    ServingReady,
    ServingRequest,
    Warmed,
    WarmOrder,
    Working,
    serving_order,
)

STEP_S = 0.02
MESSAGE_BYTES = 1024 * 1024  # a NATS server takes no more


class StandIn:
    def __init__(self) -> None:
        self._output = claim_stdout()
        self._slow: dict[str, count[int]] = {}

    def say(self, message: BaseModel) -> None:
        self._output.write(message.model_dump_json().encode() + b"\n")
        self._output.flush()

    def take(self, line: bytes) -> None:
        match serving_order.validate_json(line):
            case ServingRequest() as request:
                self._predict(request)
            case GenerateOrder(request=request, folders=folders):
                if request.served.version_id is not None:
                    assert folders.adapter is not None
                    assert any(folders.adapter.iterdir())
                self._generate(request)
            case CancelOrder(request_id=request_id):
                if self._slow.pop(request_id, None):
                    _note("cancelled", request_id)
                    self.say(_end(request_id, "cancelled"))
            case WarmOrder(warm_id=warm_id, served=served):
                if served.base_model == "deadly":
                    os._exit(9)
                _note("warmed", warm_id)
                self.say(Warmed(warm_id=warm_id))

    def step(self) -> None:
        for request_id, numbers in self._slow.items():
            piece = Piece(request_id=request_id, number=next(numbers), text="word ", tokens=1)
            self.say(piece)
        self.say(Working())

    def _predict(self, request: ServingRequest) -> None:
        if "die" in request.texts:
            os._exit(9)
        if "wait" in request.texts:
            threading.Event().wait()
        assert (request.adapter_folder / "adapter_model.safetensors").is_file()
        first = Prediction(label=request.labels[0], scores=dict.fromkeys(request.labels, 0.5))
        answers = (first,) * len(request.texts)
        self.say(Predicted(reply=PredictReply(request_id=request.request_id, predictions=answers)))

    def _generate(self, request: GenerateRequest) -> None:
        said = request.prompt or request.messages[-1].content
        if said == "die":
            os._exit(9)
        if said == "wait":
            return
        if said == "large":
            said *= MESSAGE_BYTES
        self.say(Begun(request_id=request.request_id, prompt_tokens=len(said)))
        if said == "slow":
            self._slow[request.request_id] = count()
        else:
            self.say(Piece(request_id=request.request_id, number=0, text=said, tokens=len(said)))
            self.say(_end(request.request_id, "stop"))


def _end(request_id: str, reason: str) -> End:
    return End.model_validate(
        {
            "request_id": request_id,
            "reason": reason,
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "seconds": 0.0,
            "first_token_s": 0.0,
        }
    )


def _note(*words: str) -> None:
    """Leave word for the test."""
    if notes := os.environ.get("STAND_IN_NOTES"):
        with Path(notes).open("a") as file:
            file.write(" ".join(words) + "\n")


def main() -> None:
    die_with_parent()
    stand_in = StandIn()
    ServingInput.model_validate_json(sys.stdin.buffer.readline())
    if pids := os.environ.get("STAND_IN_PIDS"):
        with Path(pids).open("a") as file:
            file.write(f"{os.getpid()}\n")
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    stand_in.say(ServingReady())
    while True:
        try:
            line = lines.get(timeout=STEP_S)
        except Empty:
            stand_in.step()
            continue
        if line is None:
            return
        stand_in.take(line)


def _listen(lines: "SimpleQueue[bytes | None]") -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    lines.put(None)


if __name__ == "__main__":
    main()
