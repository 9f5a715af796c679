"""Supervised fine-tuning of tiny language models: facts, arithmetic against Trainer's, and going on after a kill."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from domain.datasets.conversations import Conversation, Message
from domain.jobs.spec import JobSpec, LoraConfig
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
from gpu_agent import language_model, packing
from gpu_agent.checkpoints import LoopState
from gpu_agent.data import read_conversation_splits, shuffled_batches
from gpu_agent.language_model import LanguageModel
from gpu_agent.learner import MICRO_BATCH_TOKENS
from gpu_agent.loop import Plan, add_gradients
from gpu_agent.lora import add_lora, install, read_lora_weights, use
from gpu_agent.outcomes import DataUnreadable
from gpu_agent.packing import row_by_row
from gpu_agent.recipes import sft
from gpu_agent.recipes.sft import Answers
from gpu_agent.rendering import Rendered, render
from gpu_agent.schedule import LossNotFinite
from gpu_agent.supervision import NothingSupervised
from tests.gpu_agent import babble, processes, tiny
from tests.gpu_agent.test_packing import row
from tests.gpu_agent.tiny import of_kind

STEPS = 27  # three epochs of nine


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("qwen3", "gemma2"):
        babble.write_model(folder / kind, kind, ends=True)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl", tiny.chat_rows())


@pytest.fixture
def model(models: Path) -> LanguageModel:
    return babble.load(models / "qwen3")


def run(
    job: JobSpec, data: Path, work_dir: Path, models: Path, checkpoint: Path | None = None
) -> list[Fact]:
    order = tiny.train_order(job, data, work_dir, models, checkpoint)
    assert isinstance(order.assignment, TrainAssignment)
    return list(sft.train(order, order.assignment))


def adapter_of(facts: list[Fact]) -> dict[str, bytes]:
    finished = facts[-1]
    assert isinstance(finished, TrainingFinished)
    return tiny.adapter_bytes(finished.folder)


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def facts(chats: Path, work_dir: Path, models: Path) -> list[Fact]:
    return run(tiny.sft_spec("qwen3", chats), chats, work_dir, models)


@pytest.fixture(scope="module")
def checkpoints(facts: list[Fact]) -> dict[int, Path]:
    return {fact.step: Path(fact.folder) for fact in of_kind(facts, CheckpointWritten)}


def test_facts_tell_the_whole_run_in_order(facts: list[Fact]) -> None:
    started = of_kind(facts, Started)[0]
    finished = of_kind(facts, TrainingFinished)[0]

    assert (started.train_rows, started.validation_rows, started.test_rows) == (42, 6, 12)
    assert (started.total_steps, started.total_epochs, started.first_step) == (STEPS, 3, 0)
    assert [fact.step for fact in of_kind(facts, StepDone)] == list(range(1, STEPS + 1))
    assert [fact.epoch for fact in of_kind(facts, EpochDone)] == [1, 2, 3]
    written = [fact.step for fact in of_kind(facts, CheckpointWritten)]
    assert written == [4, 8, 9, 12, 16, 18, 20, 24, 27]
    assert finished is facts[-1]
    assert (finished.steps, finished.labels) == (STEPS, ())
    assert {path.name for path in Path(finished.folder).iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_start_says_what_the_base_model_was(facts: list[Fact], models: Path) -> None:
    started = of_kind(facts, Started)[0]

    assert started.base_model == babble.load(models / "qwen3").files.record(
        started.total_parameters - started.trainable_parameters
    )
    assert started.base_model_folder is None  # it was not made here


def test_supervision_is_counted_before_the_first_step(
    facts: list[Fact], chats: Path, model: LanguageModel
) -> None:
    found = of_kind(facts, Started)[0].supervision
    splits = read_conversation_splits(tiny.sft_spec("qwen3", chats), chats, None)
    rows = [render(model.tokenizer, each, 256) for each in splits.train]

    assert (found.rows, found.truncated_rows, found.dropped_rows) == (42, 0, 0)
    assert found.tokens == sum(len(each.ids) for each in rows)
    assert found.supervised_tokens == sum(each.targets for each in rows)
    assert found.longest_row == max(each.full_length for each in rows)
    batches = shuffled_batches(42, 5, seed=0, epoch=0)
    padded = sum(len(batch) * max(len(rows[at].ids) for at in batch) for batch in batches)
    assert found.padding_share == pytest.approx(1 - found.tokens / padded)
    answers = {f"{label}<|end|>" for label in tiny.LABELS}
    assert {part.text for part in found.example if part.supervised} & answers
    assert of_kind(facts, TrainingFinished)[0].trained_tokens == 3 * found.tokens


def test_people_are_told_what_is_learned_from_what(facts: list[Fact]) -> None:
    said = "\n".join(line.message for line in of_kind(facts, LogLine))

    assert "42 for training, 6 for validation, 12 held out" in said
    assert "parameters in float32" in said
    assert "the loss is taken over" in said
    assert "<|assistant|>⟦" in said
    assert "epoch 3 of 3" in said


def test_loss_of_an_epoch_is_the_mean_over_its_supervised_tokens(
    facts: list[Fact], chats: Path, model: LanguageModel
) -> None:
    splits = read_conversation_splits(tiny.sft_spec("qwen3", chats), chats, None)
    targets = [render(model.tokenizer, each, 256).targets for each in splits.train]
    losses = [fact.loss for fact in of_kind(facts, StepDone)][:9]
    batches = shuffled_batches(42, 5, seed=0, epoch=0)

    weights = [sum(targets[at] for at in batch) for batch in batches]
    mean = sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)
    assert of_kind(facts, EpochDone)[0].train_loss == pytest.approx(mean, rel=1e-12)


def test_training_learns(facts: list[Fact]) -> None:
    epochs = of_kind(facts, EpochDone)

    assert epochs[-1].validation_loss < epochs[0].validation_loss - 0.5
    assert epochs[-1].train_loss < epochs[0].train_loss - 0.5
    assert epochs[-1].validation_accuracy > 0.2  # of tokens; one in 260 by chance


def answers(
    model: LanguageModel,
    train: Sequence[Rendered] = (),
    validation: Sequence[Rendered] = (),
    *,
    together: bool = False,
) -> Answers:
    return Answers(model, train, validation, plan_of(), together)


def plan_of(folder: Path = Path("none"), **changes: Any) -> Plan:
    hyperparameters = tiny.sft_spec("qwen3", Path(__file__), **changes).hyperparameters
    return Plan(hyperparameters, 0, "float32", MICRO_BATCH_TOKENS, folder)


def steps_over(
    model: LanguageModel, rows: list[Rendered], folder: Path, **changes: Any
) -> tuple[list[float], LoopState]:
    """Train on rendered rows in one batch a step, without dropout; the losses and the end."""
    values = {"batch_size": len(rows), "checkpoint_every": 1000, "warmup_ratio": 0.0}
    plan = plan_of(folder, dropout=0.0, **(values | changes))
    weights = add_lora(model, plan.config.lora, seed=0)
    running = sft.steps(model, weights, rows, (), plan)
    losses = []
    while True:
        try:
            fact = next(running)
        except StopIteration as end:
            return losses, end.value
        if isinstance(fact, StepDone):
            losses.append(fact.loss)


def test_model_memorises_one_sentence(model: LanguageModel, tmp_path: Path) -> None:
    asked = Message("user", "Say it.", supervised=False)
    sentence = Message("assistant", "Colourless green ideas sleep.", supervised=True)
    learned = render(model.tokenizer, Conversation(1, (asked, sentence)), 256)

    lora = LoraConfig(rank=16, alpha=32.0, target_modules=("all-linear",))
    losses, _ = steps_over(
        model, [learned] * 120, tmp_path, epochs=1, batch_size=1, learning_rate=0.01, lora=lora
    )

    assert losses[0] > 4
    # A frozen head of 32 dimensions, at random, can be no surer than this.
    assert losses[-1] < 0.2
    assert answers(model, validation=[learned]).measure().accuracy == 1.0


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(model: LanguageModel) -> None:
    torch.nn.init.zeros_(model.network.get_output_embeddings().weight)

    loss = answers(model, validation=[row(12, seed=1), row(30, seed=2)]).measure().loss

    assert loss == pytest.approx(math.log(model.network.config.vocab_size), rel=1e-6)


def gradients(
    model: LanguageModel, rows: list[Rendered], tokens: int = MICRO_BATCH_TOKENS
) -> tuple[float, list[torch.Tensor]]:
    weights = add_lora(model, LoraConfig(rank=4, target_modules=("all-linear",)), seed=0)
    for name, weight in weights.items():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, 0.02)
    with row_by_row(model.network) as together:
        objective = answers(model, rows, together=together)
        loss = add_gradients(objective, rows, tokens)
    return loss, [weight.grad.clone() for weight in weights.values() if weight.grad is not None]


@pytest.mark.parametrize(("tokens", "logits"), [(16, 1 << 26), (1, 1 << 26), (1024, 5000)])
def test_micro_batches_add_up_to_the_whole_batch(
    tokens: int, logits: int, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(length, seed=length, supervised=length // 2) for length in (9, 30, 4, 17, 25)]
    loss, whole = gradients(babble.load(models / "qwen3"), rows)

    monkeypatch.setattr(packing, "LOGITS", logits)
    loss_of_parts, parts = gradients(babble.load(models / "qwen3"), rows, tokens)

    assert loss_of_parts == pytest.approx(loss, rel=1e-6)
    assert len(parts) == len(whole) == 28
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, parts, strict=True))


def test_two_half_batches_equal_one_whole(models: Path) -> None:
    rows = [row(length, seed=length) for length in (11, 11, 23, 23)]  # equally many to learn from

    whole = gradients(babble.load(models / "qwen3"), rows)
    halves = [gradients(babble.load(models / "qwen3"), rows[at::2]) for at in (0, 1)]

    assert whole[0] == pytest.approx((halves[0][0] + halves[1][0]) / 2, rel=1e-6)
    means = [(a + b) / 2 for a, b in zip(halves[0][1], halves[1][1], strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole[1], means, strict=True))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_loss_curve_is_that_of_trainer_on_the_same_batches(
    models: Path, model: LanguageModel, tmp_path: Path
) -> None:
    rows = [row(length, seed=at, supervised=length // 2) for at, length in enumerate(range(6, 46))]
    epochs, batch_size = 2, 8
    order = [
        rows[at]
        for epoch in range(epochs)
        for batch in shuffled_batches(len(rows), batch_size, 0, epoch)
        for at in batch
    ]
    lora = LoraConfig(rank=4, alpha=8.0, dropout=0.0, target_modules=("all-linear",))
    theirs = _trainer_losses(models / "qwen3", order, lora, batch_size, tmp_path)

    ours, _ = steps_over(
        model, rows, tmp_path, epochs=epochs, batch_size=batch_size, weight_decay=0.0, lora=lora
    )

    assert len(ours) == len(theirs) == 10
    assert ours[0] - ours[-1] > 0.3
    assert ours == pytest.approx(theirs, abs=1e-3)  # in nats; sums are taken in another order


def _trainer_losses(
    base: Path, order: list[Rendered], lora: LoraConfig, batch_size: int, folder: Path
) -> list[float]:
    """Train the same adapter by transformers' Trainer over peft, on padded batches of full logits."""
    losses: list[float] = []

    class Watched(Trainer):  # type: ignore[misc]
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss = super().compute_loss(*given, **named)
            losses.append(loss.item())
            return loss

    def padded(batch: list[Rendered]) -> dict[str, torch.Tensor]:
        longest = max(len(each.ids) for each in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.int64)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for at, each in enumerate(batch):
            length, learned = len(each.ids), torch.tensor(each.supervised)
            ids[at, :length], mask[at, :length] = torch.tensor(each.ids), 1
            labels[at, :length][learned] = ids[at, :length][learned]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    network = peft.get_peft_model(bare, config)
    ours = add_lora(babble.load(base), lora, seed=0)
    peft.set_peft_model_state_dict(network, {name: weight.data for name, weight in ours.items()})
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=batch_size,
        num_train_epochs=1,
        learning_rate=0.01,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    Watched(model=network, args=arguments, train_dataset=order, data_collator=padded).train()
    return losses


