"""Sequence classification by LoRA: a flat generator of facts from rows to an adapter folder."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
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
from gpu_agent.base_models import find_base_model, places_for
from gpu_agent.checkpoints import LoopState, load_checkpoint, save_checkpoint
from gpu_agent.classifier import add_lora, load_base, logits, save_adapter, trainable, training_mode
from gpu_agent.data import Examples, epoch_batches, examples, make_batch, read_splits
from gpu_agent.environment import describe, set_up
from gpu_agent.protocol import ChildInput
from gpu_agent.schedule import in_words, learning_rate, log, require_finite, total_steps, warning


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
    files = find_base_model(spec.base_model, places_for(order), assignment.base_model)
    splits = read_splits(spec, order.files.train, order.files.test)
    base = load_base(files, len(splits.labels), spec.seed)
    base_parameters = sum(weight.numel() for weight in base.encoder.parameters())
    model = add_lora(base, files, config.lora, spec.seed).to(device)
    parameters = trainable(model)
    yield log(
        f"{files.id}, {sum(weight.numel() for weight in parameters.values()):,} trainable parameters; "
        f"{len(splits.labels)} labels; rows: {len(splits.train)} for training, "
        f"{len(splits.validation)} for validation, {len(splits.test)} held out"
    )

    if splits.leaked:
        yield warning(
            f"{splits.leaked} training rows were left out: their text is in the test file"
        )
    longest = min(config.max_length, base.max_tokens)
    rows = examples(base.tokenizer, splits.train, splits.labels, longest)
    validation = examples(base.tokenizer, splits.validation, splits.labels, longest)
    resume = order.files.checkpoint if assignment.resume_from else None
    yield Started(
        environment=environment,
        total_steps=total_steps(len(rows), config),
        total_epochs=config.epochs,
        first_step=assignment.resume_from.step if assignment.resume_from else 0,
        train_rows=len(splits.train),
        validation_rows=len(splits.validation),
        test_rows=len(splits.test),
        trainable_parameters=sum(weight.numel() for weight in parameters.values()),
        total_parameters=sum(weight.numel() for weight in model.parameters()),
        base_model=files.record(base_parameters),
    )
    started = time.monotonic()
    state = yield from steps(
        model, rows, validation, config, spec.seed, resume, order.work_dir / "checkpoints"
    )
    folder = order.work_dir / "adapter"
    save_adapter(folder, model, splits.labels)
    seconds = time.monotonic() - started
    yield log(f"finished {state.step} steps; mean loss of the last epoch {state.final_loss:.4f}")
    yield TrainingFinished(
        folder=str(folder),
        labels=splits.labels,
        train_rows=len(splits.train),
        trained_tokens=state.tokens,
        steps=state.step,
        seconds=seconds,
        final_loss=state.final_loss,
        validation_accuracy=state.validation_accuracy,
    )


def steps(
    model: PeftModel,
    rows: Examples,
    validation: Examples,
    config: Hyperparameters,
    seed: int,
    resume: Path | None,
    checkpoints: Path,
) -> Generator[Fact, None, LoopState]:
    """Train ``model`` in place, one ``StepDone`` per optimizer step; returns where the loop ended."""
    device = next(model.parameters()).device
    weights = trainable(model)
    optimizer = AdamW(
        weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    torch.manual_seed(seed)  # what dropout draws from
    state = load_checkpoint(resume, weights, optimizer) if resume else LoopState()
    total, per_epoch = total_steps(len(rows), config), math.ceil(len(rows) / config.batch_size)
    began_at, began, epoch_began = state.step, time.monotonic(), time.monotonic()
    batches: list[NDArray[np.int64]] = []
    while state.step < total:
        clock = time.monotonic()
        epoch, at = divmod(state.step, per_epoch)
        if at == 0 or not batches:
            batches = epoch_batches(rows.tokens.lengths, config.batch_size, seed, epoch)
        chosen = batches[at]
        batch = make_batch(rows.tokens, chosen, device)
        rate = learning_rate(state.step, total, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        training_mode(model)
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        loss = cross_entropy(output, rows.targets[torch.from_numpy(chosen)].to(device))
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(weights.values(), config.max_grad_norm)
        require_finite(loss.item(), norm.item(), state.step + 1)
        optimizer.step()
        optimizer.zero_grad()
        state = replace(
            state,
            step=state.step + 1,
            epoch_loss=state.epoch_loss + loss.item() * len(chosen),
            epoch_rows=state.epoch_rows + len(chosen),
            tokens=state.tokens + batch.tokens,
        )
        now = time.monotonic()
        yield StepDone(
            step=state.step,
            epoch=state.step / per_epoch,
            loss=loss.item(),
            learning_rate=rate,
            grad_norm=norm.item(),
            tokens_per_s=batch.tokens / (now - clock),
            step_s=now - clock,
            eta_s=(now - began) / (state.step - began_at) * (total - state.step),
        )
        epoch_over = state.step % per_epoch == 0
        if epoch_over:
            done = _close_epoch(model, validation, state, epoch + 1, now - epoch_began)
            state = replace(
                state,
                epoch_loss=0.0,
                epoch_rows=0,
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


def _close_epoch(
    model: PeftModel, validation: Examples, state: LoopState, epoch: int, seconds: float
) -> EpochDone:
    loss = accuracy = None
    if len(validation):
        scores = logits(model, validation.tokens)
        loss = cross_entropy(scores, validation.targets).item()
        accuracy = (scores.argmax(dim=1) == validation.targets).double().mean().item()
    return EpochDone(
        epoch=epoch,
        step=state.step,
        train_loss=state.epoch_loss / state.epoch_rows,
        validation_loss=loss,
        validation_accuracy=accuracy,
        seconds=seconds,
    )
