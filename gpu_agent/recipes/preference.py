"""Preference tuning of a causal language model by pairs of answers: DPO, ORPO and SimPO; a flat generator of facts."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from domain.datasets.preferences import PreferencePair
from domain.jobs.spec import Method
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
from gpu_agent.rendering import RenderedPair, render_pair
from gpu_agent.schedule import debug, log, require_validation, warning
from gpu_agent.supervision import Learnable, supervise, told


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers as the model reads them, and how likely the reference finds them."""

    rendered: RenderedPair
    reference: tuple[float, float] = (0.0, 0.0)  # log p of the better and of the worse, summed

    @property
    def tokens(self) -> int:
        return self.rendered.tokens

    @property
    def targets(self) -> int:
        return self.rendered.targets


def train(
    order: ChildInput, assignment: TrainAssignment, splits: RowSplits[PreferencePair]
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
        f"pairs of answers: {len(splits.train)} for training, {len(splits.validation)} for "
        f"validation, {len(splits.test)} held out"
    )
    if splits.leaked:
        yield warning(
            f"{splits.leaked} training rows were left out: their prompt is in the test file"
        )
    longest = min(config.max_length, model.max_tokens)
    rendered = [render_pair(model.tokenizer, pair, longest) for pair in splits.train]
    pairs = [Pair(each) for each in rendered if each.teaches]
    validated = [render_pair(model.tokenizer, pair, longest) for pair in splits.validation]
    validation = [Pair(each) for each in validated if each.teaches]
    require_validation(config, len(validation))
    answers = [row for each in rendered for row in (each.chosen, each.rejected)]
    taught = [row for pair in pairs for row in (pair.rendered.chosen, pair.rendered.rejected)]
    learnable = Learnable(
        rows=tuple(taught),
        truncated=sum(row.truncated for row in answers),
        dropped=len(answers) - len(taught),
        longest=max((row.full_length for row in answers), default=0),
    )
    found = supervise(model.tokenizer, learnable, config, longest, spec.seed)
    yield from told(found, longest, quoting=not spec.people)
    yield language_started(
        assignment,
        learner,
        train_rows=len(pairs),
        validation_rows=len(validation),
        test_rows=len(splits.test),
        supervision=found,
    )
    began = time.monotonic()
    plan = language_plan(order, assignment, learner)
    state = yield from steps(model, learner.weights, pairs, validation, spec.method, plan)
    yield log(f"finished {state.step} steps; mean loss of the last epoch {state.final_loss:.4f}")
    yield language_finished(order, assignment, learner, state, train_rows=len(pairs), began=began)


def steps(
    model: LanguageModel,
    weights: Mapping[str, nn.Parameter],
    pairs: Sequence[Pair],
    validation: Sequence[Pair],
    method: Method,
    plan: Plan,
) -> Generator[Fact, None, LoopState]:
    """Train ``weights`` in place, one ``StepDone`` per optimizer step; returns where the loop ended."""
    with row_by_row(model.network) as together:
        if not together:
            yield warning("rows run one at a time: this model's attention cannot be packed exactly")
        compared = Compared(model, pairs, validation, method, plan, together)
        if method == "dpo":
            compared = yield from _with_reference(compared)
        return (yield from loop.steps(compared, weights, plan))


def _with_reference(compared: "Compared") -> Generator[Fact, None, "Compared"]:
    """Ask the base, once, how likely it finds every answer; nothing of it changes afterwards."""
    began = time.monotonic()
    pairs: list[Pair] = []
    every = [*compared.train, *compared.validation]
    with torch.no_grad(), without_adapter(compared.model):
        for part in compared.parts(every, compared.plan.micro_batch_tokens):
            found = compared.log_probs(part).tolist()
            pairs += [
                replace(pair, reference=(chosen, rejected))
                for pair, (chosen, rejected) in zip(part, found, strict=True)
            ]
            yield debug(f"the base has read {len(pairs)} of {len(every)} pairs")
    yield log(f"the base has read {len(every)} pairs in {time.monotonic() - began:.1f} s")
    rows = len(compared.train)
    return replace(compared, train=pairs[:rows], validation=pairs[rows:])


@dataclass(frozen=True, slots=True)
class Compared:
    """The loss of each pair by itself, and the mean over all of them."""

    model: LanguageModel
    train: Sequence[Pair]
    validation: Sequence[Pair]
    method: Method
    plan: Plan
    together: bool  # whether rows may be packed; see ``row_by_row``

    @property
    def rows(self) -> int:
        return len(self.train)

    def batches(self, epoch: int) -> Sequence[Rows]:
        size, seed = self.plan.config.batch_size, self.plan.seed
        return shuffled_batches(self.rows, size, seed, epoch)

    def prepare(self, rows: Rows, step: int) -> Sequence[Pair]:  # noqa: ARG002 - others need it
        return [self.train[row] for row in rows]

    def parts(self, batch: Sequence[Pair], tokens: int) -> Sequence[Sequence[Pair]]:
        supervised = supervised_at_once(self.model.network)
        return list(micro_batches(batch, tokens, supervised, together=self.together))

    def terms(self, batch: Sequence[Pair]) -> int:
        return len(batch)

    def tokens(self, batch: Sequence[Pair]) -> int:
        return sum(pair.tokens for pair in batch)

    def loss(self, part: Sequence[Pair]) -> Tensor:
        return self.each(part)[0].sum()

    def log_probs(self, part: Sequence[Pair]) -> Tensor:
        """(P, 2) of the better answers and the worse ones, summed over their tokens."""
        rows = [row for pair in part for row in (pair.rendered.chosen, pair.rendered.rejected)]
        network, device = self.model.network, self.model.device
        return answer_log_probs(network, rows, device, together=self.together).view(-1, 2)

    def each(self, part: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """(P,) losses, and (P,) by how much the better answers win."""
        how = self.plan.config.preference
        sums = self.log_probs(part)
        if self.method == "dpo":
            first = torch.tensor([pair.reference for pair in part], device=sums.device)
            found = losses.dpo(
                *sums.unbind(1),
                *first.unbind(1),
                beta=how.beta,
                label_smoothing=how.label_smoothing,
            )
            gained = sums - first
            return found, gained[:, 0] - gained[:, 1]
        lengths = [(pair.rendered.chosen.targets, pair.rendered.rejected.targets) for pair in part]
        means = sums / torch.tensor(lengths, device=sums.device)
        chosen, rejected = means.unbind(1)
        if self.method == "simpo":
            found = losses.simpo(chosen, rejected, beta=how.beta, gamma=how.gamma)
        else:
            found = losses.orpo(chosen, rejected, lambda_=how.lambda_)
        return found, chosen - rejected

    @torch.no_grad()
    def measure(self) -> Measured:
        """Mean loss, and the share of pairs whose better answer wins."""
        self.training(on=False)
        if not self.validation:
            return Measured(None, None)
        loss = right = 0.0
        for part in self.parts(self.validation, self.plan.micro_batch_tokens):
            found, margins = self.each(part)
            loss += found.sum().item()
            right += (margins > 0).sum().item()
        return Measured(loss / len(self.validation), right / len(self.validation))

    def training(self, *, on: bool) -> None:
        training_mode(self.model, on=on)