def test_same_job_gives_the_same_bytes(
    facts: list[Fact], chats: Path, tmp_path: Path, models: Path
) -> None:
    again = run(tiny.sft_spec("qwen3", chats), chats, tmp_path, models)

    assert adapter_of(again) == adapter_of(facts)


def test_another_seed_gives_other_bytes(
    facts: list[Fact], chats: Path, tmp_path: Path, models: Path
) -> None:
    job = tiny.sft_spec("qwen3", chats).model_copy(update={"seed": 1})

    assert adapter_of(run(job, chats, tmp_path, models)) != adapter_of(facts)


@pytest.mark.parametrize("step", [4, 9, 16, 27])
def test_going_on_from_any_checkpoint_gives_the_same_bytes(
    step: int,
    facts: list[Fact],
    checkpoints: dict[int, Path],
    chats: Path,
    tmp_path: Path,
    models: Path,
) -> None:
    resumed = run(tiny.sft_spec("qwen3", chats), chats, tmp_path, models, checkpoints[step])

    assert of_kind(resumed, Started)[0].first_step == step
    assert [fact.step for fact in of_kind(resumed, StepDone)] == list(range(step + 1, STEPS + 1))
    assert adapter_of(resumed) == adapter_of(facts)
    ends = [of_kind(each, TrainingFinished)[0] for each in (facts, resumed)]
    assert ends[0].final_loss == ends[1].final_loss
    assert ends[0].trained_tokens == ends[1].trained_tokens
    assert ends[0].validation_accuracy == ends[1].validation_accuracy


