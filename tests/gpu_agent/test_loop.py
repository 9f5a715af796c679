"""The loop that all recipes share: memory that runs out, the best epoch, stopping early, arithmetic that breaks down."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from domain.jobs.spec import Hyperparameters
from domain.work import CheckpointWritten, EpochDone, Fact, LogLine, MicroBatchHalved, StepDone
from gpu_agent import loop
from gpu_agent.checkpoints import LoopState, read_state
from gpu_agent.loop import Measured, Plan, Rows
from gpu_agent.outcomes import StopAsked
from gpu_agent.schedule import (
    LossDiverged,
    LossNotFinite,
    ValidationMissing,
    learning_rate,
    require_validation,
)
from tests.gpu_agent.tiny import of_kind

TOO_MUCH = "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"
ROWS = 24


@dataclass
class Line:
    """Finds the weight of y = w x by least squares, with noise drawn from torch's generator; a row is a token."""

    weight: nn.Parameter = field(default_factory=lambda: nn.Parameter(torch.zeros(1)))
    validation: Sequence[float] = ()  # what it measures after each epoch, in turn
    room: int = 1000  # rows that memory holds at once
    spoil: Callable[[int, Tensor], Tensor] = lambda _, loss: loss
    noise: float = 0.1
    step: int = 0
    computed: list[int] = field(default_factory=list)  # rows of each part
    rows: int = ROWS

    def batches(self, epoch: int) -> Sequence[Rows]:
        return np.split(np.random.default_rng(epoch).permutation(ROWS), ROWS // 6)

    def prepare(self, rows: Rows, step: int) -> Rows:
        self.step = step
        return rows

    def parts(self, batch: Rows, tokens: int) -> Sequence[Rows]:
        return np.split(batch, range(tokens, len(batch), tokens))

    def terms(self, batch: Rows) -> int:
        return len(batch)

    def tokens(self, batch: Rows) -> int:
        return len(batch)

    def loss(self, part: Rows) -> Tensor:
        x = torch.from_numpy(part).float() / ROWS
        y = 3 * x + self.noise * torch.rand(len(part))
        if len(part) > self.room:
            raise RuntimeError(TOO_MUCH)
        self.computed.append(len(part))
        return self.spoil(self.step, ((self.weight * x - y) ** 2).sum())

    def measure(self) -> Measured:
        epoch = math.ceil((self.step + 1) / 4)
        if not self.validation:
            return Measured(None, None)
        return Measured(self.validation[epoch - 1], epoch / 10)

    def training(self, *, on: bool) -> None:
        pass


def plan(folder: Path, resume: Path | None = None, **changes: object) -> Plan:
    values: dict[str, object] = {
        "epochs": 5,
        "batch_size": 6,
        "learning_rate": 0.1,
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "checkpoint_every": 3,
    }
    config = Hyperparameters.model_validate(values | changes)
    return Plan(config, 0, "float32", 1000, folder, resume)


def run(line: Line, how: Plan) -> tuple[list[Fact], LoopState]:
    running = loop.steps(line, {"w": line.weight}, how)
    facts: list[Fact] = []
    while True:
        try:
            facts.append(next(running))
        except StopIteration as end:
            return facts, end.value


def test_memory_that_runs_out_halves_what_is_computed_at_once(tmp_path: Path) -> None:
    line = Line(room=2)

    facts, state = run(line, plan(tmp_path))

    halved = of_kind(facts, MicroBatchHalved)
    assert [(fact.step, fact.micro_batch_tokens) for fact in halved] == [(1, 3), (1, 1)]
    assert TOO_MUCH in halved[0].reason
    said = [line.message for line in of_kind(facts, LogLine) if line.level == "WARNING"]
    assert "memory ran out in step 1 with 1000 tokens at once; from here on 3" in said[0]
    assert state.micro_batch_tokens == 1
    assert set(line.computed) == {1}
    assert len(line.computed) == 5 * ROWS  # nothing was counted twice


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_every_way_to_say_that_memory_ran_out_is_understood(
    error: BaseException, tmp_path: Path
) -> None:
    line = Line()
    pending = [error]

    def spoil(step: int, loss: Tensor) -> Tensor:
        if step == 2 and pending:
            raise pending.pop()
        return loss

    line.spoil = spoil
    facts, _ = run(line, plan(tmp_path))

    assert [fact.step for fact in of_kind(facts, MicroBatchHalved)] == [3]


def test_smaller_parts_change_neither_the_batch_nor_what_is_drawn(tmp_path: Path) -> None:
    parted = Line(room=3)
    run(parted, plan(tmp_path / "parted"))
    from_the_start = Line()
    run(from_the_start, plan(tmp_path / "small", micro_batch_tokens=3))
    whole = Line(noise=0.0)
    run(whole, plan(tmp_path / "whole"))
    parts = Line(noise=0.0)
    run(parts, plan(tmp_path / "parts", micro_batch_tokens=2))

    assert torch.equal(parted.weight, from_the_start.weight)
    assert whole.weight.item() == pytest.approx(parts.weight.item(), rel=1e-5)


def test_memory_that_does_not_do_for_one_row_is_the_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        run(Line(room=0), plan(tmp_path))


def test_another_error_is_not_taken_for_want_of_memory(tmp_path: Path) -> None:
    def spoil(step: int, loss: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(Line(spoil=spoil), plan(tmp_path))


def test_run_that_goes_on_computes_as_little_at_once_as_before(tmp_path: Path) -> None:
    """Though memory would do by now: the bits depend on it."""
    line = Line(room=2)
    facts, _ = run(line, plan(tmp_path / "first"))
    taken = {fact.step: Path(fact.folder) for fact in of_kind(facts, CheckpointWritten)}

    again = Line()
    resumed, state = run(again, plan(tmp_path / "second", taken[9]))

    assert read_state(taken[9]).micro_batch_tokens == state.micro_batch_tokens == 1
    assert of_kind(resumed, MicroBatchHalved) == []
    assert set(again.computed) == {1}
    assert torch.equal(again.weight, line.weight)


def test_best_epoch_is_what_is_left(tmp_path: Path) -> None:
    line = Line(validation=[3.0, 1.0, 2.0, 4.0, 5.0])
    kept = Line(validation=[3.0, 1.0, 2.0, 4.0, 5.0])
    seen: dict[int, Tensor] = {}

    for fact in loop.steps(line, {"w": line.weight}, plan(tmp_path / "a")):
        if isinstance(fact, EpochDone):
            seen[fact.epoch] = line.weight.detach().clone()
    facts, state = run(kept, plan(tmp_path / "b", keep_best=True))

    assert torch.equal(kept.weight, seen[2])
    assert (state.best_step, state.best_loss, state.validation_accuracy) == (8, 1.0, 0.2)
    assert len(of_kind(facts, StepDone)) == 20


def test_best_epoch_is_known_to_a_run_that_goes_on(tmp_path: Path) -> None:
    losses = [3.0, 1.0, 2.0, 4.0, 5.0]
    kept = Line(validation=losses)
    facts, _ = run(kept, plan(tmp_path / "a", keep_best=True))
    taken = {fact.step: Path(fact.folder) for fact in of_kind(facts, CheckpointWritten)}

    again = Line(validation=losses)
    _, state = run(again, plan(tmp_path / "b", taken[15], keep_best=True))

    assert torch.equal(again.weight, kept.weight)
    assert state.best_step == 8


def test_last_epoch_is_what_is_left_if_nobody_asks_for_the_best(tmp_path: Path) -> None:
    line = Line(validation=[1.0, 2.0, 3.0, 4.0, 5.0])

    _, state = run(line, plan(tmp_path))

    assert state.best_step is None
    assert state.validation_accuracy == 0.5


def test_training_stops_once_epochs_bring_nothing_better(tmp_path: Path) -> None:
    line = Line(validation=[3.0, 1.0, 2.0, 1.5, 0.5])

    facts, state = run(line, plan(tmp_path, early_stopping_patience=2))

    assert state.step == 16
    said = [line.message for line in of_kind(facts, LogLine)]
    assert (
        "stopped after step 16 of 20: 2 epochs without a validation loss below 1.0000" in said[-1]
    )
    assert of_kind(facts, CheckpointWritten)[-1].step == 16


def test_run_that_had_stopped_early_does_not_go_on(tmp_path: Path) -> None:
    line = Line(validation=[3.0, 1.0, 2.0, 1.5, 0.5])
    facts, _ = run(line, plan(tmp_path / "a", early_stopping_patience=2))

    again = Line(validation=[3.0, 1.0, 2.0, 1.5, 0.5])
    last = Path(of_kind(facts, CheckpointWritten)[-1].folder)
    resumed, _ = run(again, plan(tmp_path / "b", last, early_stopping_patience=2))

    assert of_kind(resumed, StepDone) == []
    assert torch.equal(again.weight, line.weight)


def test_best_epoch_cannot_be_found_without_validation_rows() -> None:
    for asked in ({"keep_best": True}, {"early_stopping_patience": 1}):
        config = Hyperparameters.model_validate(asked)
        require_validation(config, 1)
        with pytest.raises(ValidationMissing, match="validation_fraction") as outcome:
            require_validation(config, 0)
        assert outcome.value.fact().code == "validation_missing"
    require_validation(Hyperparameters(), 0)


def test_last_good_checkpoint_is_named_when_the_arithmetic_breaks_down(tmp_path: Path) -> None:
    told: list[Fact] = []
    line = Line(spoil=lambda step, loss: loss * math.nan if step == 10 else loss)

    with pytest.raises(LossNotFinite) as outcome:
        told.extend(loop.steps(line, {"w": line.weight}, plan(tmp_path)))

    assert str(outcome.value) == (
        "the loss of step 11 is nan; try a smaller learning rate; the training checkpoint of step 9 "
        "is kept"
    )
    last = of_kind(told, CheckpointWritten)[-1]
    assert last.step == 9
    assert read_state(Path(last.folder)).step == 9


def test_loss_that_rises_far_above_its_beginning_is_the_end(tmp_path: Path) -> None:
    line = Line(spoil=lambda step, loss: loss * (1 + max(0, step - 20) * 50))
    told: list[Fact] = []

    with pytest.raises(LossDiverged, match="the loss has risen from") as outcome:
        told.extend(loop.steps(line, {"w": line.weight}, plan(tmp_path, epochs=20)))

    assert outcome.value.fact().code == "loss_diverged"
    assert 20 < of_kind(told, StepDone)[-1].step < 40
    assert "the training checkpoint of step" in str(outcome.value)


def test_loss_that_jumps_once_is_not_the_end(tmp_path: Path) -> None:
    line = Line(spoil=lambda step, loss: loss * (10 if step == 30 else 1))

    _, state = run(line, plan(tmp_path, epochs=10))

    assert state.step == 40


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [1.0] * 8),
        ("cosine", [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]),
    ],
)
def test_rate_follows_its_schedule_behind_the_warm_up(schedule: str, expected: list[float]) -> None:
    config = Hyperparameters.model_validate(
        {"learning_rate": 1.0, "warmup_ratio": 0.2, "schedule": schedule}
    )

    rates = [learning_rate(step, 10, config) for step in range(10)]

    assert rates == pytest.approx([0.5, 1.0, *expected])


