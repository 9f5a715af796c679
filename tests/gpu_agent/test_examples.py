"""Rows that are shown: those that tell the systems apart come first."""

import pytest

from gpu_agent.examples import EXAMPLE_CHARS, EXAMPLES, choose_examples, side_by_side


def test_examples_are_those_first_on_which_the_systems_differ() -> None:
    base = ["a"] * 50
    tuned = ["b" if at in {3, 30, 41} else "a" for at in range(50)]

    chosen = choose_examples(base, tuned)

    assert set(chosen[:3]) == {3, 30, 41}
    assert len(set(chosen)) == EXAMPLES
    assert chosen == choose_examples(base, tuned)


def test_few_rows_are_all_shown() -> None:
    assert sorted(choose_examples(["a"] * 5, ["a"] * 5)) == list(range(5))


@pytest.mark.parametrize(
    ("base", "tuned", "winner"),
    [("a", "a", "both"), ("a", "b", "base"), ("b", "a", "fine_tuned"), ("b", "b", "neither")],
)
def test_who_is_right_wins(base: str, tuned: str, winner: str) -> None:
    assert side_by_side("text", "a", base, tuned).winner == winner


def test_a_long_text_is_cut_and_says_so() -> None:
    text = side_by_side("x" * 1000, "a", "a", "a").text

    assert len(text) == EXAMPLE_CHARS
    assert text.endswith("…")
