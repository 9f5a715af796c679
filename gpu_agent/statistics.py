"""Whether one system is better than another on the same rows: an exact test and intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "worse", "inconclusive"]

RESAMPLES = 10_000  # the interval's ends then move by about a twentieth of its width with the seed
SEED = 20_261_120  # fixed, so that the same outputs always get the same interval
SIGNIFICANCE = 0.05
DRAWN_AT_ONCE = 1 << 21  # row numbers of 8 bytes, and twice their values: under 64 MiB


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second system against the first, over paired rows."""

    only_first: int  # rows that only the first system gets right
    only_second: int
    p_value: float
    ci95: tuple[float, float]  # of the difference in accuracy, second minus first
    verdict: Verdict  # on the second


def compare(first: Sequence[bool], second: Sequence[bool]) -> Comparison:
    """Compare which rows two systems get right, at least one row, in the same order."""
    pairs = list(zip(first, second, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    p_value = mcnemar(only_first, only_second)
    ci95 = bootstrap_interval(only_first, only_second, len(pairs))
    return Comparison(only_first, only_second, p_value, ci95, verdict(p_value, ci95))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value: where the two disagree, each is as likely to be the right one.

    McNemar 1947 in its binomial form: twice the smaller tail of Binomial(n, 1/2), at most 1.
    """
    disagreements = only_first + only_second
    fewer = min(only_first, only_second)
    tail = sum(comb(disagreements, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << disagreements))


def bootstrap_interval(only_first: int, only_second: int, rows: int) -> tuple[float, float]:
    """Give the 95 % percentile interval of the difference in accuracy, rows drawn in pairs.

    A resample is known by how often each kind of row was drawn, and those counts are multinomial:
    drawing them is drawing the rows.
    """
    shares = np.array([only_first, only_second, rows - only_first - only_second]) / rows
    drawn = np.random.default_rng(SEED).multinomial(rows, shares, size=RESAMPLES)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / rows, [0.025, 0.975])
    return float(low), float(high)


def ratio_interval(
    differences: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Give the 95 % percentile interval of sum(differences) / sum(weights), rows drawn in pairs.

    Both hold one value a row, and a row's two values are drawn together; equal weights make it the
    interval of the mean difference.
    """
    rows = len(differences)
    rng = np.random.default_rng(SEED)
    resamples = max(1, DRAWN_AT_ONCE // rows)
    ratios = []
    for start in range(0, RESAMPLES, resamples):
        drawn = rng.integers(rows, size=(min(resamples, RESAMPLES - start), rows))
        ratios.append(differences[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    return float(low), float(high)


def verdict_where_less_is_better(ci95: tuple[float, float]) -> Verdict:
    """Call a difference, second minus first, whose interval lies on one side of zero."""
    low, high = ci95
    if high < 0:
        return "better"
    return "worse" if low > 0 else "inconclusive"


def verdict(p_value: float, ci95: tuple[float, float]) -> Verdict:
    """Call a difference only when the test and the interval agree that there is one."""
    low, high = ci95
    if p_value < SIGNIFICANCE and low > 0:
        return "better"
    if p_value < SIGNIFICANCE and high < 0:
        return "worse"
    return "inconclusive"
