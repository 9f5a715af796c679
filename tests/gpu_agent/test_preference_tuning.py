"""DPO, ORPO, SimPO, KTO and GRPO on a tiny model: they learn, and go on after a stop to the same bytes."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from domain.datasets.conversations import Message
from domain.datasets.preferences import PreferencePair, RatedCompletion
from domain.jobs.spec import GrpoConfig, JobSpec, Method, PreferenceConfig
from domain.work import (
    CheckpointWritten,
    EpochDone,
    Fact,
    Started,
    StepDone,
    TrainAssignment,
    TrainingFinished,
)
from gpu_agent import packing
from gpu_agent.answer_sampling import sample_answers
from gpu_agent.data import RowSplits
from gpu_agent.language_model import LanguageModel
from gpu_agent.loop import Plan, add_gradients
from gpu_agent.lora import add_lora, without_adapter
from gpu_agent.packing import row_by_row
from gpu_agent.recipes import grpo, kto, preference
from gpu_agent.recipes.kto import Rated, Wanted
from gpu_agent.recipes.preference import Compared, Pair
from gpu_agent.rendering import render, render_pair
from gpu_agent.supervision import NothingSupervised
from tests.gpu_agent import babble, processes, tiny
from tests.gpu_agent.tiny import of_kind

BY_PAIRS: tuple[Method, ...] = ("dpo", "orpo", "simpo")
EVERY: tuple[Method, ...] = (*BY_PAIRS, "kto", "grpo")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    babble.write_model(folder / "qwen3", "qwen3", ends=True)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl", tiny.chat_rows())


@pytest.fixture
def model(models: Path) -> LanguageModel:
    return babble.load(models / "qwen3")


def question(text: str) -> tuple[Message, ...]:
    return (Message("user", text, supervised=False),)


def pairs() -> list[PreferencePair]:
    """One answer is better than the other, whatever was asked: so much a model at random can learn."""
    return [
        PreferencePair(line, question(text), "gladly", "never")
        for line, (text, _) in enumerate(tiny.rows(), start=1)
    ]


def ratings() -> list[RatedCompletion]:
    """Every other row has the worse answer, and is not wanted."""
    return [
        RatedCompletion(pair.line, pair.prompt, pair.chosen, desirable=True)
        if pair.line % 2
        else RatedCompletion(pair.line, pair.prompt, pair.rejected, desirable=False)
        for pair in pairs()
    ]


def job_of(method: Method, chats: Path, **changes: Any) -> JobSpec:
    """Each has dropout, so that something depends on the random state."""
    values: dict[str, Any] = {"checkpoint_every": 3, "batch_size": 8, "epochs": 2}
    if method == "grpo":
        # Half of what a model of random weights says is in the first half of the alphabet.
        values |= {
            "epochs": 1,
            "batch_size": 6,
            "grpo": GrpoConfig(
                group_size=4,
                max_new_tokens=4,
                reward="regular_expression",
                pattern=r"[\x00-\x60]",
                beta=0.05,
            ),
        }
    job = tiny.sft_spec("qwen3", chats, dropout=0.1, **(values | changes))
    return job.model_copy(update={"method": method})


def facts_of(
    job: JobSpec, chats: Path, folder: Path, models: Path, checkpoint: Path | None = None
) -> Iterator[Fact]:
    order = tiny.train_order(job, chats, folder, models, checkpoint)
    assert isinstance(order.assignment, TrainAssignment)
    if job.method == "grpo":
        yield from grpo.train(order, order.assignment)
    elif job.method == "kto":
        rows = ratings()
        rated = RowSplits(tuple(rows[:40]), tuple(rows[40:50]), tuple(rows[50:]))
        yield from kto.train(order, order.assignment, rated)
    else:
        compared = pairs()
        split = RowSplits(tuple(compared[:40]), tuple(compared[40:50]), tuple(compared[50:]))
        yield from preference.train(order, order.assignment, split)


def run(*args: Any) -> list[Fact]:
    return list(facts_of(*args))


def adapter_of(facts: list[Fact]) -> dict[str, bytes]:
    return tiny.adapter_bytes(of_kind(facts, TrainingFinished)[0].folder)


@dataclass(frozen=True)
class Whole:
    """A training from its first step to its last."""

    job: JobSpec
    facts: list[Fact]

    @property
    def checkpoints(self) -> dict[int, Path]:
        return {fact.step: Path(fact.folder) for fact in of_kind(self.facts, CheckpointWritten)}


@pytest.fixture(scope="module")
def whole(
    chats: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Method], Whole]:
    trained: dict[Method, Whole] = {}

    def of(method: Method) -> Whole:
        if method not in trained:
            job = job_of(method, chats)
            folder = tmp_path_factory.mktemp(method)
            trained[method] = Whole(job, run(job, chats, folder, models))
        return trained[method]

    return of


@pytest.mark.parametrize("method", EVERY)
def test_facts_tell_the_whole_run(method: Method, whole: Callable[[Method], Whole]) -> None:
    facts = whole(method).facts
    (started,) = of_kind(facts, Started)
    steps = [fact.step for fact in of_kind(facts, StepDone)]

    assert steps == list(range(1, started.total_steps + 1))
    assert len(of_kind(facts, EpochDone)) == started.total_epochs
    assert started.validation_rows > 0
    assert facts[-1] is of_kind(facts, TrainingFinished)[0]


@pytest.mark.parametrize("method", EVERY)
def test_going_on_gives_the_same_bytes(
    method: Method, whole: Callable[[Method], Whole], chats: Path, tmp_path: Path, models: Path
) -> None:
    first = whole(method)

    for step in (3, max(first.checkpoints)):
        resumed = run(first.job, chats, tmp_path / str(step), models, first.checkpoints[step])
        assert of_kind(resumed, Started)[0].first_step == step
        assert adapter_of(resumed) == adapter_of(first.facts)


@pytest.mark.parametrize("left_out", ["random state", "place in the data"])
@pytest.mark.parametrize("method", EVERY)
def test_without_one_part_of_the_state_the_bytes_differ(
    left_out: str,
    method: Method,
    whole: Callable[[Method], Whole],
    chats: Path,
    tmp_path: Path,
    models: Path,
) -> None:
    first = whole(method)
    spoiled = tmp_path / "step-000003"
    spoiled.mkdir()
    tensors = load_file(first.checkpoints[3] / "tensors.safetensors")
    state = json.loads((first.checkpoints[3] / "state.json").read_bytes())
    if left_out == "random state":
        tensors["rng.cpu"] = torch.Generator().manual_seed(0).get_state()
    else:
        state["step"] -= 1
    save_file(tensors, spoiled / "tensors.safetensors")
    (spoiled / "state.json").write_text(json.dumps(state), encoding="utf-8")

    resumed = run(first.job, chats, tmp_path, models, spoiled)

    assert adapter_of(resumed) != adapter_of(first.facts)


@pytest.mark.parametrize("method", EVERY)
def test_same_job_gives_the_same_bytes_and_another_seed_others(
    method: Method, whole: Callable[[Method], Whole], chats: Path, tmp_path: Path, models: Path
) -> None:
    first = whole(method)
    other = first.job.model_copy(update={"seed": 1})

    assert adapter_of(run(first.job, chats, tmp_path / "a", models)) == adapter_of(first.facts)
    assert adapter_of(run(other, chats, tmp_path / "b", models)) != adapter_of(first.facts)


@pytest.mark.parametrize("method", [*BY_PAIRS, "kto"])
def test_what_people_preferred_is_learned(
    method: Method, chats: Path, tmp_path: Path, models: Path
) -> None:
    job = job_of(method, chats, epochs=6, learning_rate=0.02)

    facts = run(job, chats, tmp_path, models)

    epochs = of_kind(facts, EpochDone)
    assert epochs[-1].train_loss < 0.9 * epochs[0].train_loss
    assert epochs[-1].validation_loss < epochs[0].validation_loss
    assert epochs[-1].validation_accuracy > 0.9


def test_dpo_begins_at_a_coins_toss(whole: Callable[[Method], Whole]) -> None:
    """The reference is the base itself, so that nothing has been gained before the first step."""
    assert of_kind(whole("dpo").facts, StepDone)[0].loss == pytest.approx(math.log(2), abs=1e-6)


def test_kto_begins_at_one_half(whole: Callable[[Method], Whole]) -> None:
    assert of_kind(whole("kto").facts, StepDone)[0].loss == pytest.approx(0.5, abs=1e-6)


def test_rewarded_answers_become_likelier(chats: Path, tmp_path: Path, models: Path) -> None:
    job = job_of("grpo", chats, epochs=4, learning_rate=0.05, batch_size=6)

    facts = run(job, chats, tmp_path, models)

    earned = [fact.validation_accuracy for fact in of_kind(facts, EpochDone)]
    assert earned[-1] > earned[0] or earned[0] == 1.0
    assert earned[-1] > 0.8


def objective_of(model: LanguageModel, method: Method, together: bool) -> tuple[Any, Any]:
    plan = Plan(
        job_of(method, Path(__file__)).hyperparameters.model_copy(
            update={"preference": PreferenceConfig(beta=0.3)}
        ),
        0,
        "float32",
        2048,
        Path(),
    )
    if method == "kto":
        rated = [
            Rated(row, render(model.tokenizer, row.answered(), 256), reference=-20.0)
            for row in ratings()[:6]
        ]
        wanted = Wanted(model, rated, (), 256, plan, together)
        return wanted, kto.Batch(rated, 0.5)
    compared = [
        Pair(render_pair(model.tokenizer, pair, 256), reference=(-20.0, -21.0))
        for pair in pairs()[:6]
    ]
    return Compared(model, compared, (), method, plan, together), compared


@pytest.mark.parametrize("method", [*BY_PAIRS, "kto"])
def test_parts_and_packing_change_nothing_but_rounding(method: Method, models: Path) -> None:
    found = {}
    for tokens, together in ((2048, False), (2048, True), (60, True), (1, True)):
        model = babble.load(models / "qwen3")
        weights = add_lora(model, job_of(method, Path(__file__)).hyperparameters.lora, seed=0)
        for name, weight in weights.items():
            if "lora_B" in name:
                torch.nn.init.constant_(weight, 0.02)
        with row_by_row(model.network) as packable:
            assert packable
            objective, batch = objective_of(model, method, together)
            loss = add_gradients(objective, batch, tokens)
        gradients = torch.cat([each.grad.flatten() for each in weights.values()])
        found[tokens, together] = (loss, gradients)

    first_loss, first = found.pop((2048, False))
    for loss, gradient in found.values():
        assert loss == pytest.approx(first_loss, rel=1e-4)
        assert torch.allclose(gradient, first, atol=1e-4)


def test_reference_is_the_base_without_its_adapter(model: LanguageModel) -> None:
    rows = [render(model.tokenizer, pair.answered()[0], 256) for pair in pairs()[:3]]
    bare = packing.answer_log_probs(model.network, rows, model.device, together=False)
    weights = add_lora(model, job_of("dpo", Path(__file__)).hyperparameters.lora, seed=0)
    for weight in weights.values():
        torch.nn.init.constant_(weight, 0.05)

    with without_adapter(model):
        within = packing.answer_log_probs(model.network, rows, model.device, together=False)
    after = packing.answer_log_probs(model.network, rows, model.device, together=False)

    assert torch.allclose(within, bare, atol=1e-5)
    assert not torch.allclose(after, bare, atol=1e-2)


def test_pairs_that_say_the_same_teach_nothing(chats: Path, tmp_path: Path, models: Path) -> None:
    same = PreferencePair(1, question("which one?"), "red", "red")
    order = tiny.train_order(job_of("dpo", chats), chats, tmp_path, models)
    assert isinstance(order.assignment, TrainAssignment)

    with pytest.raises(NothingSupervised):
        list(preference.train(order, order.assignment, RowSplits((same,), (), ())))


def test_sampled_answers_are_those_of_their_prompts_alone(model: LanguageModel) -> None:
    """Padding, and neighbours that end sooner, change nothing of the likeliest answer."""
    prompts = [tuple(range(40, 40 + length)) for length in (3, 9, 5)]

    together = sample_answers(model.network, prompts, model.eos_ids, 12, 1.0, seed=None)

    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = sample_answers(model.network, [prompt], model.eos_ids, 12, 1.0, seed=None)
        assert answer == alone


def test_samples_are_a_function_of_their_seed(model: LanguageModel) -> None:
    prompts = [tuple(range(40, 46))] * 4

    first, again, other = (
        sample_answers(model.network, prompts, model.eos_ids, 8, 1.0, seed) for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other
    assert len(set(first)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 5])
def test_child_killed_in_reinforcement_goes_on_to_the_same_bytes(
    step: int, whole: Callable[[Method], Whole], chats: Path, tmp_path: Path, models: Path
) -> None:
    first = whole("grpo")
    order = tiny.train_order(first.job, chats, tmp_path / "killed", models)
    with processes.started("gpu_agent.child", order) as child:
        for fact in processes.facts_of(child):
            if isinstance(fact, StepDone) and fact.step == step:
                child.kill()
    taken = max((tmp_path / "killed" / "checkpoints").glob("step-??????"))

    resumed, status = processes.run(
        tiny.train_order(first.job, chats, tmp_path / "resumed", models, taken)
    )

    assert status == 0
    assert of_kind(resumed, Started)[0].first_step == 3
    assert adapter_of(resumed) == adapter_of(first.facts)
