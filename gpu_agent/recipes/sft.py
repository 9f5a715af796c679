"""Supervised fine-tuning of a causal language model by LoRA: a flat generator of facts, rows to adapter.

Ouyang et al. 2022, section 3, step 1: cross-entropy of the demonstrated answers, and of nothing else.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from domain.jobs.spec import Hyperparameters
from domain.work import (
    CheckpointWritten,
    EpochDone,
    Fact,
    Started,
    StepDone,
    TrainAssignment,
    TrainingFinished,
)
from gpu_agent.base_models import BaseModelFiles, find_base_model, places_for
from gpu_agent.checkpoints import LoopState, load_checkpoint, save_checkpoint
from gpu_agent.data import read_conversation_splits, shuffled_batches
from gpu_agent.environment import describe, set_up
from gpu_agent.language_model import LanguageModel, load_language_model
from gpu_agent.lora import add_lora, save_lora, training_mode
from gpu_agent.packing import micro_batches, pack, predictions, row_by_row
from gpu_agent.protocol import ChildInput
from gpu_agent.rendering import Rendered
from gpu_agent.schedule import in_words, learning_rate, log, require_finite, total_steps, warning
from gpu_agent.supervision import learnable, supervise, told

# Enough for two cores to be as fast as they get, while what is kept for the gradients stays small:
# half a GiB in a model of 7 million parameters.
MICRO_BATCH_TOKENS: Final = 2048
# 256 MiB of logits in float32: with 150,000 tokens to choose from, 447 supervised tokens at once.
MICRO_BATCH_LOGITS: Final = 1 << 26


def train(order: ChildInput, assignment: TrainAssignment) -> Iterator[Fact]:
    """Train as ``assignment`` says, from its checkpoint if it has one, and leave an adapter folder.

    Raises:
        WorkFailed: the job cannot be done as it is stated.
    """
    spec = assignment.spec
    config = spec.hyperparameters
    device = set_up(order.device, assignment.threads or order.threads)
    environment = describe(device)
    yield log(f"training on {environment.device_name}, {environment.threads} threads")
    files = yield from _base_model(order, assignment)
    model = load_language_model(files, device)
    weights = add_lora(model, config.lora, spec.seed)
    trainable = sum(weight.numel() for weight in weights.values())
    parameters: int = model.network.num_parameters()
    splits = read_conversation_splits(spec, order.files.train, order.files.test)
    precision = str(model.dtype).removeprefix("torch.")
    yield log(
        f"{files.id}, {parameters:,} parameters in {precision}, and {trainable:,} trainable ones in "
        f"float32; conversations: {len(splits.train)} for training, {len(splits.validation)} for "
        f"validation, {len(splits.test)} held out"
    )
    if splits.leaked:
        yield warning(
            f"{splits.leaked} training rows were left out: their prompt is in the test file"
        )
    longest = min(config.max_length, model.max_tokens)
    rows = learnable(model.tokenizer, splits.train, longest)
    validation = learnable(model.tokenizer, splits.validation, longest).rows
    found = supervise(model.tokenizer, rows, config, longest, spec.seed)
    yield from told(found, longest)
    yield Started(
        environment=environment,
        total_steps=total_steps(len(rows.rows), config),
        total_epochs=config.epochs,
        first_step=assignment.resume_from.step if assignment.resume_from else 0,
        train_rows=len(rows.rows),
        validation_rows=len(validation),
        test_rows=len(splits.test),
        trainable_parameters=trainable,
        total_parameters=parameters + trainable,
        base_model=files.record(parameters),
        base_model_folder=str(files.path) if files.made_here else None,
        supervision=found,
    )
    started = time.monotonic()
    resume = order.files.checkpoint if assignment.resume_from else None
    state = yield from steps(
        model,
        weights,
        rows.rows,
        validation,
        config,
        spec.seed,
        resume,
        order.work_dir / "checkpoints",
    )
    folder = order.work_dir / "adapter"
    save_lora(folder, model, config.lora)
    seconds = time.monotonic() - started
    yield log(f"finished {state.step} steps; mean loss of the last epoch {state.final_loss:.4f}")
    yield TrainingFinished(
        folder=str(folder),
        labels=(),
        train_rows=len(rows.rows),
        trained_tokens=state.tokens,
        steps=state.step,
        seconds=seconds,
        final_loss=state.final_loss,
        validation_accuracy=state.validation_accuracy,
    )


def _base_model(
    order: ChildInput, assignment: TrainAssignment
) -> Generator[Fact, None, BaseModelFiles]:
    """Find the base model in a thread, so that what is told while one is made can be heard, and stopped."""
    told_so_far: SimpleQueue[str | None] = SimpleQueue()
    finding: Future[BaseModelFiles] = Future()

    def find() -> None:
        try:
            finding.set_result(
                find_base_model(
                    assignment.spec.base_model,
                    places_for(order),
                    assignment.base_model,
                    progress=told_so_far.put,
                )
            )
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            finding.set_exception(error)
        told_so_far.put(None)

    Thread(target=find, name="base model", daemon=True).start()
    while (line := told_so_far.get()) is not None:
        yield log(line)
    return finding.result()


def steps(
    model: LanguageModel,
    weights: dict[str, nn.Parameter],
    rows: Sequence[Rendered],
    validation: Sequence[Rendered],
    config: Hyperparameters,
    seed: int,
    resume: Path | None,
    checkpoints: Path,
) -> Generator[Fact, None, LoopState]:
    """Train ``weights`` in place, one ``StepDone`` per optimizer step; returns where the loop ended."""
    optimizer = AdamW(
        weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    torch.manual_seed(seed)  # what dropout draws from
    state = load_checkpoint(resume, weights, optimizer) if resume else LoopState()
    total, per_epoch = total_steps(len(rows), config), math.ceil(len(rows) / config.batch_size)
    began_at, began, epoch_began = state.step, time.monotonic(), time.monotonic()
    batches: list[NDArray[np.int64]] = []
    with row_by_row(model.network) as together:
        if not together:
            yield warning("rows run one at a time: this model's attention cannot be packed exactly")
        while state.step < total:
            clock = time.monotonic()
            epoch, at = divmod(state.step, per_epoch)
            if at == 0 or not batches:
                batches = shuffled_batches(len(rows), config.batch_size, seed, epoch)
            batch = [rows[row] for row in batches[at]]
            rate = learning_rate(state.step, total, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            training_mode(model, on=True)
            loss = add_gradients(model, batch, together=together)
            norm = nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm).item()
            require_finite(loss, norm, state.step + 1)
            optimizer.step()
            optimizer.zero_grad()
            tokens, targets = sum(len(row.ids) for row in batch), sum(row.targets for row in batch)
            state = replace(
                state,
                step=state.step + 1,
                epoch_loss=state.epoch_loss + loss * targets,
                epoch_targets=state.epoch_targets + targets,
                tokens=state.tokens + tokens,
            )
            now = time.monotonic()
            yield StepDone(
                step=state.step,
                epoch=state.step / per_epoch,
                loss=loss,
                learning_rate=rate,
                grad_norm=norm,
                tokens_per_s=tokens / (now - clock),
                step_s=now - clock,
                eta_s=(now - began) / (state.step - began_at) * (total - state.step),
            )
            epoch_over = state.step % per_epoch == 0
            if epoch_over:
                measured = measure(model, validation, together=together)
                done = EpochDone(
                    epoch=epoch + 1,
                    step=state.step,
                    train_loss=state.epoch_loss / state.epoch_targets,
                    validation_loss=measured[0],
                    validation_accuracy=measured[1],
                    seconds=now - epoch_began,
                )
                state = replace(
                    state,
                    epoch_loss=0.0,
                    epoch_targets=0,
                    final_loss=done.train_loss,
                    validation_accuracy=done.validation_accuracy,
                )
                yield done
                yield log(in_words(done, config.epochs))
                epoch_began = time.monotonic()
            if epoch_over or state.step % config.checkpoint_every == 0:
                folder = checkpoints / f"step-{state.step:06}"
                save_checkpoint(folder, weights, optimizer, state)
                yield CheckpointWritten(
                    step=state.step, epoch=state.step // per_epoch, folder=str(folder)
                )
    return state


def add_gradients(model: LanguageModel, rows: Sequence[Rendered], *, together: bool) -> float:
    """Add the gradients of a batch's loss to the weights'; give the loss, the mean over its supervised tokens.

    Args:
        together: whether rows may be packed; see ``row_by_row``.
    """
    targets = sum(row.targets for row in rows)
    total = 0.0
    for part in _parts(model, rows, together=together):
        batch = pack(part, model.device)
        logits = predictions(model.network, batch)
        loss = cross_entropy(logits, batch.targets, reduction="sum") / targets
        torch.autograd.backward(loss)
        total += loss.item()
    return total


@torch.no_grad()
def measure(
    model: LanguageModel, rows: Sequence[Rendered], *, together: bool
) -> tuple[float | None, float | None]:
    """Mean loss and share of right predictions, over the supervised tokens of all ``rows``."""
    training_mode(model, on=False)
    targets = sum(row.targets for row in rows)
    if not targets:
        return None, None
    loss = right = 0.0
    for part in _parts(model, rows, together=together):
        batch = pack(part, model.device)
        logits = predictions(model.network, batch)
        loss += cross_entropy(logits, batch.targets, reduction="sum").item()
        right += (logits.argmax(dim=1) == batch.targets).sum().item()
    return loss / targets, right / targets


def _parts(
    model: LanguageModel, rows: Sequence[Rendered], *, together: bool
) -> Iterator[list[Rendered]]:
    vocabulary = model.network.config.get_text_config().vocab_size
    supervised = max(1, MICRO_BATCH_LOGITS // vocabulary)
    return micro_batches(rows, MICRO_BATCH_TOKENS, supervised, together=together)
