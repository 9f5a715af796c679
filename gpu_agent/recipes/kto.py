"""Preference tuning of a causal language model by answers that are wanted or not (KTO): a flat generator of facts."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from domain.datasets.preferences import RatedCompletion
from domain.work import Fact, TrainAssignment
from gpu_agent import loop, losses
from gpu_agent.checkpoints import LoopState
from gpu_agent.data import RowSplits, shuffled_batches
from gpu_agent.language_model import LanguageModel
from gpu_agent.learner import (
    language_finished,
    language_learner,
    language_plan,
    language_started,
)
from gpu_agent.loop import Measured, Plan, Rows
from gpu_agent.lora import training_mode, without_adapter
from gpu_agent.packing import answer_log_probs, micro_batches, row_by_row, supervised_at_once
from gpu_agent.protocol import ChildInput
from gpu_agent.rendering import Rendered, render
from gpu_agent.schedule import debug, log, require_validation, warning
from gpu_agent.supervision import learnable, supervise, told


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer as the model reads it, and how likely the reference finds it."""

    row: RatedCompletion
    rendered: Rendered
    reference: float = 0.0  # log p, summed over the answer's tokens

    @property
    def tokens(self) -> int:
        return self.rendered.tokens

    @property
    def targets(self) -> int:
        return self.rendered.targets


@dataclass(frozen=True, slots=True)
class Batch:
    rows: Sequence[Rated]
    divergence: float  # of the whole batch, also where only a part of it is computed


def train(
    order: ChildInput, assignment: TrainAssignment, splits: RowSplits[RatedCompletion]
) -> Iterator[Fact]:
    """Train as ``assignment`` says, from its checkpoint if it has one, and leave an adapter folder.

    Raises:
        WorkFailed: the job cannot be done as it is stated.
    """
    spec = assignment.spec
    config = spec.hyperparameters
    learner = yield from language_learner(order, assignment)
    model = learner.model
    yield log(
        f"rated answers: {len(splits.train)} for training, {len(splits.validation)} for "
        f"validation, {len(splits.test)} held out"
    )
    if splits.leaked:
        yield warning(
            f"{splits.leaked} training rows were left out: their prompt is in the test file"
        )
    longest = min(config.max_length, model.max_tokens)
    rows = rated(model, splits.train, longest)
    validation = rated(model, splits.validation, longest)
    require_validation(config, len(validation))
    everything = [row.answered() for row in splits.train]
    found = supervise(
        model.tokenizer, learnable(model.tokenizer, everything, longest), config, longest, spec.seed
    )
    yield from told(found, longest, quoting=not spec.people)
    wanted = sum(row.row.desirable for row in rows)
    yield log(f"{wanted} answers are wanted and {len(rows) - wanted} are not")
    yield language_started(
        assignment,
        learner,
        train_rows=len(rows),
        validation_rows=len(validation),
        test_rows=len(splits.test),
        supervision=found,
    )
    began = time.monotonic()
    plan = language_plan(order, assignment, learner)
    state = yield from steps(model, learner.weights, rows, validation, longest, plan)
    yield log(f"finished {state.step} steps; mean loss of the last epoch {state.final_loss:.4f}")
    yield language_finished(order, assignment, learner, state, train_rows=len(rows), began=began)


def rated(model: LanguageModel, rows: Sequence[RatedCompletion], longest: int) -> list[Rated]:
    """Encode rows, and leave out those of whose answer nothing is left."""
    every = (Rated(row, render(model.tokenizer, row.answered(), longest)) for row in rows)
    return [each for each in every if each.targets]


def steps(
    model: LanguageModel,
    weights: Mapping[str, nn.Parameter],
    rows: Sequence[Rated],
    validation: Sequence[Rated],
    longest: int,
    plan: Plan,
) -> Generator[Fact, None, LoopState]:
    """Train ``weights`` in place, one ``StepDone`` per optimizer step; returns where the loop ended."""
    with row_by_row(model.network) as together:
        if not together:
            yield warning("rows run one at a time: this model's attention cannot be packed exactly")
        objective = yield from _with_reference(
            Wanted(model, rows, validation, longest, plan, together)
        )
        return (yield from loop.steps(objective, weights, plan))


