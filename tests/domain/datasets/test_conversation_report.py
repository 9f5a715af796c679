"""A report of conversations counts what is learned, repeated and contradictory, and shows one."""

import json

from domain.datasets.conversation_report import (
    MAX_EXAMPLE_CHARS,
    MAX_EXAMPLE_MESSAGES,
    ConversationReportBuilder,
    example,
)
from domain.datasets.conversations import Conversation, Message
from domain.datasets.events import DatasetValidated
from domain.work import Segment
from tests.samples import DATASET


def chat(*contents: str, learned: tuple[int, ...] = (), raw: bool = False) -> Conversation:
    """User and assistant in turn; ``learned`` are the messages that are, and the last one is."""
    messages = [
        Message(
            "assistant" if index % 2 else "user",
            content,
            supervised=index in learned or index == len(contents) - 1,
        )
        for index, content in enumerate(contents)
    ]
    return Conversation(1, tuple(messages), raw)


def report(*conversations: Conversation) -> ConversationReportBuilder:
    builder = ConversationReportBuilder()
    for conversation in conversations:
        builder.add(conversation)
    return builder


def test_messages_and_those_that_are_learnt_are_counted() -> None:
    found = report(chat("a", "bc", "d", "e", learned=(1,)), chat("a", "b", "c", "d"))

    assert (found.messages, found.supervised_messages) == (8, 3)
    assert (found.longest_chars, found.mean_chars) == (5, 4.5)


def test_same_prompt_and_answer_again_is_a_duplicate() -> None:
    found = report(chat("a", "x"), chat("a", "x"), chat("a", "x"), chat("a", "x", "a", "x"))

    assert (found.duplicate_rows, found.conflicting_prompts) == (2, 0)


def test_a_prompt_before_different_answers_is_counted_once() -> None:
    found = report(chat("a", "x"), chat("a", "y"), chat("a", "z"), chat("a", "y"), chat("b", "x"))

    assert (found.duplicate_rows, found.conflicting_prompts) == (1, 1)


def test_the_first_conversation_is_shown_with_what_is_learnt() -> None:
    found = report(chat("a", "b", "c", "d"), chat("e", "f"))

    assert found.example == (
        Segment(text="user: a", supervised=False),
        Segment(text="assistant: b", supervised=False),
        Segment(text="user: c", supervised=False),
        Segment(text="assistant: d", supervised=True),
    )


def test_prompt_and_completion_are_shown_as_they_stand() -> None:
    assert [segment.text for segment in example(chat("a ->", " b", raw=True))] == ["a ->", " b"]


def test_a_long_conversation_is_shown_with_its_beginning_and_its_answer() -> None:
    contents = [f"message {index}" for index in range(30)]

    shown = example(chat(*contents))

    assert len(shown) == MAX_EXAMPLE_MESSAGES + 1
    assert shown[0].text == "user: message 0"
    assert shown[-1] == Segment(text="assistant: message 29", supervised=True)
    assert shown[-2].text == "… 18 messages left out …"
    assert shown[-3].text == "user: message 10"


def test_the_largest_example_fits_into_an_event() -> None:
    shown = example(chat(*["\x01" * 5000] * 1000))

    assert all(len(segment.text) <= MAX_EXAMPLE_CHARS for segment in shown)
    event = DatasetValidated(
        dataset_id=DATASET,
        duplicate_rows=0,
        conflicting_texts=0,
        longest_text_chars=0,
        mean_text_chars=0,
        example=shown,
    )
    assert len(json.dumps(event.model_dump(mode="json"))) < 60 * 1024


def test_nothing_at_all_is_reported_as_nothing() -> None:
    assert (report().mean_chars, report().example) == (0.0, ())
