"""A serving child without a model: it predicts the first label, and dies of the text "die"."""

import os
import sys
from pathlib import Path

from domain.work import Prediction, PredictReply
from gpu_agent.pipes import claim_stdout, die_with_parent
from gpu_agent.protocol import ServingInput, ServingReady, ServingRequest


def main() -> None:
    die_with_parent()
    output = claim_stdout()
    ServingInput.model_validate_json(sys.stdin.buffer.readline())
    if pids := os.environ.get("STAND_IN_PIDS"):
        with Path(pids).open("a") as file:
            file.write(f"{os.getpid()}\n")
    output.write(ServingReady().model_dump_json().encode() + b"\n")
    output.flush()
    for line in sys.stdin.buffer:
        request = ServingRequest.model_validate_json(line)
        if "die" in request.texts:
            os._exit(9)
        if "wait" in request.texts:
            continue  # no answer, ever
        assert (request.adapter_folder / "adapter_model.safetensors").is_file()
        first = Prediction(label=request.labels[0], scores=dict.fromkeys(request.labels, 0.5))
        reply = PredictReply(
            request_id=request.request_id, predictions=(first,) * len(request.texts)
        )
        output.write(reply.model_dump_json().encode() + b"\n")
        output.flush()


if __name__ == "__main__":
    main()
