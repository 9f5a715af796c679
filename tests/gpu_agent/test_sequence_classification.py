"""The recipe on a tiny model: its facts, its arithmetic, its adapter, and going on from a checkpoint."""

import json
import math
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from domain.jobs.spec import Hyperparameters, JobSpec
from domain.work import (
    CheckpointWritten,
    EpochDone,
    Fact,
    LogLine,
    Started,
    StepDone,
    TrainAssignment,
    TrainingFinished,
)
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.classifier import add_lora, load_adapter, load_base, logits
from gpu_agent.data import Tokens, epoch_batches, read_splits, tokenise
from gpu_agent.outcomes import CheckpointUnreadable
from gpu_agent.precision import PrecisionUnfit
from gpu_agent.recipes import sequence_classification as recipe
from gpu_agent.schedule import LossNotFinite, learning_rate
from tests.gpu_agent import tiny
from tests.gpu_agent.tiny import of_kind


def run(
    job: JobSpec, data: Path, work_dir: Path, models_folder: Path, checkpoint: Path | None = None
) -> list[Fact]:
    order = tiny.train_order(job, data, work_dir, models_folder, checkpoint)
    assert isinstance(order.assignment, TrainAssignment)
    return list(recipe.train(order, order.assignment))


def adapter_of(facts: list[Fact]) -> dict[str, bytes]:
    finished = facts[-1]
    assert isinstance(finished, TrainingFinished)
    return tiny.adapter_bytes(finished.folder)


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def facts(data: Path, work_dir: Path, models_folder: Path) -> list[Fact]:
    return run(tiny.spec(data), data, work_dir, models_folder)


@pytest.fixture(scope="module")
def checkpoints(facts: list[Fact]) -> dict[int, Path]:
    return {fact.step: Path(fact.folder) for fact in of_kind(facts, CheckpointWritten)}


@pytest.fixture(scope="module")
def tokens(data: Path, models_folder: Path) -> Tokens:
    """Those of the training rows."""
    tokenizer = load_base(find_base_model(tiny.NAME, Places(models_folder)), 3, 0).tokenizer
    splits = read_splits(tiny.spec(data), data, None)
    return tokenise(tokenizer, [row.text for row in splits.train], 64)


def test_facts_tell_the_whole_run_in_order(facts: list[Fact]) -> None:
    started = of_kind(facts, Started)[0]
    finished = of_kind(facts, TrainingFinished)[0]

    assert (started.train_rows, started.validation_rows, started.test_rows) == (42, 6, 12)
    assert (started.total_steps, started.total_epochs, started.first_step) == (18, 3, 0)
    assert [fact.step for fact in of_kind(facts, StepDone)] == list(range(1, 19))
    assert [fact.epoch for fact in of_kind(facts, EpochDone)] == [1, 2, 3]
    assert [fact.step for fact in of_kind(facts, CheckpointWritten)] == [4, 6, 8, 12, 16, 18]
    assert finished is facts[-1]
    assert (finished.steps, finished.labels) == (18, tiny.LABELS)


def test_people_are_told_what_is_trained_on_what(facts: list[Fact]) -> None:
    said = " ".join(line.message for line in of_kind(facts, LogLine))

    assert "42 for training" in said
    assert "tiny-bert" in said
    assert "epoch 3 of 3" in said


def test_environment_names_what_the_bits_depend_on(facts: list[Fact]) -> None:
    environment = of_kind(facts, Started)[0].environment

    assert (environment.device, environment.threads) == ("cpu", 1)
    assert environment.packages["torch"] == torch.__version__


def test_training_learns(data: Path, tmp_path: Path, models_folder: Path) -> None:
    longer = run(tiny.spec(data, epochs=20, learning_rate=0.01), data, tmp_path, models_folder)

    epochs = of_kind(longer, EpochDone)
    assert epochs[0].train_loss > 0.8
    assert epochs[-1].train_loss < 0.4
    # To an encoder at random words are mere shapes: it learns its rows by heart, and no more.


