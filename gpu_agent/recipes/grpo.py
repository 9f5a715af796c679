"""Reinforcement of a causal language model by rewards that can be checked (GRPO): a flat generator of facts."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from domain.datasets.conversations import Conversation
from domain.work import Fact, TrainAssignment
from gpu_agent import loop, losses
from gpu_agent.answer_sampling import sample_answers
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
from gpu_agent.lora import training_mode, without_adapter
from gpu_agent.packing import (
    implementation,
    micro_batches,
    row_by_row,
    supervised_at_once,
    token_log_probs,
)
from gpu_agent.protocol import ChildInput
from gpu_agent.rendering import ConversationRefused, Rendered, prompt_ids, text_ids
from gpu_agent.rewards import Reward, make_reward
from gpu_agent.schedule import log, require_validation, warning
from gpu_agent.supervision import NothingSupervised

CLIP = 0.2  # of the paper; every step has answers of its own, so that nothing is ever clipped
MEASURED_AT_ONCE = 64  # prompts


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt as the model reads it, and the answer that is right."""

    prompt: tuple[int, ...]
    expected: str


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer of the model's own, and how much better it was than the others to its prompt."""

    rendered: Rendered
    advantage: float

    @property
    def tokens(self) -> int:
        return self.rendered.tokens

    @property
    def targets(self) -> int:
        return self.rendered.targets


def train(order: ChildInput, assignment: TrainAssignment) -> Iterator[Fact]:
    """Train as ``assignment`` says, from its checkpoint if it has one, and leave an adapter folder.

    Raises:
        WorkFailed: the job cannot be done as it is stated.
    """
    spec = assignment.spec
    config = spec.hyperparameters
    reward = make_reward(config.grpo)
    learner = yield from language_learner(order, assignment)
    model = learner.model
    splits = read_conversation_splits(spec, order.files.train, order.files.test)
    longest = min(config.max_length, model.max_tokens - config.grpo.max_new_tokens)
    tasks = find_tasks(model, splits.train, longest)
    validation = find_tasks(model, splits.validation, longest)
    yield log(
        f"prompts: {len(tasks)} for training, {len(validation)} for validation, "
        f"{len(splits.test)} held out; answers are rewarded by {config.grpo.reward}"
    )
    if splits.leaked:
        yield warning(f"{splits.leaked} training rows were left out: they are in the test file")
    if dropped := len(splits.train) - len(tasks):
        yield warning(f"{dropped} prompts are longer than {longest} tokens and left out")
    if not tasks:
        raise NothingSupervised(f"no prompt leaves room for an answer within {longest} tokens")
    require_validation(config, len(validation))
    yield language_started(
        assignment,
        learner,
        train_rows=len(tasks),
        validation_rows=len(validation),
        test_rows=len(splits.test),
    )
    began = time.monotonic()
    plan = language_plan(order, assignment, learner, may_diverge=False)
    state = yield from steps(model, learner.weights, tasks, validation, reward, plan)
    yield log(f"finished {state.step} steps")
    yield language_finished(order, assignment, learner, state, train_rows=len(tasks), began=began)


def find_tasks(
    model: LanguageModel, conversations: Sequence[Conversation], longest: int
) -> list[Task]:
    """Encode the prompts; those that are longer than ``longest`` tokens are left out."""
    found = []
    for conversation in conversations:
        if conversation.tools or any(each.role == "tool" for each in conversation.messages):
            raise ConversationRefused(f"line {conversation.line}: no tool is there to be asked")
        turns = [(message.role, message.content) for message in conversation.messages[:-1]]
        if conversation.raw:
            ids = text_ids(model.tokenizer, "".join(content for _, content in turns))
        else:
            ids = prompt_ids(model.tokenizer, turns)
        if len(ids) <= longest:
            found.append(Task(tuple(ids), conversation.answer))
    return found


