"""Rewards are given for what is right, and for nothing else."""

import pytest

from domain.jobs.spec import GrpoConfig
from gpu_agent.rewards import PatternUnfit, exact_match, make_reward, numeric


@pytest.mark.parametrize(
    ("answer", "expected", "reward"),
    [("red", "red", 1.0), (" red\n", "red", 1.0), ("Red", "red", 0.0), ("red.", "red", 0.0)],
)
def test_exact_match_is_of_all_but_blanks_around(answer: str, expected: str, reward: float) -> None:
    assert exact_match(answer, expected) == reward


@pytest.mark.parametrize(
    ("answer", "expected", "reward"),
    [
        ("3 + 4 = 7", "7", 1.0),
        ("so it is 1,250.50 euros", "1250.5", 1.0),
        ("7", "#### 7", 1.0),
        ("-7", "7", 0.0),
        ("it is 7, or 8", "7", 0.0),
        ("seven", "7", 0.0),
        ("7", "seven", 0.0),
        ("1e3", "1000", 1.0),
    ],
)
def test_last_number_counts(answer: str, expected: str, reward: float) -> None:
    assert numeric(answer, expected) == reward


def test_pattern_is_to_be_found_and_its_group_is_the_answer() -> None:
    found = make_reward(GrpoConfig(reward="regular_expression", pattern=r"<b>.+</b>"))
    group = make_reward(GrpoConfig(reward="regular_expression", pattern=r"<b>(.+?)</b>"))

    assert [found(text, "x") for text in ("a <b>c</b>", "<b></b>")] == [1.0, 0.0]
    assert [group(text, "c") for text in ("a <b> c </b>", "<b>d</b>", "c")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("pattern", [None, "", "(", "["])
def test_pattern_that_is_none_is_an_outcome(pattern: str | None) -> None:
    with pytest.raises(PatternUnfit, match=r"grpo\.pattern") as outcome:
        make_reward(GrpoConfig(reward="regular_expression", pattern=pattern))

    assert outcome.value.fact().code == "pattern_unfit"
