"""The process that predicts: one request a line, one reply a line, in order, until the parent goes away."""

import os
import sys
import traceback
from collections.abc import Callable

from pydantic import ValidationError

from domain.work import Failed, PredictReply
from gpu_agent.outcomes import WorkFailed, out_of_memory
from gpu_agent.pipes import claim_stdout, die_with_parent, leave_out_quantisation
from gpu_agent.protocol import ServingInput, ServingReady, ServingRequest

Answer = Callable[[ServingRequest], PredictReply]


def main() -> None:
    die_with_parent()
    replies = claim_stdout()
    lines = sys.stdin.buffer
    config = ServingInput.model_validate_json(lines.readline())
    answer = _load(config)
    replies.write(ServingReady().model_dump_json().encode() + b"\n")
    replies.flush()
    for line in lines:
        replies.write(reply_to(line, answer).model_dump_json().encode() + b"\n")
        replies.flush()


def _load(config: ServingInput) -> Answer:
    leave_out_quantisation()
    from gpu_agent.predictor import Predictor  # noqa: PLC0415 - torch, after the ties are made

    return Predictor(config).answer


def reply_to(line: bytes, answer: Answer) -> PredictReply:
    """Answer one request; whatever goes wrong is told to whoever asked, and the next one is served."""
    try:
        request = ServingRequest.model_validate_json(line)
    except ValidationError as error:
        return PredictReply(request_id="", error=_failed("request_unreadable", error))
    try:
        return answer(request)
    except WorkFailed as failure:
        return PredictReply(request_id=request.request_id, error=failure.fact())
    except Exception as error:  # noqa: BLE001 - the top of the process
        traceback.print_exc()
        code = "out_of_memory" if out_of_memory(error) else "prediction_failed"
        return PredictReply(request_id=request.request_id, error=_failed(code, error))


def _failed(code: str, error: Exception) -> Failed:
    message = str(error).partition("\n")[0] or type(error).__name__
    return Failed(code=code, message=message, retryable=code == "out_of_memory")


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - the top of the process: the agent reads it from stderr
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # an ordinary exit takes a moment to unload torch