def _with_reference(objective: "Wanted") -> Generator[Fact, None, "Wanted"]:
    """Ask the base, once, how likely it finds every answer; nothing of it changes afterwards."""
    rows: list[Rated] = []
    every = [*objective.train, *objective.validation]
    with torch.no_grad(), without_adapter(objective.model):
        for part in objective.cut(every, objective.plan.micro_batch_tokens):
            found = objective.log_probs([row.rendered for row in part]).tolist()
            rows += [replace(row, reference=value) for row, value in zip(part, found, strict=True)]
            yield debug(f"the base has read {len(rows)} of {len(every)} answers")
    yield log(f"the base has read {len(every)} answers")
    trained = len(objective.train)
    return replace(objective, train=rows[:trained], validation=rows[trained:])


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer gained over the base, weighed against what any answer gained."""

    model: LanguageModel
    train: Sequence[Rated]
    validation: Sequence[Rated]
    longest: int  # tokens of a row
    plan: Plan
    together: bool  # whether rows may be packed; see ``row_by_row``

    @property
    def rows(self) -> int:
        return len(self.train)

    def batches(self, epoch: int) -> Sequence[Rows]:
        size, seed = self.plan.config.batch_size, self.plan.seed
        return shuffled_batches(self.rows, size, seed, epoch)

    def prepare(self, rows: Rows, step: int) -> Batch:  # noqa: ARG002 - others need it
        chosen = [self.train[row] for row in rows]
        divergence = self.divergence(chosen)
        self.training(on=True)
        return Batch(chosen, divergence)

    def parts(self, batch: Batch, tokens: int) -> Sequence[Batch]:
        return [replace(batch, rows=part) for part in self.cut(batch.rows, tokens)]

    def cut(self, rows: Sequence[Rated], tokens: int) -> Iterator[list[Rated]]:
        supervised = supervised_at_once(self.model.network)
        return micro_batches(rows, tokens, supervised, together=self.together)

    def terms(self, batch: Batch) -> int:
        return len(batch.rows)

    def tokens(self, batch: Batch) -> int:
        return sum(row.tokens for row in batch.rows)

    def loss(self, part: Batch) -> Tensor:
        return self.each(part)[0].sum()

    def log_probs(self, rows: Sequence[Rendered]) -> Tensor:
        network, device = self.model.network, self.model.device
        return answer_log_probs(network, rows, device, together=self.together)

    def each(self, part: Batch) -> tuple[Tensor, Tensor]:
        """(R,) losses, and (R,) what the answers gained over the base."""
        how = self.plan.config.preference
        answers = self.log_probs([row.rendered for row in part.rows])
        device = answers.device
        reference = torch.tensor([row.reference for row in part.rows], device=device)
        found = losses.kto(
            answers,
            reference,
            torch.tensor([row.row.desirable for row in part.rows], device=device),
            torch.tensor(part.divergence, device=device),
            beta=how.beta,
            desirable_weight=how.desirable_weight,
            undesirable_weight=how.undesirable_weight,
        )
        return found, answers - reference

    @torch.no_grad()
    def divergence(self, rows: Sequence[Rated]) -> float:
        """Estimate how far the policy has left the base: each prompt with the answer to the one before."""
        mismatched = [
            render(
                self.model.tokenizer,
                replace(row.row, completion=other.row.completion).answered(),
                self.longest,
            )
            for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True)
        ]
        kept = [row for row in mismatched if row.targets]
        if len(rows) < 2 or not kept:
            return 0.0  # there is no answer but the prompt's own
        self.training(on=False)
        supervised = supervised_at_once(self.model.network)
        parts = list(
            micro_batches(kept, self.plan.micro_batch_tokens, supervised, together=self.together)
        )
        policy = torch.cat([self.log_probs(part) for part in parts])
        with without_adapter(self.model):
            base = torch.cat([self.log_probs(part) for part in parts])
        return losses.kto_divergence(policy, base).item()

    @torch.no_grad()
    def measure(self) -> Measured:
        """Mean loss, and the share of answers that gained where they are wanted, or lost where not."""
        self.training(on=False)
        if not self.validation:
            return Measured(None, None)
        loss = right = 0.0
        size = self.plan.config.batch_size
        for start in range(0, len(self.validation), size):
            rows = self.validation[start : start + size]
            batch = Batch(rows, self.divergence(rows))
            for part in self.parts(batch, self.plan.micro_batch_tokens):
                found, gained = self.each(part)
                loss += found.sum().item()
                right += sum(
                    (gain > 0) == row.row.desirable
                    for gain, row in zip(gained.tolist(), part.rows, strict=True)
                )
        return Measured(loss / len(self.validation), right / len(self.validation))

    def training(self, *, on: bool) -> None:
        training_mode(self.model, on=on)
