"""The multilayer perceptron of a table: a flat training loop that can be stopped and resumed at any step."""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from domain.jobs.spec import Hyperparameters
from domain.jobs.tabular import TabularConfig
from domain.work import CheckpointWritten, EpochDone, Fact, StepDone
from gpu_agent.checkpoints import LoopState, load_checkpoint, save_checkpoint, snapshot
from gpu_agent.data import shuffled_batches
from gpu_agent.schedule import in_words, learning_rate, log, require_finite, total_steps

TOLD_EPOCHS: Final = 20  # at most: an epoch takes milliseconds, and each that is told is an event


@dataclass(frozen=True, slots=True)
class Examples:
    """N rows of a table: F features and the place of each row's label."""

    matrix: Tensor  # (N, F) float32
    targets: Tensor  # (N,) int64

    @classmethod
    def of(cls, matrix: NDArray[np.float64], targets: Sequence[int]) -> "Examples":
        return cls(torch.from_numpy(matrix).float(), torch.tensor(targets, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.targets)


def build(features: int, labels: int, config: TabularConfig, seed: int) -> nn.Sequential:
    """Two hidden layers with ReLU; the first weights depend on the seed alone."""
    torch.manual_seed(seed)
    size = config.hidden_size
    return nn.Sequential(
        nn.Linear(features, size),
        nn.ReLU(),
        nn.Linear(size, size),
        nn.ReLU(),
        nn.Linear(size, labels),
    )


def arrays_of(weights: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def steps(
    network: nn.Sequential,
    rows: Examples,
    validation: Examples,
    class_weights: Tensor | None,
    config: Hyperparameters,
    seed: int,
    resume: Path | None,
    checkpoints: Path,
) -> Generator[Fact, None, LoopState]:
    """Train ``network`` in place, one ``StepDone`` per optimizer step; returns where the loop ended.

    Raises:
        WorkFailed: the arithmetic broke down, or the checkpoint is of another network.
    """
    weights = dict(network.named_parameters())
    optimizer = AdamW(
        weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    state, best = load_checkpoint(resume, weights, optimizer) if resume else (LoopState(), {})
    total, per_epoch = total_steps(len(rows), config), math.ceil(len(rows) / config.batch_size)
    told_every = math.ceil(config.epochs / TOLD_EPOCHS)
    began_at, began, epoch_began = state.step, time.monotonic(), time.monotonic()
    batches: list[NDArray[np.int64]] = []
    while state.step < total and not _stopped_early(state, config):
        clock = time.monotonic()
        epoch, at = divmod(state.step, per_epoch)
        if at == 0 or not batches:
            batches = shuffled_batches(len(rows), config.batch_size, seed, epoch)
        chosen = torch.from_numpy(batches[at])
        rate = learning_rate(state.step, total, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = cross_entropy(network(rows.matrix[chosen]), rows.targets[chosen], class_weights)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm)
        require_finite(loss.item(), norm.item(), state.step + 1)
        optimizer.step()
        optimizer.zero_grad()
        state = replace(
            state,
            step=state.step + 1,
            epoch_loss=state.epoch_loss + loss.item() * len(chosen),
            epoch_terms=state.epoch_terms + len(chosen),
        )
        now = time.monotonic()
        yield StepDone(
            step=state.step,
            epoch=state.step / per_epoch,
            loss=loss.item(),
            learning_rate=rate,
            grad_norm=norm.item(),
            tokens_per_s=0.0,
            step_s=now - clock,
            eta_s=(now - began) / (state.step - began_at) * (total - state.step),
        )
        if state.step % per_epoch == 0:
            done = _close_epoch(network, validation, state, epoch + 1, now - epoch_began)
            state, better = _after_epoch(state, done)
            if better and config.keep_best:
                best = {name: weight.detach().clone() for name, weight in weights.items()}
            over = state.step == total or _stopped_early(state, config)
            if over or done.epoch % told_every == 0:
                yield done
                yield log(in_words(done, config.epochs))
                epoch_began = time.monotonic()
        if state.step % config.checkpoint_every == 0 and state.step < total:
            folder = checkpoints / f"step-{state.step:06}"
            save_checkpoint(folder, snapshot(weights, optimizer, best, state))
            yield CheckpointWritten(
                step=state.step, epoch=state.step // per_epoch, folder=str(folder)
            )
    return _with_best(state, weights, best)


def _stopped_early(state: LoopState, config: Hyperparameters) -> bool:
    patience = config.early_stopping_patience
    return patience is not None and state.epochs_since_best >= patience


@torch.inference_mode()
def _close_epoch(
    network: nn.Sequential, validation: Examples, state: LoopState, epoch: int, seconds: float
) -> EpochDone:
    loss = accuracy = None
    if len(validation):
        scores = network(validation.matrix)
        loss = cross_entropy(scores, validation.targets).item()
        accuracy = (scores.argmax(dim=1) == validation.targets).double().mean().item()
    return EpochDone(
        epoch=epoch,
        step=state.step,
        train_loss=state.epoch_loss / state.epoch_terms,
        validation_loss=loss,
        validation_accuracy=accuracy,
        seconds=seconds,  # since the last epoch that was told
    )


def _after_epoch(state: LoopState, done: EpochDone) -> tuple[LoopState, bool]:
    """Begin the next epoch; say too whether this one's validation loss is the least so far."""
    state = replace(
        state,
        epoch_loss=0.0,
        epoch_terms=0,
        final_loss=done.train_loss,
        validation_accuracy=done.validation_accuracy,
    )
    loss = done.validation_loss
    if loss is None:
        return state, False
    if state.best_loss is not None and loss >= state.best_loss:
        return replace(state, epochs_since_best=state.epochs_since_best + 1), False
    best = replace(
        state,
        best_loss=loss,
        best_accuracy=done.validation_accuracy,
        best_step=state.step,
        epochs_since_best=0,
    )
    return best, True


def _with_best(
    state: LoopState, weights: Mapping[str, nn.Parameter], best: Mapping[str, Tensor]
) -> LoopState:
    """Put the best weights in the place of the last ones, where they are kept."""
    if not best:
        return state
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(best[name])
    return replace(state, validation_accuracy=state.best_accuracy)
