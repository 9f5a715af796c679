"""The training loop that all gradient recipes share: batches in, facts out, one optimizer step after another."""

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from domain.jobs.spec import Hyperparameters
from domain.work import EpochDone, Fact, MicroBatchHalved, StepDone
from gpu_agent.checkpoints import (
    Checkpoints,
    LoopState,
    load_checkpoint,
    put_random_state_back,
    random_state,
)
from gpu_agent.optimizers import make_optimizer
from gpu_agent.outcomes import StopAsked, WorkFailed, out_of_memory
from gpu_agent.schedule import (
    in_words,
    learning_rate,
    log,
    require_finite,
    require_progress,
    total_steps,
    warning,
    with_loss,
)

SMALLEST_SCALE: Final = (
    1.0  # of float16's gradients; if they are no numbers even so, they never are
)

Rows = NDArray[np.int64]  # places of training rows
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Measured:
    """What the validation rows say; None where there are none."""

    loss: float | None
    accuracy: float | None


class Objective(Protocol[B]):
    """What a recipe minimises, over which rows, in which order. A batch ``B`` is what one step reads."""

    @property
    def rows(self) -> int: ...

    def batches(self, epoch: int) -> Sequence[Rows]:
        """Part the rows of an epoch, counted from 0: a function of the seed and the epoch alone."""

    def prepare(self, rows: Rows, step: int) -> B:
        """Make what all parts of a step have in common; ``step`` counts from 0."""

    def parts(self, batch: B, tokens: int) -> Sequence[B]:
        """Part a batch so that none exceeds so many tokens, but for a single row."""

    def terms(self, batch: B) -> int:
        """Count what the loss is a mean over: supervised tokens, rows or pairs."""

    def tokens(self, batch: B) -> int:
        """Count what is read, padding left out."""

    def loss(self, part: B) -> Tensor:
        """Sum the loss, in float32, over the terms of a part."""

    def measure(self) -> Measured: ...

    def training(self, *, on: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How the loop runs, apart from what it minimises."""

    config: Hyperparameters
    seed: int
    precision: str  # as it is recorded: "float32", "bfloat16" or "float16"
    micro_batch_tokens: int  # where the job names none
    checkpoints: Path
    resume: Path | None = None  # a training checkpoint
    may_diverge: bool = True  # whether a loss above its beginning means that nothing is learned


def steps(
    objective: Objective[B], weights: Mapping[str, nn.Parameter], plan: Plan
) -> Generator[Fact, None, LoopState]:
    """Train ``weights`` in place, one ``StepDone`` per optimizer step; returns where the loop ended.

    Raises:
        WorkFailed: the arithmetic broke down, or memory did not do for a single row.
        StopAsked: as it was thrown in at a step, which has left a training checkpoint.
    """
    config = plan.config
    optimizer = make_optimizer(config, weights.values())
    state, best = _begun(weights, optimizer, plan)
    scaler = _scaler(weights, state)
    total = total_steps(objective.rows, config)
    per_epoch = math.ceil(objective.rows / config.batch_size)
    began_at, began, epoch_began = state.step, time.monotonic(), time.monotonic()
    batches: Sequence[Rows] = ()
    with closing(Checkpoints(plan.checkpoints)) as checkpoints:
        while state.step < total and not _stopped_early(state, config):
            clock = time.monotonic()
            epoch, at = divmod(state.step, per_epoch)
            if at == 0 or not batches:
                batches = objective.batches(epoch)
            rate = learning_rate(state.step, total, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            try:
                done, state = yield from _step(
                    objective, batches[at], weights, optimizer, scaler, plan, state
                )
            except WorkFailed as failure:
                yield from _written(checkpoints, wait=True)
                raise type(failure)(f"{failure}; {_kept(checkpoints)}") from failure
            now = time.monotonic()
            stopping = yield from _told(
                StepDone(
                    step=state.step,
                    epoch=state.step / per_epoch,
                    loss=done.loss,
                    learning_rate=rate,
                    grad_norm=done.norm,
                    tokens_per_s=done.tokens / (now - clock),
                    step_s=now - clock,
                    eta_s=(now - began) / (state.step - began_at) * (total - state.step),
                )
            )
            epoch_over = state.step % per_epoch == 0
            if epoch_over:
                ended = _close_epoch(objective, state, epoch + 1, now - epoch_began)
                state, better = _after_epoch(state, ended)
                if better and config.keep_best:
                    best = {name: weight.detach().clone() for name, weight in weights.items()}
                yield ended
                yield log(in_words(ended, config.epochs))
                epoch_began = time.monotonic()
            due = epoch_over or stopping or state.step % config.checkpoint_every == 0
            yield from _written(checkpoints, wait=due)
            if due:
                checkpoints.take(weights, optimizer, best, state, state.step // per_epoch)
            if stopping:
                yield from _written(checkpoints, wait=True)
                raise StopAsked
        yield from _written(checkpoints, wait=True)
    if state.step < total:
        yield log(
            f"stopped after step {state.step} of {total}: {state.epochs_since_best} epochs without "
            f"a validation loss below {state.best_loss:.4f}, that of step {state.best_step}"
        )
    return _with_best(state, weights, best)


def _told(done: StepDone) -> Generator[Fact, None, bool]:
    """Tell of a step, and give whether it is to be the last."""
    try:
        yield done
    except StopAsked:
        return True
    return False


def _begun(
    weights: Mapping[str, nn.Parameter], optimizer: Optimizer, plan: Plan
) -> tuple[LoopState, dict[str, Tensor]]:
    """Give where the loop stands, and the best weights so far where they are kept."""
    torch.manual_seed(plan.seed)  # what dropout draws from
    state, best = LoopState(), dict[str, Tensor]()
    if plan.resume:
        state, best = load_checkpoint(plan.resume, weights, optimizer)
    asked = plan.config.micro_batch_tokens or plan.micro_batch_tokens
    tokens = state.micro_batch_tokens or asked
    return replace(state, precision=plan.precision, micro_batch_tokens=tokens), best


@dataclass(frozen=True, slots=True)
class _Done:
    loss: float  # mean over the terms
    terms: int
    tokens: int
    norm: float = 0.0  # of the gradient, before it was clipped


def _step(
    objective: Objective[B],
    rows: Rows,
    weights: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    scaler: GradScaler,
    plan: Plan,
    state: LoopState,
) -> Generator[Fact, None, tuple[_Done, LoopState]]:
    objective.training(on=True)
    done, state = yield from _gradients(objective, rows, optimizer, scaler, state)
    norm = _change(optimizer, scaler, weights, plan.config.max_grad_norm, done, state.step + 1)
    state = with_loss(_with_scale(state, scaler), done.loss)
    if plan.may_diverge:
        require_progress(state)
    state = replace(
        state,
        step=state.step + 1,
        epoch_loss=state.epoch_loss + done.loss * done.terms,
        epoch_terms=state.epoch_terms + done.terms,
        tokens=state.tokens + done.tokens,
    )
    return replace(done, norm=norm), state


def add_gradients(
    objective: Objective[B], batch: B, tokens: int, scaler: GradScaler | None = None
) -> float:
    """Add the gradients of a batch's mean loss to the weights', part by part; give that loss."""
    terms = objective.terms(batch)
    total = 0.0
    for part in objective.parts(batch, tokens):
        loss = objective.loss(part) / terms
        torch.autograd.backward(scaler.scale(loss) if scaler else loss)
        total += loss.item()
    return total


def _gradients(
    objective: Objective[B],
    rows: Rows,
    optimizer: Optimizer,
    scaler: GradScaler,
    state: LoopState,
) -> Generator[Fact, None, tuple[_Done, LoopState]]:
    """Add the gradients of a step; where memory does not do, again with half as many tokens at once."""
    while True:
        tokens, random, batch = state.micro_batch_tokens, random_state(), None
        try:
            batch = objective.prepare(rows, state.step)
            loss = add_gradients(objective, batch, tokens, scaler)
            return _Done(loss, objective.terms(batch), objective.tokens(batch)), state
        except (MemoryError, RuntimeError) as error:
            halved = tokens // 2 if batch is None else _halved(objective, batch, tokens)
            if not out_of_memory(error) or not halved:
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
        # Out of the handler: the error's traceback holds on to all that was computed.
        optimizer.zero_grad()
        put_random_state_back(random)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        state = replace(state, micro_batch_tokens=halved)
        yield warning(
            f"memory ran out in step {state.step + 1} with {tokens} tokens at once; from here on "
            f"{halved} at once, over batches as large as before: {reason}"
        )
        yield MicroBatchHalved(step=state.step + 1, micro_batch_tokens=halved, reason=reason)


def _halved(objective: Objective[B], batch: B, tokens: int) -> int:
    """Halve until this batch falls into more parts; 0 where each of its rows is one already."""
    before = len(objective.parts(batch, tokens))
    while tokens > 1:
        tokens //= 2
        if len(objective.parts(batch, tokens)) > before:
            return tokens
    return 0


def _change(
    optimizer: Optimizer,
    scaler: GradScaler,
    weights: Mapping[str, nn.Parameter],
    longest: float,
    done: _Done,
    step: int,
) -> float:
    """Change the weights by gradients of that length at most; give the length that they had."""
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(weights.values(), longest).item()
    # In float16 a scale may be too large; the scaler then leaves the step out and lowers it.
    if not (
        scaler.is_enabled() and scaler.get_scale() > SMALLEST_SCALE and math.isfinite(done.loss)
    ):
        require_finite(done.loss, norm, step)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return norm


def _scaler(weights: Mapping[str, nn.Parameter], state: LoopState) -> GradScaler:
    device = next(iter(weights.values())).device.type
    scaler = GradScaler(device, enabled=state.precision == "float16")
    if scaler.is_enabled() and state.loss_scale is not None:
        kept = {"scale": state.loss_scale, "_growth_tracker": state.scale_growth}
        scaler.load_state_dict(scaler.state_dict() | kept)
    return scaler


def _with_scale(state: LoopState, scaler: GradScaler) -> LoopState:
    if not scaler.is_enabled():
        return state
    kept = scaler.state_dict()
    return replace(state, loss_scale=kept["scale"], scale_growth=kept["_growth_tracker"])


def _close_epoch(
    objective: Objective[B], state: LoopState, epoch: int, seconds: float
) -> EpochDone:
    measured = objective.measure()
    return EpochDone(
        epoch=epoch,
        step=state.step,
        train_loss=state.epoch_loss / state.epoch_terms,
        validation_loss=measured.loss,
        validation_accuracy=measured.accuracy,
        seconds=seconds,
    )


def _after_epoch(state: LoopState, ended: EpochDone) -> tuple[LoopState, bool]:
    """Begin the next epoch's sums; the second value says whether this one was the best so far."""
    loss = ended.validation_loss
    better = loss is not None and (state.best_loss is None or loss < state.best_loss)
    state = replace(
        state,
        epoch_loss=0.0,
        epoch_terms=0,
        final_loss=ended.train_loss,
        validation_accuracy=ended.validation_accuracy,
        epochs_since_best=0 if better else state.epochs_since_best + 1,
    )
    if better:
        state = replace(
            state,
            best_loss=loss,
            best_accuracy=ended.validation_accuracy,
            best_step=state.step,
        )
    return state, better


def _stopped_early(state: LoopState, config: Hyperparameters) -> bool:
    patience = config.early_stopping_patience
    return patience is not None and state.epochs_since_best >= patience


def _with_best(
    state: LoopState, weights: Mapping[str, nn.Parameter], best: Mapping[str, Tensor]
) -> LoopState:
    """Put the best epoch's weights in place, where they were kept."""
    if not best:
        return replace(state, best_step=None)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(best[name])
    return replace(state, validation_accuracy=state.best_accuracy)


def _written(checkpoints: Checkpoints, *, wait: bool) -> Iterator[Fact]:
    written = checkpoints.written(wait=wait)
    if written is not None:
        yield written


def _kept(checkpoints: Checkpoints) -> str:
    if checkpoints.last_step is None:
        return "there was no training checkpoint yet"
    return f"the training checkpoint of step {checkpoints.last_step} is kept"