@pytest.mark.parametrize("left_out", ["random state", "optimizer", "place in the data"])
def test_without_one_part_of_the_state_the_bytes_differ(
    left_out: str,
    facts: list[Fact],
    checkpoints: dict[int, Path],
    chats: Path,
    tmp_path: Path,
    models: Path,
) -> None:
    spoiled = tmp_path / "step-000016"
    spoiled.mkdir()
    tensors = load_file(checkpoints[16] / "tensors.safetensors")
    state = json.loads((checkpoints[16] / "state.json").read_bytes())
    if left_out == "random state":
        tensors["rng.cpu"] = torch.Generator().manual_seed(0).get_state()
    elif left_out == "optimizer":
        moments = [name for name in tensors if name.startswith("optimizer.exp_avg.")]
        tensors |= {name: torch.zeros_like(tensors[name]) for name in moments}
    else:
        state["step"] -= 1
    save_file(tensors, spoiled / "tensors.safetensors")
    (spoiled / "state.json").write_text(json.dumps(state), encoding="utf-8")

    resumed = run(tiny.sft_spec("qwen3", chats), chats, tmp_path, models, spoiled)

    assert adapter_of(resumed) != adapter_of(facts)


WIDE = LoraConfig(rank=128, alpha=8.0, dropout=0.1, target_modules=("all-linear",))
WAYS: dict[str, dict[str, Any]] = {
    # Eight bits are kept of tensors with 4096 elements and more.
    "8-bit states": {"optimizer": "adamw_8bit", "lora": WIDE},
    "4-bit base": {"tuning": "qlora"},
    "DoRA": {"lora": WIDE.model_copy(update={"rank": 4, "dora": True, "rslora": True})},
    "little memory": {"gradient_checkpointing": True, "micro_batch_tokens": 64},
    "best epoch": {"keep_best": True, "early_stopping_patience": 1, "schedule": "cosine"},
}


