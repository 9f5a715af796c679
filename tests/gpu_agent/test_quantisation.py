"""Frozen layers in four bits: what they compute, what they learn, and what they cost."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from domain.jobs.spec import ALL_LINEAR, LoraConfig
from domain.work import LogLine, Started, StepDone, TrainAssignment, TrainingFinished
from gpu_agent.lora import add_lora
from gpu_agent.quantisation import Nf4Linear, QuantisationMissing, bitsandbytes, quantise
from gpu_agent.recipes import sft
from tests.gpu_agent import babble, tiny
from tests.gpu_agent.tiny import of_kind


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    babble.write_model(folder / "qwen3", "qwen3", ends=True)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl", tiny.chat_rows())


def packed(bias: bool = True) -> tuple[torch.nn.Linear, Nf4Linear]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 128, bias=bias).requires_grad_(False)
    return layer, Nf4Linear(layer)


def test_four_bits_are_those_of_bitsandbytes_own_layer() -> None:
    layer, ours = packed()
    theirs = bitsandbytes().nn.Linear4bit(64, 128, quant_type="nf4", compress_statistics=True)
    theirs.weight = bitsandbytes().nn.Params4bit(
        layer.weight.data.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    theirs.bias = layer.bias
    theirs = theirs.to("cpu").train()
    x = torch.randn(5, 64, requires_grad=True)

    assert torch.allclose(ours(x), theirs(x), atol=1e-5)  # sums are taken in another order
    error = (ours.dense() - layer.weight).norm() / layer.weight.norm()
    assert 0.05 < error < 0.12  # 0.09 of weights that are spread as these


def test_gradient_is_that_of_the_layer_it_stands_for() -> None:
    _, ours = packed()
    x = torch.randn(5, 64, requires_grad=True)

    (gradient,) = torch.autograd.grad(ours(x).square().sum(), x)

    (expected,) = torch.autograd.grad(linear(x, ours.dense(), ours.bias).square().sum(), x)
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_nothing_but_the_four_bits_is_kept() -> None:
    layer, ours = packed(bias=False)
    network = babble_network()

    assert list(ours.parameters()) == []
    assert ours._packed.numel() * ours._packed.element_size() == layer.weight.numel() // 2
    assert quantise(network) == 2 * 7
    assert not any(isinstance(each, torch.nn.Linear) for each in network.model.modules())
    assert isinstance(network.get_output_embeddings(), torch.nn.Linear)


def babble_network() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(vocab_size=64, **babble.SIZES))


@pytest.mark.parametrize("dora", [False, True])
def test_adapter_over_four_bits_adds_nothing_at_first(models: Path, dora: bool) -> None:
    model = babble.load(models / "qwen3")
    ids = torch.arange(20)[None]
    quantise(model.network)
    with torch.no_grad():
        before = model.network(input_ids=ids).logits
        add_lora(model, LoraConfig(target_modules=(ALL_LINEAR,), dora=dora), seed=0)
        after = model.network(input_ids=ids).logits

    assert torch.allclose(before, after, atol=1e-4)


def train(chats: Path, folder: Path, models: Path, **changes: Any) -> list[Any]:
    order = tiny.train_order(tiny.sft_spec("qwen3", chats, **changes), chats, folder, models)
    assert isinstance(order.assignment, TrainAssignment)
    return list(sft.train(order, order.assignment))


def test_qlora_learns_and_says_what_it_is(chats: Path, tmp_path: Path, models: Path) -> None:
    facts = train(chats, tmp_path / "a", models, tuning="qlora")
    again = train(chats, tmp_path / "b", models, tuning="qlora")

    (started,) = of_kind(facts, Started)
    assert started.tuning == "qlora"
    assert "parameters in four bits" in "\n".join(line.message for line in of_kind(facts, LogLine))
    losses = [fact.loss for fact in of_kind(facts, StepDone)]
    assert losses[-1] < losses[0] - 0.5
    folders = [of_kind(each, TrainingFinished)[0].folder for each in (facts, again)]
    assert tiny.adapter_bytes(folders[0]) == tiny.adapter_bytes(folders[1])


def test_parameters_are_counted_as_if_they_were_not_packed(
    chats: Path, tmp_path: Path, models: Path
) -> None:
    counts = [
        of_kind(train(chats, tmp_path / tuning, models, epochs=1, tuning=tuning), Started)[0]
        for tuning in ("lora", "qlora")
    ]

    assert counts[0].total_parameters == counts[1].total_parameters
    assert counts[0].trainable_parameters == counts[1].trainable_parameters


@pytest.fixture
def without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)


@pytest.mark.usefixtures("without_bitsandbytes")
def test_qlora_without_its_library_is_an_outcome(chats: Path, tmp_path: Path, models: Path) -> None:
    for asked in ({"tuning": "qlora"}, {"optimizer": "adamw_8bit"}):
        with pytest.raises(QuantisationMissing, match="bitsandbytes cannot be loaded") as outcome:
            train(chats, tmp_path, models, **asked)
        assert outcome.value.fact().code == "quantisation_missing"


@pytest.mark.usefixtures("without_bitsandbytes")
def test_fallback_is_taken_where_the_job_allows_it_and_is_recorded(
    chats: Path, tmp_path: Path, models: Path
) -> None:
    facts = train(chats, tmp_path, models, tuning="qlora", qlora_fallback=True, epochs=1)

    assert of_kind(facts, Started)[0].tuning == "lora"
    warnings = [line.message for line in of_kind(facts, LogLine) if line.level == "WARNING"]
    assert "trained with lora instead of qlora, as the job allows" in warnings[0]
