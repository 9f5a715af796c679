"""Supervised fine-tuning of a causal language model: a flat generator of facts, rows to adapter.

Ouyang et al. 2022, section 3, step 1: cross-entropy of the demonstrated answers, and of nothing else.
"""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from domain.work import Fact, TrainAssignment
from gpu_agent import loop
from gpu_agent.checkpoints import LoopState
from gpu_agent.data import read_conversation_splits, shuffled_batches
from gpu_agent.language_model import LanguageModel
from gpu_agent.learner import (
    language_finished,
    language_learner,
    language_plan,
    language_started,
)
from gpu_agent.loop import Measured, Plan, Rows
from gpu_agent.lora import training_mode
from gpu_agent.packing import micro_batches, pack, predictions, row_by_row, supervised_at_once
from gpu_agent.protocol import ChildInput
from gpu_agent.rendering import Rendered
from gpu_agent.schedule import log, require_validation, warning
from gpu_agent.supervision import learnable, supervise, told


def train(order: ChildInput, assignment: TrainAssignment) -> Iterator[Fact]:
    """Train as ``assignment`` says, from its checkpoint if it has one, and leave an adapter folder.

    Raises:
        WorkFailed: the job cannot be done as it is stated.
    """
    spec = assignment.spec
    config = spec.hyperparameters
    learner = yield from language_learner(order, assignment)
    model = learner.model
    splits = read_conversation_splits(spec, order.files.train, order.files.test)
    yield log(
        f"conversations: {len(splits.train)} for training, {len(splits.validation)} for "
        f"validation, {len(splits.test)} held out"
    )
    if splits.leaked:
        yield warning(
            f"{splits.leaked} training rows were left out: their prompt is in the test file"
        )
    longest = min(config.max_length, model.max_tokens)
    rows = learnable(model.tokenizer, splits.train, longest)
    validation = learnable(model.tokenizer, splits.validation, longest).rows
    require_validation(config, len(validation))
    found = supervise(model.tokenizer, rows, config, longest, spec.seed)
    yield from told(found, longest, quoting=not spec.people)
    yield language_started(
        assignment,
        learner,
        train_rows=len(rows.rows),
        validation_rows=len(validation),
        test_rows=len(splits.test),
        supervision=found,
    )
    began = time.monotonic()
    plan = language_plan(order, assignment, learner)
    state = yield from steps(model, learner.weights, rows.rows, validation, plan)
    yield log(f"finished {state.step} steps; mean loss of the last epoch {state.final_loss:.4f}")
    yield language_finished(
        order, assignment, learner, state, train_rows=len(rows.rows), began=began
    )


def steps(
    model: LanguageModel,
    weights: Mapping[str, nn.Parameter],
    rows: Sequence[Rendered],
    validation: Sequence[Rendered],
    plan: Plan,
) -> Generator[Fact, None, LoopState]:
    """Train ``weights`` in place, one ``StepDone`` per optimizer step; returns where the loop ended."""
    with row_by_row(model.network) as together:
        if not together:
            yield warning("rows run one at a time: this model's attention cannot be packed exactly")
        answers = Answers(model, rows, validation, plan, together)
        return (yield from loop.steps(answers, weights, plan))


@dataclass(frozen=True, slots=True)
class Answers:
    """The cross-entropy of all supervised tokens, each of them alike."""

    model: LanguageModel
    train: Sequence[Rendered]
    validation: Sequence[Rendered]
    plan: Plan
    together: bool  # whether rows may be packed; see ``row_by_row``

    @property
    def rows(self) -> int:
        return len(self.train)

    def batches(self, epoch: int) -> Sequence[Rows]:
        size, seed = self.plan.config.batch_size, self.plan.seed
        return shuffled_batches(self.rows, size, seed, epoch)

    def prepare(self, rows: Rows, step: int) -> Sequence[Rendered]:  # noqa: ARG002 - others need it
        return [self.train[row] for row in rows]

    def parts(self, batch: Sequence[Rendered], tokens: int) -> Sequence[Sequence[Rendered]]:
        supervised = supervised_at_once(self.model.network)
        return list(micro_batches(batch, tokens, supervised, together=self.together))

    def terms(self, batch: Sequence[Rendered]) -> int:
        return sum(row.targets for row in batch)

    def tokens(self, batch: Sequence[Rendered]) -> int:
        return sum(row.tokens for row in batch)

    def loss(self, part: Sequence[Rendered]) -> Tensor:
        batch = pack(part, self.model.device)
        return cross_entropy(predictions(self.model.network, batch), batch.targets, reduction="sum")

    @torch.no_grad()
    def measure(self) -> Measured:
        """Mean loss and share of right predictions, over the supervised tokens of all rows."""
        self.training(on=False)
        targets = self.terms(self.validation)
        if not targets:
            return Measured(None, None)
        loss = right = 0.0
        for part in self.parts(self.validation, self.plan.micro_batch_tokens):
            batch = pack(part, self.model.device)
            logits = predictions(self.model.network, batch)
            loss += cross_entropy(logits, batch.targets, reduction="sum").item()
            right += (logits.argmax(dim=1) == batch.targets).sum().item()
        return Measured(loss / targets, right / targets)

    def training(self, *, on: bool) -> None:
        training_mode(self.model, on=on)