def test_loss_of_an_epoch_is_the_mean_over_its_rows(facts: list[Fact], tokens: Tokens) -> None:
    losses = [fact.loss for fact in of_kind(facts, StepDone)][:6]
    sizes = [len(batch) for batch in epoch_batches(tokens.lengths, 8, seed=0, epoch=0)]

    assert sorted(sizes) == [2, 8, 8, 8, 8, 8]
    mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / 42
    assert of_kind(facts, EpochDone)[0].train_loss == pytest.approx(mean, rel=1e-12)


def test_trained_tokens_leave_padding_out(facts: list[Fact], tokens: Tokens) -> None:
    assert of_kind(facts, TrainingFinished)[0].trained_tokens == 3 * tokens.lengths.sum()


def test_learning_rate_rises_to_its_peak_and_falls_to_almost_nothing() -> None:
    config = Hyperparameters(learning_rate=0.1, warmup_ratio=0.2)

    rates = [learning_rate(step, 10, config) for step in range(10)]

    assert rates == pytest.approx([0.05, 0.1, *(0.1 * left / 8 for left in range(8, 0, -1))])


def test_same_job_gives_the_same_bytes(
    facts: list[Fact], data: Path, tmp_path: Path, models_folder: Path
) -> None:
    again = run(tiny.spec(data), data, tmp_path, models_folder)

    assert adapter_of(again) == adapter_of(facts)


def test_another_seed_gives_other_bytes(
    facts: list[Fact], data: Path, tmp_path: Path, models_folder: Path
) -> None:
    job = tiny.spec(data).model_copy(update={"seed": 1})

    assert adapter_of(run(job, data, tmp_path, models_folder)) != adapter_of(facts)


@pytest.mark.parametrize("step", [4, 6, 8, 16, 18])
def test_going_on_from_any_checkpoint_gives_the_same_bytes(
    step: int,
    facts: list[Fact],
    checkpoints: dict[int, Path],
    data: Path,
    tmp_path: Path,
    models_folder: Path,
) -> None:
    resumed = run(tiny.spec(data), data, tmp_path, models_folder, checkpoints[step])

    assert of_kind(resumed, Started)[0].first_step == step
    assert [fact.step for fact in of_kind(resumed, StepDone)] == list(range(step + 1, 19))
    assert adapter_of(resumed) == adapter_of(facts)
    ends = [of_kind(run_, TrainingFinished)[0] for run_ in (facts, resumed)]
    assert ends[0].final_loss == ends[1].final_loss
    assert ends[0].trained_tokens == ends[1].trained_tokens
    assert ends[0].validation_accuracy == ends[1].validation_accuracy
    losses = [[fact.train_loss for fact in of_kind(run_, EpochDone)] for run_ in (facts, resumed)]
    assert losses[1] == losses[0][3 - len(losses[1]) :]


@pytest.mark.parametrize("left_out", ["random state", "optimizer", "place in the data"])
def test_without_one_part_of_the_state_the_bytes_differ(
    left_out: str,
    facts: list[Fact],
    checkpoints: dict[int, Path],
    data: Path,
    tmp_path: Path,
    models_folder: Path,
) -> None:
    spoiled = tmp_path / "step-000008"
    spoiled.mkdir()
    tensors = load_file(checkpoints[8] / "tensors.safetensors")
    state = json.loads((checkpoints[8] / "state.json").read_bytes())
    if left_out == "random state":
        tensors["rng.cpu"] = torch.Generator().manual_seed(0).get_state()
    elif left_out == "optimizer":
        moments = [name for name in tensors if name.startswith("optimizer.exp_avg.")]
        tensors |= {name: torch.zeros_like(tensors[name]) for name in moments}
    else:
        state["step"] -= 1
    save_file(tensors, spoiled / "tensors.safetensors")
    (spoiled / "state.json").write_text(json.dumps(state), encoding="utf-8")

    resumed = run(tiny.spec(data), data, tmp_path, models_folder, spoiled)

    assert adapter_of(resumed) != adapter_of(facts)


def test_checkpoint_of_another_network_is_an_outcome(
    checkpoints: dict[int, Path], data: Path, tmp_path: Path, models_folder: Path
) -> None:
    wider = tiny.spec(data, lora=tiny.LoraConfig(rank=4))

    with pytest.raises(CheckpointUnreadable):
        run(wider, data, tmp_path, models_folder, checkpoints[4])