@pytest.mark.parametrize("way", list(WAYS))
def test_going_on_gives_the_same_bytes_in_every_way_to_train(
    way: str, chats: Path, tmp_path: Path, models: Path
) -> None:
    job = tiny.sft_spec("qwen3", chats, epochs=2, **WAYS[way])
    whole = run(job, chats, tmp_path / "whole", models)
    taken = {fact.step: Path(fact.folder) for fact in of_kind(whole, CheckpointWritten)}

    resumed = run(job, chats, tmp_path / "resumed", models, taken[12])

    assert of_kind(resumed, Started)[0].first_step == 12
    assert adapter_of(resumed) == adapter_of(whole)
    if way == "8-bit states":
        kept = load_file(taken[12] / "tensors.safetensors")
        assert torch.uint8 in {value.dtype for name, value in kept.items() if "state1" in name}


@pytest.mark.slow
def test_child_killed_at_random_steps_goes_on_to_the_same_bytes(
    chats: Path, tmp_path: Path, models: Path
) -> None:
    job = tiny.sft_spec("qwen3", chats, epochs=12)  # 108 steps: none is over before it is killed
    whole = run(job, chats, tmp_path / "whole", models)
    drawn = random.Random(3)
    checkpoint = None
    for attempt in ("first", "second"):
        done = int(checkpoint.name.split("-")[1]) if checkpoint else 0
        until = done + drawn.randint(5, 30)
        order = tiny.train_order(job, chats, tmp_path / attempt, models, checkpoint)
        with processes.started("gpu_agent.child", order) as child:
            for fact in processes.facts_of(child):
                if isinstance(fact, StepDone) and fact.step == until:
                    child.kill()
            assert child.wait(processes.TIME_LIMIT_S) == -9
        checkpoint = max((tmp_path / attempt / "checkpoints").glob("step-??????"))

    order = tiny.train_order(job, chats, tmp_path / "last", models, checkpoint)
    resumed, status = processes.run(order)

    assert status == 0
    assert 8 <= of_kind(resumed, Started)[0].first_step < 108
    assert adapter_of(resumed) == adapter_of(whole)


def test_adapter_answers_as_its_training_ended(
    facts: list[Fact], chats: Path, model: LanguageModel
) -> None:
    splits = read_conversation_splits(tiny.sft_spec("qwen3", chats), chats, None)
    validation = [render(model.tokenizer, each, 256) for each in splits.validation]

    install(model)
    use(model, read_lora_weights(Path(of_kind(facts, TrainingFinished)[0].folder), model))
    measured = answers(model, validation=validation).measure()

    last = of_kind(facts, EpochDone)[-1]
    assert measured.loss == pytest.approx(last.validation_loss, abs=1e-5)
    assert measured.accuracy == last.validation_accuracy


