"""Adapters beside one another over one base, and replies whatever is asked."""

import shutil
from pathlib import Path
from uuid import UUID

import pytest
import torch

from domain.inference import ServedModel
from domain.work import PredictReply
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.classifier import load_base
from gpu_agent.outcomes import CheckpointUnreadable
from gpu_agent.predictor import Predictor, attach
from gpu_agent.protocol import ADAPTERS, ServingInput, ServingRequest
from tests.gpu_agent import tiny


def request(
    folder: Path,
    version: int,
    labels: tuple[str, ...] = tiny.LABELS,
    texts: tuple[str, ...] = tiny.TEXTS,
) -> ServingRequest:
    return ServingRequest(
        request_id=f"request-{version}",
        workspace="default",
        model_id=UUID(int=1),
        version_id=UUID(int=version),
        base_model=tiny.NAME,
        labels=labels,
        adapter=(),
        max_length=64,
        texts=texts,
        adapter_folder=folder,
    )


@pytest.fixture
def predictor(models_folder: Path) -> Predictor:
    torch.set_num_threads(1)
    config = ServingInput(threads=1, models_folder=models_folder, base_model=tiny.NAME)
    return Predictor(config, torch.device("cpu"), lambda: None)


def scores(reply: PredictReply) -> torch.Tensor:
    return torch.tensor([list(prediction.scores.values()) for prediction in reply.predictions])


def test_adapters_with_other_labels_and_ranks_answer_as_if_alone(
    predictor: Predictor, models_folder: Path, tmp_path: Path
) -> None:
    three = tiny.make_adapter(tmp_path / "three", models_folder, tiny.LABELS, rank=8)
    two = tiny.make_adapter(tmp_path / "two", models_folder, ("no", "yes"), rank=2)

    asked = [
        predictor.answer(request(tmp_path / "three", 1)),
        predictor.answer(request(tmp_path / "two", 2, ("no", "yes"))),
        predictor.answer(request(tmp_path / "three", 1)),
    ]

    assert torch.allclose(scores(asked[0]), three, atol=1e-6)
    assert torch.allclose(scores(asked[1]), two, atol=1e-6)
    assert asked[2].predictions == asked[0].predictions


def test_prediction_is_the_label_with_the_highest_score(
    predictor: Predictor, models_folder: Path, tmp_path: Path
) -> None:
    tiny.make_adapter(tmp_path / "a", models_folder, tiny.LABELS, rank=8)

    reply = predictor.answer(request(tmp_path / "a", 1))

    for prediction in reply.predictions:
        assert prediction.scores[prediction.label] == max(prediction.scores.values())
        assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)


def test_no_texts_get_no_predictions(
    predictor: Predictor, models_folder: Path, tmp_path: Path
) -> None:
    tiny.make_adapter(tmp_path / "a", models_folder, tiny.LABELS, rank=8)

    assert predictor.answer(request(tmp_path / "a", 1, texts=())).predictions == ()


def test_adapter_that_was_used_lately_needs_its_folder_no_more(
    predictor: Predictor, models_folder: Path, tmp_path: Path
) -> None:
    tiny.make_adapter(tmp_path / "a", models_folder, tiny.LABELS, rank=8)
    before = predictor.answer(request(tmp_path / "a", 1))
    (tmp_path / "a" / "adapter_model.safetensors").unlink()

    assert predictor.answer(request(tmp_path / "a", 1)).predictions == before.predictions


def test_adapter_that_was_not_asked_for_the_longest_is_let_go(
    predictor: Predictor, models_folder: Path, tmp_path: Path
) -> None:
    tiny.make_adapter(tmp_path / "a", models_folder, tiny.LABELS, rank=8)
    for version in range(1, ADAPTERS + 2):
        predictor.answer(request(tmp_path / "a", version))
    shutil.rmtree(tmp_path / "a")

    predictor.answer(request(tmp_path / "a", 2))
    with pytest.raises(CheckpointUnreadable):
        predictor.answer(request(tmp_path / "a", 1))


def test_encoders_weights_are_in_memory_once(models_folder: Path, tmp_path: Path) -> None:
    tiny.make_adapter(tmp_path / "a", models_folder, tiny.LABELS, rank=8)
    network = load_base(find_base_model(tiny.NAME, Places(models_folder)), 2, 0).network

    model = attach(network, tmp_path / "a", 3)

    held = {weight.data_ptr() for weight in model.parameters()}
    assert all(weight.data_ptr() in held for weight in network.base_model.parameters())


def test_adapter_for_other_labels_is_refused(
    predictor: Predictor, models_folder: Path, tmp_path: Path
) -> None:
    tiny.make_adapter(tmp_path / "a", models_folder, ("no", "yes"), rank=8)

    with pytest.raises(CheckpointUnreadable, match="other labels"):
        predictor.answer(request(tmp_path / "a", 1))


def test_classifier_that_is_warm_needs_its_folder_no_more(
    predictor: Predictor, models_folder: Path, tmp_path: Path
) -> None:
    expected = tiny.make_adapter(tmp_path / "a", models_folder, tiny.LABELS, rank=8)
    served = ServedModel(
        method="sequence_classification",
        version_id=UUID(int=1),
        base_model=tiny.NAME,
        labels=tiny.LABELS,
        max_length=64,
    )

    predictor.warm(served, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")

    assert torch.allclose(scores(predictor.answer(request(tmp_path / "a", 1))), expected, atol=1e-6)


def test_loading_a_base_model_is_announced(models_folder: Path, tmp_path: Path) -> None:
    tiny.make_adapter(tmp_path / "a", models_folder, tiny.LABELS, rank=8)
    said: list[str] = []
    config = ServingInput(threads=1, models_folder=models_folder)
    predictor = Predictor(config, torch.device("cpu"), lambda: said.append("loading"))

    predictor.answer(request(tmp_path / "a", 1))
    predictor.answer(request(tmp_path / "a", 1))

    assert said == ["loading"]
