"""Held-out prompts put to a language model: which label it finds likeliest, what it says in words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from domain.datasets.conversations import Conversation, Message
from gpu_agent.decoding import Rows, left_padded
from gpu_agent.language_model import LanguageModel
from gpu_agent.likelihood import label_log_likelihoods
from gpu_agent.rendering import Rendered, render

MAX_LABELS = 64  # every one is scored after every prompt
ROWS_A_LABEL = 4  # on average; answers that come back less often are words and no labels
ANSWERED_AT_ONCE = 32  # more rows wait longer for the last of them
MORE_TOKENS = 8  # than the longest expected answer, to show how a longer one goes on
MAX_NEW_TOKENS = 256  # a longer answer is hardly ever met word for word
UNLIMITED = 1 << 30  # tokens


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out conversation as the model reads it."""

    conversation: Conversation
    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    prompt: tuple[int, ...]  # the ids before the last answer
    answer: tuple[int, ...]  # the last answer and the token that ends it
    in_words: str  # the last answer as generated tokens are read, with what its template adds

    @property
    def expected(self) -> str:
        return self.conversation.answer.strip()

    @property
    def answer_bytes(self) -> int:
        """Count the UTF-8 of all that is supervised."""
        messages = self.conversation.messages
        return sum(len(message.content.encode()) for message in messages if message.supervised)


def questions(
    model: LanguageModel, conversations: Sequence[Conversation], max_length: int
) -> list[Question]:
    """Render those that fit whole: of a row that is cut, no answer could be measured."""
    rendered = [(each, render(model.tokenizer, each, max_length)) for each in conversations]
    return [_question(model, each, whole) for each, whole in rendered if not whole.truncated]


def find_labels(conversations: Sequence[Conversation]) -> dict[str, str]:
    """Give the answers, sorted, and how each is mostly written; none if they are many or rare."""
    written: dict[str, Counter[str]] = {}
    for conversation in conversations:
        answer = conversation.answer
        written.setdefault(answer.strip(), Counter())[answer] += 1
    if not 2 <= len(written) <= min(MAX_LABELS, len(conversations) // ROWS_A_LABEL):
        return {}
    return {label: written[label].most_common(1)[0][0] for label in sorted(written)}


def label_scores(
    model: LanguageModel, asked: Sequence[Question], labels: dict[str, str]
) -> NDArray[np.float64]:
    """Sum log p, in nats, of every label with the token that ends it: (questions, labels)."""
    scores = np.empty((len(asked), len(labels)))
    for raw in (False, True):  # a completion ends otherwise than a turn of a chat
        rows = [at for at, question in enumerate(asked) if question.conversation.raw is raw]
        if rows:
            ids = _label_ids(model, asked[rows[0]].conversation, labels)
            prompts = [asked[at].prompt for at in rows]
            scores[rows] = label_log_likelihoods(model.network, prompts, ids)
    return scores


def likeliest(scores: NDArray[np.float64], labels: dict[str, str]) -> list[str]:
    """Name each row's best label; of two that are equally likely, the first."""
    names = list(labels)
    return [names[at] for at in scores.argmax(axis=1).tolist()]


def answer_batches(model: LanguageModel, asked: Sequence[Question]) -> Iterator[dict[int, str]]:
    """Generate greedy answers, some at a time: by the place in ``asked``, stripped."""
    most = min(MAX_NEW_TOKENS, MORE_TOKENS + max(len(question.answer) for question in asked))
    order = sorted(range(len(asked)), key=lambda at: len(asked[at].prompt), reverse=True)
    for start in range(0, len(order), ANSWERED_AT_ONCE):
        batch = order[start : start + ANSWERED_AT_ONCE]
        said = _greedy(model, [asked[at].prompt for at in batch], most)
        texts = [_text(model.tokenizer, ids) for ids in said]
        yield dict(zip(batch, texts, strict=True))


def first_token(model: LanguageModel, prompt: Sequence[int]) -> int:
    """Read a prompt and choose the token that its answer begins with."""
    with torch.inference_mode():
        return int(Rows(model.network, 1).read(*left_padded([prompt])).argmax())


def _question(model: LanguageModel, conversation: Conversation, rendered: Rendered) -> Question:
    supervised = rendered.supervised
    end = max(at for at, learned in enumerate(supervised, start=1) if learned)
    start = max((at for at in range(end) if not supervised[at]), default=-1) + 1
    answer = rendered.ids[start:end]
    return Question(
        conversation=conversation,
        ids=rendered.ids,
        supervised=supervised,
        prompt=rendered.ids[:start],
        answer=answer,
        in_words=_text(model.tokenizer, [token for token in answer if token not in model.eos_ids]),
    )


def _label_ids(
    model: LanguageModel, like: Conversation, labels: dict[str, str]
) -> list[tuple[int, ...]]:
    """Render each label as the answer of a conversation; its ids do not depend on the prompt."""
    ids = []
    for written in labels.values():
        messages = (*like.messages[:-1], Message("assistant", written, supervised=True))
        (question,) = questions(model, [replace(like, messages=messages)], UNLIMITED)
        ids.append(question.answer)
    return ids


def _greedy(model: LanguageModel, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Choose the likeliest token until one ends the answer, ``most`` are there, or the context is full."""
    said: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    with torch.inference_mode():
        rows = Rows(model.network, len(prompts))
        logits = rows.read(*left_padded(prompts))
        while True:
            going = []
            for place, token in enumerate(logits.argmax(dim=-1).tolist()):
                row = live[place]
                if token in model.eos_ids:
                    continue
                said[row].append(token)
                full = len(prompts[row]) + len(said[row]) >= model.max_tokens
                if len(said[row]) < most and not full:
                    going.append(place)
            if not going:
                return said
            if len(going) < len(live):
                rows.keep(going)
                live = [live[place] for place in going]
            logits = rows.read(torch.tensor([[said[row][-1]] for row in live]))


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()