def test_model_that_cannot_be_packed_trains_one_row_at_a_time(
    chats: Path, tmp_path: Path, models: Path
) -> None:
    said = run(tiny.sft_spec("gemma2", chats, epochs=1), chats, tmp_path, models)

    warnings = [line.message for line in of_kind(said, LogLine) if line.level == "WARNING"]
    assert len(warnings) == 1
    assert "one at a time" in warnings[0]
    losses = [fact.loss for fact in of_kind(said, StepDone)]
    assert losses[-1] < losses[0]


def test_adapter_stays_in_float32_over_a_base_in_bfloat16(
    chats: Path,
    facts: list[Fact],
    tmp_path: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(language_model, "precision", lambda *_: torch.bfloat16)

    said = run(tiny.sft_spec("qwen3", chats), chats, tmp_path, models)

    assert "parameters in bfloat16" in "\n".join(line.message for line in of_kind(said, LogLine))
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert not any("one at a time" in line.message for line in of_kind(said, LogLine))
    losses = [[fact.loss for fact in of_kind(each, StepDone)] for each in (facts, said)]
    assert losses[1] != losses[0]
    assert losses[1] == pytest.approx(losses[0], abs=0.1)  # two and a half digits


@pytest.mark.parametrize(
    ("able", "hidden", "expected"),
    [
        ({"amx_bf16": True}, 512, torch.bfloat16),
        ({"avx512_bf16": True}, 512, torch.bfloat16),
        ({"amx_bf16": True}, 511, torch.float32),
        ({"avx512_f": True}, 4096, torch.float32),
    ],
)
def test_bfloat16_is_used_where_it_pays(
    able: dict[str, bool], hidden: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)

    assert language_model.precision(torch.device("cpu"), hidden) is expected


def test_rows_that_are_cut_short_are_counted(chats: Path, tmp_path: Path, models: Path) -> None:
    said = run(tiny.sft_spec("qwen3", chats, epochs=1, max_length=40), chats, tmp_path, models)

    started = of_kind(said, Started)[0]
    found = started.supervision
    assert 0 < found.dropped_rows < found.truncated_rows
    assert found.rows + found.dropped_rows == 42
    assert started.train_rows == found.rows
    warnings = [line.message for line in of_kind(said, LogLine) if line.level == "WARNING"]
    assert f"{found.truncated_rows} rows are longer than 40 tokens" in warnings[0]
    assert f"{found.dropped_rows} of them" in warnings[0]


def test_nothing_to_learn_from_is_an_outcome(chats: Path, tmp_path: Path, models: Path) -> None:
    with pytest.raises(NothingSupervised, match="none of the 42 training rows") as outcome:
        run(tiny.sft_spec("qwen3", chats, max_length=8), chats, tmp_path, models)

    assert outcome.value.fact().code == "nothing_supervised"
    assert not outcome.value.fact().retryable


def test_rows_whose_prompt_is_tested_are_left_out_and_counted(
    chats: Path, tmp_path: Path, models: Path
) -> None:
    test = tiny.write_chats(tmp_path / "test.jsonl", tiny.chat_rows()[:5])
    job = tiny.sft_spec("qwen3", chats, test, epochs=1)
    order = tiny.train_order(job, chats, tmp_path, models)
    order = order.model_copy(update={"files": order.files.model_copy(update={"test": test})})
    assert isinstance(order.assignment, TrainAssignment)

    said = list(sft.train(order, order.assignment))

    started = of_kind(said, Started)[0]
    assert started.test_rows == 5
    assert started.train_rows + started.validation_rows == 55
    warnings = [line.message for line in of_kind(said, LogLine) if line.level == "WARNING"]
    assert warnings[0].startswith("5 training rows were left out")


def test_training_file_that_is_all_tested_is_an_outcome(
    chats: Path, tmp_path: Path, models: Path
) -> None:
    job = tiny.sft_spec("qwen3", chats, chats)

    with pytest.raises(DataUnreadable, match="every prompt of it is in the test file"):
        read_conversation_splits(job, chats, chats)


def test_loss_that_is_not_a_number_is_an_outcome(
    chats: Path, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sft.cross_entropy
    monkeypatch.setattr(sft, "cross_entropy", lambda *a, **n: whole(*a, **n) * math.nan)

    with pytest.raises(LossNotFinite, match="step 1 is nan"):
        run(tiny.sft_spec("qwen3", chats), chats, tmp_path, models)
