"""Sequence classification by LoRA: a flat generator of facts from rows to an adapter folder."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy

from domain.work import Fact, Started, TrainAssignment, TrainingFinished
from gpu_agent import loop
from gpu_agent.base_models import find_base_model, places_for
from gpu_agent.classifier import add_lora, load_base, logits, save_adapter, trainable, training_mode
from gpu_agent.data import (
    Examples,
    epoch_batches,
    examples,
    make_batch,
    read_splits,
    shuffled_batches,
)
from gpu_agent.environment import describe, set_up
from gpu_agent.layers import compile_layers, recompute_layers
from gpu_agent.learner import state_before
from gpu_agent.loop import Measured, Plan, Rows
from gpu_agent.precision import autocast, name_of_precision
from gpu_agent.protocol import ChildInput
from gpu_agent.schedule import log, require_validation, total_steps, warning

# A batch of the usual size at the usual length is computed whole; larger ones are parted.
MICRO_BATCH_TOKENS: Final = 16_384


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
    precision = state_before(order, assignment).precision or config.precision
    precision = name_of_precision(precision, device)
    if config.gradient_checkpointing:
        recompute_layers(base.network)
    model = add_lora(base, files, config.lora, spec.seed).to(device)
    if config.compile:
        compile_layers(model)
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
    require_validation(config, len(validation))
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
        tuning="lora",
        precision=precision,
    )
    started = time.monotonic()
    plan = Plan(
        config=config,
        seed=spec.seed,
        precision=precision,
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        checkpoints=order.work_dir / "checkpoints",
        resume=order.files.checkpoint if assignment.resume_from else None,
    )
    labelled = Labels(model, rows, validation, plan)
    state = yield from loop.steps(labelled, parameters, plan)
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
        best_step=state.best_step,
    )


@dataclass(frozen=True, slots=True)
class Labels:
    """The cross-entropy of every row's label."""

    model: PeftModel
    train: Examples
    validation: Examples
    plan: Plan

    @property
    def rows(self) -> int:
        return len(self.train)

    def batches(self, epoch: int) -> Sequence[Rows]:
        size, seed = self.plan.config.batch_size, self.plan.seed
        if self.plan.config.group_by_length:
            return epoch_batches(self.train.tokens.lengths, size, seed, epoch)
        return shuffled_batches(self.rows, size, seed, epoch)

    def prepare(self, rows: Rows, step: int) -> Rows:  # noqa: ARG002 - others need it
        return rows

    def parts(self, batch: Rows, tokens: int) -> Sequence[Rows]:
        """Part a batch in its order; every row costs as much as the longest."""
        at_once = max(1, tokens // int(self.train.tokens.lengths[batch].max()))
        return np.split(batch, range(at_once, len(batch), at_once))

    def terms(self, batch: Rows) -> int:
        return len(batch)

    def tokens(self, batch: Rows) -> int:
        return int(self.train.tokens.lengths[batch].sum())

    def loss(self, part: Rows) -> Tensor:
        device = next(self.model.parameters()).device
        batch = make_batch(self.train.tokens, part, device)
        targets = self.train.targets[torch.from_numpy(part)].to(device)
        with autocast(self.plan.precision, device):
            said = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        return cross_entropy(said.logits.float(), targets, reduction="sum")

    def measure(self) -> Measured:
        if not len(self.validation):
            return Measured(None, None)
        scores = logits(self.model, self.validation.tokens)
        loss = cross_entropy(scores, self.validation.targets).item()
        right = scores.argmax(dim=1) == self.validation.targets
        return Measured(loss, right.double().mean().item())

    def training(self, *, on: bool) -> None:
        if on:
            training_mode(self.model)
        else:
            self.model.eval()
