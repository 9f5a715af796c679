"""Held-out prompts: how they are read, what counts as a label, and what is answered."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from domain.datasets.conversations import Conversation, Message
from gpu_agent.language_model import LanguageModel
from gpu_agent.likelihood import row_nats
from gpu_agent.questions import (
    ROWS_A_LABEL,
    Question,
    _greedy,
    answer_batches,
    find_labels,
    label_scores,
    likeliest,
    questions,
)
from gpu_agent.rendering import prompt_ids
from tests.gpu_agent import babble

LABELS = {"billing": "billing", "refund": "refund", "refund please": "refund please"}


def chat(text: str, answer: str, *before: tuple[str, str]) -> Conversation:
    turns = [*before, ("user", text), ("assistant", answer)]
    messages = (Message(role, said, role == "assistant") for role, said in turns)  # type: ignore[arg-type]
    return Conversation(1, tuple(messages))


def completion(text: str, answer: str) -> Conversation:
    messages = (Message("user", text, supervised=False), Message("assistant", answer, True))
    return Conversation(1, messages, raw=True)


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = tmp_path_factory.mktemp("models") / request.param
    return babble.load(babble.write_model(folder, request.param, ends=True))


def asked(model: LanguageModel, *conversations: Conversation) -> list[Question]:
    return questions(model, conversations, babble.CONTEXT)


def test_a_prompt_is_read_as_it_will_be_when_it_is_asked(model: LanguageModel) -> None:
    (question,) = asked(model, chat("where is it?", "refund"))

    assert list(question.prompt) == prompt_ids(model.tokenizer, [("user", "where is it?")])
    assert question.prompt + question.answer == question.ids
    assert question.answer[-1] in model.eos_ids
    assert question.expected == question.in_words == "refund"


def test_only_the_last_answer_is_asked_for_and_all_are_counted(model: LanguageModel) -> None:
    before = (("user", "hello"), ("assistant", "hellö"))

    (question,) = asked(model, chat("where is it?", "refund", *before))

    turns = [*before, ("user", "where is it?")]
    assert list(question.prompt) == prompt_ids(model.tokenizer, turns)
    assert question.answer_bytes == len("hellö".encode()) + len("refund")


def test_a_row_that_does_not_fit_whole_is_left_out(model: LanguageModel) -> None:
    short, long = chat("short", "refund"), chat("long " * 20, "refund")

    found = questions(model, [short, long], max_length=40)

    assert [question.conversation for question in found] == [short]


def test_answers_that_come_back_are_labels() -> None:
    rows = [chat("a", "refund")] * ROWS_A_LABEL + [chat("b", "billing")] * ROWS_A_LABEL

    assert find_labels(rows) == {"billing": "billing", "refund": "refund"}


def test_a_label_is_written_as_it_mostly_is() -> None:
    rows = [completion("a", " refund")] * 5 + [completion("a", "refund ")] + [chat("b", "no")] * 2

    assert find_labels(rows) == {"no": "no", "refund": " refund"}


@pytest.mark.parametrize(
    "rows",
    [
        [chat("a", f"answer {n}") for n in range(40)],
        [chat("a", f"answer {n % 10}") for n in range(10 * ROWS_A_LABEL - 1)],
        [chat("a", f"answer {n % 65}") for n in range(1000)],
        [chat("a", "always the same")] * 40,
    ],
    ids=["all different", "too rare", "too many", "one"],
)
def test_other_answers_are_free_text(rows: list[Conversation]) -> None:
    assert find_labels(rows) == {}


@pytest.mark.parametrize("row", [chat, completion])
def test_a_label_is_as_likely_as_the_same_answer_in_a_row(
    model: LanguageModel, row: "type[Conversation]"
) -> None:
    rows = asked(model, *(row(text, label) for text in ("x", "where is it?") for label in LABELS))  # type: ignore[arg-type,call-arg]

    scores = label_scores(model, rows, LABELS)

    nats = row_nats(model.network, [r.ids for r in rows], [r.supervised for r in rows])
    own = [scores[at, at % len(LABELS)] for at in range(len(rows))]
    np.testing.assert_allclose(own, -nats, atol=1e-4)


def test_chats_and_completions_may_stand_side_by_side(model: LanguageModel) -> None:
    rows = asked(model, chat("x", "refund"), completion("x", "refund"))

    scores = label_scores(model, rows, LABELS)

    alone = [label_scores(model, [row], LABELS)[0] for row in rows]
    np.testing.assert_allclose(scores, alone, atol=1e-4)


def test_of_equally_likely_labels_the_first_is_named() -> None:
    scores = np.array([[-3.0, -1.0, -2.0], [-1.0, -2.0, -1.0]])

    assert likeliest(scores, LABELS) == ["refund", "billing"]


@pytest.mark.parametrize("expected", ["no", "a longer answer than the model gives"])
def test_answers_are_those_of_each_prompt_alone(model: LanguageModel, expected: str) -> None:
    rows = asked(model, *(chat(text, expected) for text in ("x", "where is it?", "money!" * 9)))

    found: dict[int, str] = {}
    for batch in answer_batches(model, rows):
        found |= batch

    assert [found[at] for at in range(3)] == [
        plainly(model, row.prompt, len(expected)) for row in rows
    ]


def plainly(model: LanguageModel, prompt: Sequence[int], expected_bytes: int) -> str:
    """Greedy, without a cache, and at most nine tokens more than the answer's bytes."""
    ids = list(prompt)
    for _ in range(expected_bytes + 9):
        with torch.inference_mode():
            token = int(model.network(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in model.eos_ids:
            break
        ids.append(token)
    return str(model.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)).strip()


def test_an_answer_ends_where_the_context_does(tmp_path: Path) -> None:
    endless = babble.load(babble.write_model(tmp_path / "endless"))
    prompts = [row.prompt for row in asked(endless, chat("x" * 210, "no"), chat("x", "no"))]

    long, short = _greedy(endless, prompts, most=60)

    assert len(prompts[0]) + len(long) == babble.CONTEXT
    assert len(short) == 60
