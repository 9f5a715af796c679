"""Conversations are parted by seed and prompt alone, and no prompt stands on two sides."""

from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.datasets.conversations import Conversation, Message
from domain.datasets.split import (
    SplitImpossible,
    assign_conversation_splits,
    leaked_conversations,
)

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
seeds = st.integers(0, 2**32 - 1)


def asked(prompt: str, answer: str = "yes") -> Conversation:
    user, assistant = Message("user", prompt, False), Message("assistant", answer, True)
    return Conversation(1, (user, assistant))


def unique(count: int) -> list[Conversation]:
    return [asked(f"prompt {index}") for index in range(count)]


@given(count=st.integers(2, 300), seed=seeds, test=st.floats(0.01, 0.45), part=st.floats(0, 0.4))
@steady
def test_shares_hold_to_the_nearest_row(count: int, seed: int, test: float, part: float) -> None:
    splits = Counter(
        assign_conversation_splits(
            unique(count), seed=seed, validation_fraction=part, test_fraction=test
        )
    )

    assert splits["train"] >= 1
    assert splits["test"] >= 1
    assert abs(splits["test"] - count * test) <= 0.51 or splits["test"] == 1
    if count * (1 - test - part) >= 2:  # room for a training row besides the rounding
        assert abs(splits["validation"] - count * part) <= 0.51


@given(prompts=st.lists(st.integers(0, 8), min_size=2, max_size=60), seed=seeds)
@steady
def test_no_prompt_stands_on_two_sides(prompts: list[int], seed: int) -> None:
    conversations = [asked(f"prompt {p}", f"answer {n}") for n, p in enumerate(prompts)]
    if len(set(prompts)) == 1:
        return  # which a test below looks at

    splits = assign_conversation_splits(
        conversations, seed=seed, validation_fraction=0.2, test_fraction=0.3
    )

    sides = defaultdict(set)
    for prompt, split in zip(prompts, splits, strict=True):
        sides[prompt].add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "test"} <= set(splits)


@given(order=st.permutations(range(30)), seed=seeds)
@steady
def test_order_of_the_conversations_does_not_matter(order: list[int], seed: int) -> None:
    conversations = unique(30)

    def parted(indices: list[int]) -> dict[str, str]:
        chosen = [conversations[index] for index in indices]
        splits = assign_conversation_splits(
            chosen, seed=seed, validation_fraction=0.1, test_fraction=0.2
        )
        return dict(zip((each.prompt for each in chosen), splits, strict=True))

    assert parted(order) == parted(list(range(30)))


def test_same_seed_gives_the_same_split_on_every_machine_and_for_ever() -> None:
    splits = assign_conversation_splits(
        unique(10), seed=7, validation_fraction=0.2, test_fraction=0.2
    )

    assert "".join(split[0] + split[1] for split in splits) == "tetrtrvatetrtrvatrtr"


def test_other_seed_gives_another_split() -> None:
    first, second = (
        assign_conversation_splits(
            unique(100), seed=seed, validation_fraction=0.1, test_fraction=0.2
        )
        for seed in (1, 2)
    )

    assert first != second


def test_nothing_is_held_out_for_testing_when_a_test_file_is_given() -> None:
    splits = assign_conversation_splits(
        unique(20), seed=0, validation_fraction=0.2, test_fraction=0
    )

    assert Counter(splits) == {"train": 16, "validation": 4}


def test_one_conversation_is_trained_on_when_a_test_file_is_given() -> None:
    splits = assign_conversation_splits(unique(1), seed=0, validation_fraction=0.5, test_fraction=0)

    assert splits == ["train"]


@pytest.mark.parametrize(
    ("count", "said"), [(1, "there is 1 conversation"), (5, "the 5 conversations share a prompt")]
)
def test_conversations_with_one_prompt_cannot_be_parted(count: int, said: str) -> None:
    same = [asked("same", f"answer {index}") for index in range(count)]

    with pytest.raises(SplitImpossible, match=said) as caught:
        assign_conversation_splits(same, seed=0, validation_fraction=0.1, test_fraction=0.2)

    assert caught.value.label is None
    assert caught.value.counts == {"rows": count, "distinct_texts": 1}


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.1, -0.2), (0.5, 0.5)])
def test_fractions_must_leave_something_to_train_on(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="less than 1 together"):
        assign_conversation_splits(
            unique(9), seed=0, validation_fraction=validation, test_fraction=test
        )


def test_training_conversations_whose_prompt_is_tested_are_found() -> None:
    training = [asked("a", "1"), asked("b"), asked("c"), asked("a", "2")]

    assert leaked_conversations(training, [asked("a", "3"), asked("d")]) == [0, 3]


def test_who_said_it_is_part_of_the_prompt() -> None:
    told = (
        Message("system", "a", False),
        Message("user", "b", False),
        Message("assistant", "c", True),
    )
    joined = Message("user", "a\nb", False), Message("assistant", "c", True)

    assert leaked_conversations([Conversation(1, told)], [Conversation(1, joined)]) == []