def steps(
    model: LanguageModel,
    weights: Mapping[str, nn.Parameter],
    tasks: Sequence[Task],
    validation: Sequence[Task],
    reward: Reward,
    plan: Plan,
) -> Generator[Fact, None, LoopState]:
    """Train ``weights`` in place, one ``StepDone`` per optimizer step; returns where the loop ended."""
    alone = implementation(model.network)
    with row_by_row(model.network) as together:
        if not together:
            yield warning("rows run one at a time: this model's attention cannot be packed exactly")
        rewarded = Rewarded(model, tasks, validation, reward, plan, together, alone)
        return (yield from loop.steps(rewarded, weights, plan))


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What was better than the model's other answers to the same prompt becomes likelier."""

    model: LanguageModel
    train: Sequence[Task]
    validation: Sequence[Task]
    reward: Reward
    plan: Plan
    together: bool  # whether rows may be packed; see ``row_by_row``
    attention: str  # with which the model answers

    @property
    def rows(self) -> int:
        return len(self.train)

    def batches(self, epoch: int) -> Sequence[Rows]:
        size, seed = self.plan.config.batch_size, self.plan.seed
        return shuffled_batches(self.rows, size, seed, epoch)

    def prepare(self, rows: Rows, step: int) -> Sequence[Sample]:
        """Answer each prompt several times; the seed is a function of the job's and the step."""
        how = self.plan.config.grpo
        tasks = [self.train[row] for row in rows for _ in range(how.group_size)]
        self.training(on=False)
        answers = self.answers(tasks, seed=self.plan.seed * 1_000_003 + step)
        self.training(on=True)
        rewards = torch.tensor(
            [self.of(answer, task) for answer, task in zip(answers, tasks, strict=True)]
        )
        gained = losses.advantages(rewards.view(-1, how.group_size)).flatten().tolist()
        rendered = [_read(task, answer) for task, answer in zip(tasks, answers, strict=True)]
        return [Sample(*pair) for pair in zip(rendered, gained, strict=True)]

    def parts(self, batch: Sequence[Sample], tokens: int) -> Sequence[Sequence[Sample]]:
        supervised = supervised_at_once(self.model.network)
        return list(micro_batches(batch, tokens, supervised, together=self.together))

    def terms(self, batch: Sequence[Sample]) -> int:
        return len(batch)

    def tokens(self, batch: Sequence[Sample]) -> int:
        return sum(sample.tokens for sample in batch)

    def loss(self, part: Sequence[Sample]) -> Tensor:
        how = self.plan.config.grpo
        rows = [sample.rendered for sample in part]
        found = self.log_probs(rows)
        reference = None
        if how.beta:
            with torch.no_grad(), without_adapter(self.model):
                reference = _padded(self.log_probs(rows))
        tokens = _padded(found)
        lengths = torch.tensor([len(each) for each in found], device=tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        advantage = torch.tensor([sample.advantage for sample in part], device=tokens.device)
        return losses.grpo(
            tokens, tokens.detach(), reference, advantage, mask, clip=CLIP, beta=how.beta
        ).sum()

    def log_probs(self, rows: Sequence[Rendered]) -> list[Tensor]:
        network, device = self.model.network, self.model.device
        return token_log_probs(network, rows, device, together=self.together)

    def answers(self, tasks: Sequence[Task], seed: int | None) -> list[tuple[int, ...]]:
        how, network = self.plan.config.grpo, self.model.network
        packed = implementation(network)
        network.set_attn_implementation(self.attention)
        try:
            return sample_answers(
                network,
                [task.prompt for task in tasks],
                self.model.eos_ids,
                how.max_new_tokens,
                how.temperature,
                seed,
            )
        finally:
            network.set_attn_implementation(packed)

    def of(self, answer: Sequence[int], task: Task) -> float:
        said = [token for token in answer if token not in self.model.eos_ids]
        return self.reward(self.model.tokenizer.decode(said), task.expected)

    def measure(self) -> Measured:
        """What the likeliest answers earn, in the mean; the loss is what they fail to earn."""
        self.training(on=False)
        if not self.validation:
            return Measured(None, None)
        earned = 0.0
        for start in range(0, len(self.validation), MEASURED_AT_ONCE):
            tasks = self.validation[start : start + MEASURED_AT_ONCE]
            answers = self.answers(tasks, seed=None)
            earned += sum(map(self.of, answers, tasks))
        mean = earned / len(self.validation)
        return Measured(1 - mean, mean)

    def training(self, *, on: bool) -> None:
        training_mode(self.model, on=on)


def _read(task: Task, answer: tuple[int, ...]) -> Rendered:
    supervised = (False,) * len(task.prompt) + (True,) * len(answer)
    ids = task.prompt + answer
    return Rendered(ids, supervised, truncated=False, full_length=len(ids))


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
