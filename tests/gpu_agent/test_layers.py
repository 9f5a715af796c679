"""Layers that are computed again on the way back give the same bits, and keep less."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from domain.jobs.spec import Hyperparameters, LoraConfig
from domain.work import StepDone, TrainAssignment, TrainingFinished
from gpu_agent.language_model import LanguageModel
from gpu_agent.layers import CompilerMissing, compile_layers, recompute_layers
from gpu_agent.loop import Plan, add_gradients
from gpu_agent.lora import add_lora, training_mode
from gpu_agent.outcomes import BaseModelRefused
from gpu_agent.recipes import sequence_classification, sft
from tests.gpu_agent import babble, tiny
from tests.gpu_agent.test_packing import row
from tests.gpu_agent.tiny import of_kind

LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.3, target_modules=("all-linear",))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in babble.KINDS:
        babble.write_model(folder / kind, kind)
    return folder


@contextmanager
def counted_bytes() -> Iterator[list[int]]:
    """What is kept for the way back."""
    kept = [0]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[0] += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def gradients(model: LanguageModel) -> tuple[list[torch.Tensor], int]:
    weights = add_lora(model, LORA, seed=0)
    for name, weight in weights.items():
        if "lora_B" in name:
            nn.init.constant_(weight, 0.02)
    training_mode(model, on=True)
    torch.manual_seed(7)
    rows = [row(length, seed=length) for length in (9, 30, 17)]
    plan = Plan(Hyperparameters(), 0, "float32", 1024, Path())
    answers = sft.Answers(model, rows, (), plan, together=False)
    with counted_bytes() as kept:
        add_gradients(answers, rows, 1024)
    return [weight.grad for weight in weights.values() if weight.grad is not None], kept[0]


@pytest.mark.parametrize("kind", list(babble.KINDS))
def test_gradients_are_the_same_bits_and_less_is_kept(kind: str, models: Path) -> None:
    whole, kept = gradients(babble.load(models / kind))
    model = babble.load(models / kind)
    recompute_layers(model.network)

    again, kept_again = gradients(model)

    assert len(again) == len(whole) == 28
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    assert kept_again < 0.6 * kept


def test_classifier_ends_with_the_same_bytes(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    def run(folder: Path, **changes: Any) -> dict[str, bytes]:
        order = tiny.train_order(tiny.spec(data, **changes), data, folder, models_folder)
        assert isinstance(order.assignment, TrainAssignment)
        facts = list(sequence_classification.train(order, order.assignment))
        return tiny.adapter_bytes(of_kind(facts, TrainingFinished)[0].folder)

    plain = run(tmp_path / "a", epochs=1)

    assert run(tmp_path / "b", epochs=1, gradient_checkpointing=True) == plain
    assert run(tmp_path / "c", epochs=1, learning_rate=0.001) != plain


def test_network_without_layers_that_are_known_is_refused() -> None:
    with pytest.raises(BaseModelRefused, match="layers are not marked"):
        recompute_layers(nn.Linear(2, 2))
    with pytest.raises(BaseModelRefused, match="no part called mlp"):
        compile_layers(nn.Linear(2, 2))


def test_compiler_that_is_missing_is_an_outcome(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(CompilerMissing, match=r"g\+\+") as outcome:
        compile_layers(babble.load(models / "qwen3").network)

    assert outcome.value.fact().code == "compiler_missing"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of what it uses itself
def test_compiled_layers_learn_the_same(models: Path, tmp_path: Path) -> None:
    chats = tiny.write_chats(tmp_path / "chats.jsonl", tiny.chat_rows())

    def losses(**changes: Any) -> list[float]:
        job = tiny.sft_spec("qwen3", chats, epochs=1, dropout=0.0, **changes)
        order = tiny.train_order(job, chats, tmp_path / str(len(changes)), models)
        assert isinstance(order.assignment, TrainAssignment)
        facts = list(sft.train(order, order.assignment))
        return [fact.loss for fact in of_kind(facts, StepDone)]

    assert losses(compile=True) == pytest.approx(losses(), abs=1e-4)