def test_loss_that_is_not_a_number_is_an_outcome(
    data: Path, tmp_path: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recipe.cross_entropy
    monkeypatch.setattr(recipe, "cross_entropy", lambda *a, **n: whole(*a, **n) * math.nan)

    with pytest.raises(LossNotFinite, match="step 1 is nan") as outcome:
        run(tiny.spec(data), data, tmp_path, models_folder)

    assert outcome.value.fact().code == "loss_not_finite"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_peft_reads_the_adapter(facts: list[Fact], work_dir: Path, models_folder: Path) -> None:
    files = find_base_model(tiny.NAME, Places(models_folder))
    base = load_base(files, 3, 0)
    tokens = tokenise(base.tokenizer, ["more soup", "I like fog"], 64)
    ours = add_lora(base, files, tiny.LoraConfig(dropout=0.1), 0)
    load_adapter(work_dir / "adapter", ours)

    bare = AutoModelForSequenceClassification.from_pretrained(files.path, num_labels=3)
    theirs = peft.PeftModel.from_pretrained(bare, work_dir / "adapter")

    assert torch.equal(logits(theirs, tokens), logits(ours, tokens))


def test_adapter_folder_names_no_place_on_this_machine(work_dir: Path) -> None:
    config = json.loads((work_dir / "adapter" / "adapter_config.json").read_bytes())

    assert config["base_model_name_or_path"] == tiny.NAME
    assert str(work_dir.parent) not in json.dumps(config)
    assert json.loads((work_dir / "adapter" / "labels.json").read_bytes()) == list(tiny.LABELS)


def test_model_without_the_named_layers_gets_lora_on_every_linear_one(models_folder: Path) -> None:
    files = find_base_model(tiny.NAME, Places(models_folder))

    model = add_lora(load_base(files, 3, 0), files, tiny.LoraConfig(target_modules=("q_proj",)), 0)

    with_lora = [name for name, _ in model.named_modules() if name.endswith("lora_A.default")]
    assert len(with_lora) == 2 * 6  # four of attention and two of the feed-forward part, by layer


def test_matrices_in_bfloat16_learn_almost_the_same(
    facts: list[Fact], data: Path, tmp_path: Path, models_folder: Path
) -> None:
    halved = run(tiny.spec(data, precision="bf16"), data, tmp_path, models_folder)

    assert of_kind(facts, Started)[0].precision == "float32"
    assert of_kind(halved, Started)[0].precision == "bfloat16"
    losses = [[fact.loss for fact in of_kind(each, StepDone)] for each in (facts, halved)]
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)  # two and a half digits
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_precision_that_the_device_lacks_is_an_outcome(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    with pytest.raises(PrecisionUnfit, match="needs a CUDA device") as outcome:
        run(tiny.spec(data, precision="fp16"), data, tmp_path, models_folder)

    assert outcome.value.fact().code == "precision_unfit"


def test_rows_are_shuffled_whatever_their_lengths_if_asked(
    facts: list[Fact], data: Path, tmp_path: Path, models_folder: Path
) -> None:
    mixed = run(tiny.spec(data, group_by_length=False), data, tmp_path, models_folder)

    assert len(of_kind(mixed, StepDone)) == len(of_kind(facts, StepDone))
    assert adapter_of(mixed) != adapter_of(facts)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_other_forms_of_lora_are_peft_s_own(
    data: Path, tmp_path: Path, models_folder: Path
) -> None:
    lora = tiny.LoraConfig(dropout=0.1, rslora=True, dora=True)
    run(tiny.spec(data, lora=lora, epochs=1), data, tmp_path, models_folder)
    files = find_base_model(tiny.NAME, Places(models_folder))

    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    bare = AutoModelForSequenceClassification.from_pretrained(files.path, num_labels=3)
    theirs = peft.PeftModel.from_pretrained(bare, tmp_path / "adapter")
    base = load_base(files, 3, 0)
    ours = add_lora(base, files, lora, 0)
    load_adapter(tmp_path / "adapter", ours)

    assert (config["use_dora"], config["use_rslora"]) == (True, True)
    tokens = tokenise(base.tokenizer, ["more soup", "I like fog"], 64)
    assert torch.equal(logits(theirs, tokens), logits(ours, tokens))
