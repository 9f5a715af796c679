"""Facts that every recipe shares: the learning rate of a step, arithmetic that broke down, words for people."""

import math

from domain.jobs.spec import Hyperparameters
from domain.work import EpochDone, LogLine
from gpu_agent.outcomes import WorkFailed


class LossNotFinite(WorkFailed):
    """The arithmetic has broken down; a smaller learning rate may help, the same one will not."""

    code = "loss_not_finite"


def total_steps(rows: int, config: Hyperparameters) -> int:
    return math.ceil(rows / config.batch_size) * config.epochs


def learning_rate(step: int, total: int, config: Hyperparameters) -> float:
    """Rise linearly to the peak, then fall linearly; the step after the last would have none.

    Args:
        step: optimizer steps done, from 0.
    """
    warmup = math.ceil(total * config.warmup_ratio)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (total - step) / (total - warmup)


def require_finite(loss: float, norm: float, step: int) -> None:
    """Refuse to go on with weights that the next step would spoil.

    Raises:
        LossNotFinite: with what was not a number, and the step, from 1.
    """
    if not math.isfinite(loss):
        raise LossNotFinite(f"the loss of step {step} is {loss}; try a smaller learning rate")
    if not math.isfinite(norm):
        raise LossNotFinite(f"the gradient of step {step} is {norm}; try a smaller learning rate")


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
