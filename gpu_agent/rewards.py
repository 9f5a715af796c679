"""Rewards that can be checked: whether an answer is right, by rules that need no model."""

import re
from collections.abc import Callable
from typing import Final, assert_never

from domain.jobs.spec import GrpoConfig
from gpu_agent.outcomes import WorkFailed

NUMBER: Final = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
CLOSE: Final = 1e-6  # relative: what rounding in another order changes

Reward = Callable[[str, str], float]  # of an answer and of what is expected; from 0 to 1


class PatternUnfit(WorkFailed):
    """The pattern is missing, or no regular expression."""

    code = "pattern_unfit"


def make_reward(config: GrpoConfig) -> Reward:
    """Build the rule that a job names.

    Raises:
        PatternUnfit: there is no pattern, or it cannot be read.
    """
    match config.reward:
        case "exact_match":
            return exact_match
        case "numeric":
            return numeric
        case "regular_expression":
            return _found(config.pattern)
        case _:
            assert_never(config.reward)


def exact_match(answer: str, expected: str) -> float:
    """1 for the same words, whatever blanks stand around them."""
    return float(answer.strip() == expected.strip())


def numeric(answer: str, expected: str) -> float:
    """1 where the last number of both is the same; 0 where there is none."""
    said, wanted = _last_number(answer), _last_number(expected)
    if said is None or wanted is None:
        return 0.0
    return float(abs(said - wanted) <= CLOSE * max(1.0, abs(wanted)))


def _found(pattern: str | None) -> Reward:
    if not pattern:
        raise PatternUnfit("grpo.reward regular_expression needs grpo.pattern")
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise PatternUnfit(f"grpo.pattern is no regular expression: {error}") from error

    def reward(answer: str, expected: str) -> float:
        found = compiled.search(answer)
        if found is None or not compiled.groups:
            return float(found is not None)
        return exact_match(found.group(1) or "", expected)

    return reward


def _last_number(text: str) -> float | None:
    numbers = NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None
