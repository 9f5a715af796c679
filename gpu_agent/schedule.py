"""Facts that every recipe shares: the learning rate of a step, arithmetic that broke down, words for people."""

import math
from dataclasses import replace
from typing import Final, assert_never

from domain.jobs.spec import Hyperparameters
from domain.work import EpochDone, LogLine
from gpu_agent.checkpoints import LoopState
from gpu_agent.outcomes import WorkFailed

FIRST_STEPS: Final = 16  # whose mean is where the loss began
SMOOTHING: Final = 0.9  # of the running mean: it looks back over ten steps or so
# Twice what it began with, or twice a coin's toss where it began with next to nothing: a run that
# learns never comes there, and one that has lost its way is there within a few steps.
DIVERGED: Final = 2.0
LEAST: Final = 0.7  # nats


class LossNotFinite(WorkFailed):
    """The arithmetic has broken down; a smaller learning rate may help, the same one will not."""

    code = "loss_not_finite"


class LossDiverged(WorkFailed):
    """The loss rises instead of falling; a smaller learning rate may help, the same one will not."""

    code = "loss_diverged"


class ValidationMissing(WorkFailed):
    """The best epoch is to be found, and there is no row to find it by."""

    code = "validation_missing"


def total_steps(rows: int, config: Hyperparameters) -> int:
    return math.ceil(rows / config.batch_size) * config.epochs


def learning_rate(step: int, total: int, config: Hyperparameters) -> float:
    """Rise linearly to the peak, then follow the schedule; but for "constant" there would be none after the last step.

    Args:
        step: optimizer steps done, from 0.
    """
    peak, warmup = config.learning_rate, math.ceil(total * config.warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    left = (total - step) / (total - warmup)
    match config.schedule:
        case "linear":
            return peak * left
        case "cosine":  # Loshchilov and Hutter 2016, equation 5, without restarts
            return peak * (1 - math.cos(math.pi * left)) / 2
        case "constant":
            return peak
        case _:
            assert_never(config.schedule)


def require_finite(loss: float, norm: float, step: int) -> None:
    """Refuse to go on with weights that the next step would spoil.

    Raises:
        LossNotFinite: with what was not a number, and the step, from 1.
    """
    if not math.isfinite(loss):
        raise LossNotFinite(f"the loss of step {step} is {loss}; try a smaller learning rate")
    if not math.isfinite(norm):
        raise LossNotFinite(f"the gradient of step {step} is {norm}; try a smaller learning rate")


def with_loss(state: LoopState, loss: float) -> LoopState:
    """Take a step's loss into the means that tell where the loss began and where it is."""
    first, recent = state.first_loss or 0.0, state.recent_loss
    if state.step < FIRST_STEPS:
        first = (first * state.step + loss) / (state.step + 1)
    recent = loss if recent is None else SMOOTHING * recent + (1 - SMOOTHING) * loss
    return replace(state, first_loss=first, recent_loss=recent)


def require_progress(state: LoopState) -> None:
    """Refuse to go on where the loss is far above its beginning.

    Raises:
        LossDiverged: with both, and the step, from 1.
    """
    first, recent = state.first_loss, state.recent_loss
    if state.step < FIRST_STEPS or first is None or recent is None:
        return
    if recent > DIVERGED * max(first, LEAST):
        raise LossDiverged(
            f"the loss has risen from {first:.4f} to {recent:.4f} by step {state.step + 1}; try a "
            "smaller learning rate"
        )


def require_validation(config: Hyperparameters, rows: int) -> None:
    """Refuse to look for the best epoch without rows to find it by.

    Raises:
        ValidationMissing: with what would help.
    """
    wanted = config.keep_best or config.early_stopping_patience is not None
    if wanted and not rows:
        raise ValidationMissing(
            "keep_best and early_stopping_patience need validation rows, and there are none: give "
            "split.validation_fraction more, or upload more rows"
        )


def in_words(done: EpochDone, epochs: int) -> str:
    words = f"epoch {done.epoch} of {epochs}: loss {done.train_loss:.4f}"
    if done.validation_accuracy is not None:
        words += f", validation accuracy {done.validation_accuracy:.4f}"
    return f"{words}, {done.seconds:.1f} s"


def log(message: str) -> LogLine:
    return LogLine(level="INFO", message=message)


def debug(message: str) -> LogLine:
    return LogLine(level="DEBUG", message=message)


def warning(message: str) -> LogLine:
    return LogLine(level="WARNING", message=message)
