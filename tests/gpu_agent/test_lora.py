"""Low-rank layers: what they compute, what they drop, and the files that peft reads too."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from domain.jobs.spec import ALL_LINEAR, LoraConfig
from gpu_agent.language_model import LanguageModel
from gpu_agent.lora import (
    InputDropout,
    LoraLinear,
    Pair,
    add_lora,
    install,
    read_lora_weights,
    save_lora,
    training_mode,
    use,
)
from gpu_agent.outcomes import BaseModelRefused, CheckpointUnreadable
from tests.gpu_agent import babble

CONFIG = LoraConfig(rank=4, alpha=8.0, dropout=0.1, target_modules=(ALL_LINEAR,))
IDS = torch.tensor([[5, 17, 101, 3, 64, 200, 9]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return babble.write_model(tmp_path_factory.mktemp("models") / "qwen", "qwen3")


@pytest.fixture
def model(base: Path) -> LanguageModel:
    return babble.load(base)


@torch.no_grad()
def logits(model: LanguageModel) -> torch.Tensor:
    result: torch.Tensor = model.network(IDS).logits
    return result


def adapted(model: LanguageModel, config: LoraConfig = CONFIG, seed: int = 0) -> None:
    """Lay an adapter over the network that says something else, as one does after training."""
    drawn = torch.Generator().manual_seed(seed)
    for name, weight in add_lora(model, config, seed).items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=drawn)


def test_new_adapter_changes_nothing_yet(model: LanguageModel) -> None:
    before = logits(model)

    weights = add_lora(model, CONFIG, seed=0)

    assert torch.equal(logits(model), before)
    assert len(weights) == 2 * 2 * 7  # A and B, two layers, seven linear ones in each
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_layer_adds_its_scaled_product() -> None:
    layer = LoraLinear(torch.nn.Linear(3, 2))
    a, b = torch.randn(4, 3), torch.randn(2, 4)
    x = torch.randn(5, 3)
    bare = layer(x)

    layer.pair = Pair(a, b, scale=2.0)

    assert torch.allclose(layer(x), bare + 2.0 * x @ a.T @ b.T, atol=1e-6)


def test_first_weights_depend_on_the_seed_alone(base: Path) -> None:
    first, again, other = (add_lora(babble.load(base), CONFIG, seed=seed) for seed in (1, 1, 2))

    assert all(torch.equal(first[name], again[name]) for name in first)
    a = next(name for name in first if "lora_A" in name)
    assert not torch.equal(first[a], other[a])
    assert first[a].abs().max() <= 32**-0.5  # kaiming uniform with a = √5, of 32 inputs


def test_output_head_is_left_out(model: LanguageModel) -> None:
    names = add_lora(model, CONFIG, seed=0)

    assert not any("lm_head" in name for name in names)


def test_layers_can_be_named(model: LanguageModel) -> None:
    names = add_lora(model, LoraConfig(target_modules=("q_proj", "mlp.up_proj")), seed=0)

    assert {name.split(".")[-3] for name in names} == {"q_proj", "up_proj"}


def test_layers_that_are_not_there_are_refused(model: LanguageModel) -> None:
    with pytest.raises(BaseModelRefused, match="no linear layers called query, value"):
        add_lora(model, LoraConfig(), seed=0)


def test_one_misspelt_layer_among_others_is_refused(model: LanguageModel) -> None:
    with pytest.raises(BaseModelRefused, match="no linear layers called v_porj"):
        add_lora(model, LoraConfig(target_modules=("q_proj", "v_porj")), seed=0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_reads_the_adapter(base: Path, model: LanguageModel, tmp_path: Path) -> None:
    adapted(model)
    ours = logits(model)

    save_lora(tmp_path, model, CONFIG)
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(bare, tmp_path).eval()

    with torch.no_grad():
        assert torch.equal(theirs(IDS).logits, ours)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("root", [False, True])
def test_adapter_of_peft_is_read(
    base: Path, model: LanguageModel, tmp_path: Path, root: bool
) -> None:
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        use_rslora=root,
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(bare, config).eval()
    theirs.save_pretrained(tmp_path)

    install(model)
    use(model, read_lora_weights(tmp_path, model))

    with torch.no_grad():
        assert torch.allclose(logits(model), theirs(IDS).logits, atol=1e-5)


def test_adapters_take_turns_over_one_network(base: Path, tmp_path: Path) -> None:
    said = {}
    for seed in (1, 2):
        model = babble.load(base)
        adapted(model, seed=seed)
        save_lora(tmp_path / str(seed), model, CONFIG)
        said[seed] = logits(model)

    model = babble.load(base)
    bare = logits(model)
    install(model)
    first, second = (read_lora_weights(tmp_path / str(seed), model) for seed in (1, 2))

    assert first.rank == 4
    for weights, expected in ((first, said[1]), (second, said[2]), (None, bare), (first, said[1])):
        use(model, weights)
        assert torch.equal(logits(model), expected)


def test_adapter_of_some_layers_leaves_the_others_bare(base: Path, tmp_path: Path) -> None:
    trained = babble.load(base)
    config = LoraConfig(rank=2, target_modules=("q_proj",))
    adapted(trained, config)
    save_lora(tmp_path, trained, config)

    model = babble.load(base)
    install(model)
    use(model, read_lora_weights(tmp_path, model))

    assert torch.equal(logits(model), logits(trained))
    assert json.loads((tmp_path / "adapter_config.json").read_bytes())["target_modules"] == [
        "q_proj"
    ]


def test_equal_weights_give_equal_bytes(base: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        model = babble.load(base)
        adapted(model)
        save_lora(tmp_path / name, model, CONFIG)

    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert str(base.parent) not in (tmp_path / "a" / "adapter_config.json").read_text()


@pytest.mark.parametrize(
    "damage", ["rank", "missing half", "unknown layer", "other", "dora", "none"]
)
def test_adapter_that_does_not_fit_is_an_outcome(
    damage: str, model: LanguageModel, tmp_path: Path
) -> None:
    adapted(model)
    save_lora(tmp_path, model, CONFIG)
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    tensors, content = load_file(weights), json.loads(config.read_bytes())
    first = min(tensors)
    if damage == "rank":
        content["r"] = 8
    elif damage == "missing half":
        del tensors[first]
    elif damage == "unknown layer":
        tensors[first.replace("layers.0", "layers.9")] = tensors.pop(first)
    elif damage == "other":
        tensors["base_model.model.lm_head.weight"] = torch.zeros(2)
    elif damage == "dora":
        content["use_dora"] = True
    save_file(tensors, weights)
    config.write_text(json.dumps(content))
    if damage == "none":
        config.unlink()

    with pytest.raises(CheckpointUnreadable):
        read_lora_weights(tmp_path, model)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropping = InputDropout(0.3)
    dropping.active = True
    x = torch.ones(1000, 100, requires_grad=True)

    dropped = dropping(x)
    dropped.sum().backward()

    zero = dropped == 0
    assert zero.double().mean().item() == pytest.approx(0.3, abs=0.005)  # 3.5 standard deviations
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropped[~zero], torch.full_like(dropped[~zero], 1 / 0.7))
    assert torch.equal(x.grad, dropped.detach())  # what was dropped learns nothing


def test_dropout_takes_what_lies_across_memory_too() -> None:
    dropping = InputDropout(0.3)
    dropping.active = True
    across = torch.arange(1.0, 25.0).view(2, 3, 4).transpose(1, 2).requires_grad_()
    torch.manual_seed(0)
    dropped = dropping(across)
    torch.manual_seed(0)
    expected = dropping(across.detach().contiguous())

    dropped.sum().backward()

    assert torch.equal(dropped, expected)
    assert across.grad is not None
    assert torch.equal(across.grad != 0, expected != 0)


def test_nothing_is_dropped_but_in_training(model: LanguageModel) -> None:
    adapted(model)
    quiet = logits(model)

    training_mode(model, on=True)
    noisy = logits(model)
    training_mode(model, on=False)

    assert not torch.equal(noisy, quiet)
    assert torch.equal(logits(model), quiet)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_computes_the_same_by_the_same_files(
    rslora: bool, dora: bool, base: Path, model: LanguageModel, tmp_path: Path
) -> None:
    config = LoraConfig(rank=4, alpha=8.0, target_modules=(ALL_LINEAR,), rslora=rslora, dora=dora)
    changed(model, config)
    save_lora(tmp_path, model, config)
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    theirs = peft.PeftModel.from_pretrained(bare, tmp_path).eval()

    with torch.no_grad():
        said = theirs(input_ids=IDS).logits
    assert torch.allclose(logits(model), said, atol=1e-4)
    plain = LoraConfig(rank=4, alpha=8.0, target_modules=(ALL_LINEAR,))
    if rslora or dora:  # what is compared would not be equal by itself
        other = babble.load(base)
        changed(other, plain)
        assert not torch.allclose(logits(other), said, atol=1e-2)


def changed(model: LanguageModel, config: LoraConfig) -> None:
    drawn = torch.Generator().manual_seed(0)
    for name, weight in add_lora(model, config, seed=0).items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=drawn)
        if "magnitude" in name:
            noise = torch.empty_like(weight).uniform_(0.5, 1.5, generator=drawn)
            weight.data.mul_(noise)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_gradients_of_dora_are_those_of_peft(
    base: Path, model: LanguageModel, tmp_path: Path
) -> None:
    config = LoraConfig(rank=4, alpha=8.0, target_modules=(ALL_LINEAR,), dora=True)
    changed(model, config)
    save_lora(tmp_path, model, config)
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(bare, tmp_path, is_trainable=True).eval()

    model.network(input_ids=IDS).logits.square().mean().backward()
    theirs(input_ids=IDS).logits.square().mean().backward()

    expected = {
        name.replace(".default", "").removesuffix(".weight"): weight.grad
        for name, weight in theirs.named_parameters()
        if weight.requires_grad
    }
    layers = {f"base_model.model.{path}": layer.pair for path, layer in model.adaptable.items()}
    assert len(expected) == 3 * len(layers)
    for path, pair in layers.items():
        for name, ours in (
            ("lora_A", pair.a),
            ("lora_B", pair.b),
            ("lora_magnitude_vector", pair.magnitude),
        ):
            assert torch.allclose(ours.grad, expected[f"{path}.{name}"], atol=1e-4)


def test_dora_is_read_again_as_it_was_written(
    base: Path, model: LanguageModel, tmp_path: Path
) -> None:
    config = LoraConfig(rank=4, alpha=8.0, target_modules=(ALL_LINEAR,), dora=True, rslora=True)
    changed(model, config)
    save_lora(tmp_path, model, config)
    other = babble.load(base)

    install(other)
    use(other, read_lora_weights(tmp_path, other))

    assert torch.allclose(logits(other), logits(model), atol=1e-5)


def test_dora_without_the_lengths_of_its_rows_is_refused(
    model: LanguageModel, tmp_path: Path
) -> None:
    config = LoraConfig(rank=4, alpha=8.0, target_modules=(ALL_LINEAR,))
    changed(model, config)
    save_lora(tmp_path, model, config.model_copy(update={"dora": True}))

    with pytest.raises(CheckpointUnreadable, match="has no lengths for its rows"):
        read_lora_weights(tmp_path, babble.load(model.files.path))