def test_scale_of_float16_is_lowered_and_survives_a_checkpoint(tmp_path: Path) -> None:
    """A gradient that is no number at too large a scale leaves the step out, and nothing else."""
    half = replace(plan(tmp_path / "a", max_grad_norm=1e9), precision="float16")
    line = Line(noise=0.0)
    line.weight.register_hook(lambda g: g.masked_fill(g.abs() > 3e4, math.inf))

    facts, state = run(line, half)
    taken = {fact.step: Path(fact.folder) for fact in of_kind(facts, CheckpointWritten)}
    again = Line(noise=0.0)
    again.weight.register_hook(lambda g: g.masked_fill(g.abs() > 3e4, math.inf))
    _, resumed = run(again, replace(half, checkpoints=tmp_path / "b", resume=taken[3]))

    assert state.loss_scale is not None
    assert 1 < state.loss_scale < 65536
    assert not math.isfinite(of_kind(facts, StepDone)[0].grad_norm)
    assert (resumed.loss_scale, resumed.scale_growth) == (state.loss_scale, state.scale_growth)
    assert torch.equal(again.weight, line.weight)


@pytest.mark.parametrize("step", [2, 3, 4, 20])
def test_run_that_is_stopped_leaves_a_checkpoint_to_go_on_from(step: int, tmp_path: Path) -> None:
    """At any step: between two checkpoints, at one, at the end of an epoch, at the last one."""
    whole = Line(validation=[3.0, 1.0, 2.0, 4.0, 5.0])
    run(whole, plan(tmp_path / "whole", keep_best=True))
    line = Line(validation=[3.0, 1.0, 2.0, 4.0, 5.0])
    running = loop.steps(line, {"w": line.weight}, plan(tmp_path / "a", keep_best=True))
    told: list[Fact] = []

    for fact in running:
        told.append(fact)
        if isinstance(fact, StepDone) and fact.step == step:
            break
    told.append(running.throw(StopAsked()))
    with pytest.raises(StopAsked):
        told.extend(running)

    last = of_kind(told, CheckpointWritten)[-1]
    assert last.step == step
    assert of_kind(told, StepDone)[-1].step == step
    again = Line(validation=[3.0, 1.0, 2.0, 4.0, 5.0])
    run(again, plan(tmp_path / "b", Path(last.folder), keep_best=True))
    assert torch.equal(again.weight, whole.weight)
