"""The serving process: ready before it is asked, one reply a request, and gone with its parent."""

from pathlib import Path
from uuid import UUID

import pytest
import torch

from domain.work import PredictReply
from gpu_agent.protocol import ServingInput, ServingReady, ServingRequest
from tests.gpu_agent import processes, tiny


@pytest.mark.slow
def test_serving_answers_in_order_and_ends_with_its_input(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    expected = tiny.make_adapter(tmp_path / "adapter", models_folder, tiny.LABELS, rank=8)
    config = ServingInput(
        threads=1, device="cpu", models_folder=models_folder, base_model=tiny.NAME
    )

    with processes.started("gpu_agent.serving", config) as child:
        assert child.stdin
        assert child.stdout
        ServingReady.model_validate_json(child.stdout.readline())
        replies = []
        for number, folder in enumerate((tmp_path / "adapter", tmp_path / "none")):
            asked = ServingRequest(
                request_id=str(number),
                workspace="default",
                model_id=UUID(int=1),
                version_id=UUID(int=number),
                base_model=tiny.NAME,
                labels=tiny.LABELS,
                adapter=(),
                max_length=64,
                texts=tiny.TEXTS,
                adapter_folder=folder,
            )
            processes.say(child, asked)
            replies.append(PredictReply.model_validate_json(child.stdout.readline()))
        child.stdin.close()
        child.stdin = None
        status = child.wait(processes.TIME_LIMIT_S)

    assert status == 0
    assert [reply.request_id for reply in replies] == ["0", "1"]
    said = [list(prediction.scores.values()) for prediction in replies[0].predictions]
    assert torch.allclose(torch.tensor(said), expected, atol=1e-6)
    assert replies[1].error is not None
    assert replies[1].error.code == "checkpoint_unreadable"
