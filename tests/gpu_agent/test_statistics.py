"""The test and the interval against numbers known by reasoning, and against SciPy."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from gpu_agent import statistics
from gpu_agent.statistics import (
    bootstrap_interval,
    compare,
    mcnemar,
    ratio_interval,
    verdict,
    verdict_where_less_is_better,
)


def test_no_disagreement_is_no_evidence() -> None:
    assert mcnemar(0, 0) == 1.0


def test_five_of_five_disagreements_have_p_of_two_in_thirty_two() -> None:
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(5, 0) == 2 / 32


def test_an_even_split_is_no_evidence() -> None:
    assert mcnemar(7, 7) == 1.0


@pytest.mark.parametrize(("first", "second"), [(1, 8), (3, 4), (36, 66), (0, 40), (400, 520)])
def test_p_value_equals_scipys_exact_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second, 0.5).pvalue

    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_thousands_of_disagreements_do_not_overflow() -> None:
    assert 0 <= mcnemar(1000, 4000) < 1e-300


def test_interval_of_equal_systems_is_a_point_at_zero() -> None:
    assert bootstrap_interval(0, 0, 100) == (0.0, 0.0)


def test_interval_is_as_wide_as_the_normal_approximation() -> None:
    low, high = bootstrap_interval(0, 100, 1000)

    half = 1.96 * sqrt(0.1 * 0.9 / 1000)  # each row adds 1 with probability 0.1
    assert low == pytest.approx(0.1 - half, abs=0.0015)  # steps of 0.001, and 10,000 draws
    assert high == pytest.approx(0.1 + half, abs=0.0015)


def test_interval_equals_that_of_resampled_rows() -> None:
    differences = np.array([1] * 30 + [-1] * 12 + [0] * 198)
    rows = np.random.default_rng(7).integers(0, 240, size=(10_000, 240))
    expected = np.quantile(differences[rows].mean(axis=1), [0.025, 0.975])

    assert bootstrap_interval(12, 30, 240) == pytest.approx(tuple(expected), abs=1.01 / 240)


def test_same_outputs_always_get_the_same_interval() -> None:
    assert bootstrap_interval(3, 9, 150) == bootstrap_interval(3, 9, 150)


def test_interval_of_a_mean_is_as_wide_as_the_normal_approximation() -> None:
    differences = np.random.default_rng(3).normal(0.5, 2.0, size=400)

    low, high = ratio_interval(differences, np.ones(400))

    half = 1.96 * differences.std() / sqrt(400)
    assert low == pytest.approx(differences.mean() - half, abs=0.06 * half)
    assert high == pytest.approx(differences.mean() + half, abs=0.06 * half)


def test_interval_of_a_ratio_equals_that_of_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(4)
    weights = rng.integers(1, 60, size=120).astype(np.float64)
    differences = rng.normal(-0.3, 1.0, size=120) * weights

    expected = bootstrap(
        (differences, weights),
        lambda first, second, axis: first.sum(axis=axis) / second.sum(axis=axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval

    found = ratio_interval(differences, weights)
    width = expected.high - expected.low
    assert found == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_long_rows_weigh_more_in_a_ratio() -> None:
    low, high = ratio_interval(np.array([8.0, 0.0] * 50), np.array([4.0, 1.0] * 50))

    assert low < 8 / 5 < high  # and not the mean of the rows' own ratios, which is 1
    assert low > 1


def test_interval_of_constant_differences_is_a_point() -> None:
    assert ratio_interval(np.full(30, 2.0), np.full(30, 4.0)) == (0.5, 0.5)


def test_interval_does_not_depend_on_how_many_rows_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differences, weights = np.arange(50.0), np.ones(50)
    at_once = ratio_interval(differences, weights)
    monkeypatch.setattr(statistics, "DRAWN_AT_ONCE", 50 * 777)

    assert ratio_interval(differences, weights) == at_once


def test_less_is_better_only_where_the_whole_interval_says_so() -> None:
    assert verdict_where_less_is_better((-0.2, -0.1)) == "better"
    assert verdict_where_less_is_better((0.1, 0.2)) == "worse"
    assert verdict_where_less_is_better((-0.2, 0.0)) == "inconclusive"
    assert verdict_where_less_is_better((-0.2, 0.1)) == "inconclusive"


def test_clear_win_is_better_and_clear_loss_is_worse() -> None:
    won = [False] * 20 + [True] * 80
    lost = [True] * 100

    assert compare(won, lost).verdict == "better"
    assert compare(lost, won).verdict == "worse"
    assert compare(won, lost).only_second == 20


def test_one_row_of_difference_is_inconclusive() -> None:
    paired = compare([True] * 99 + [False], [True] * 100)

    assert (paired.only_first, paired.only_second) == (0, 1)
    assert paired.verdict == "inconclusive"


def test_interval_and_test_must_agree() -> None:
    assert verdict(0.2, (0.01, 0.1)) == "inconclusive"
    assert verdict(0.01, (0.0, 0.1)) == "inconclusive"


def test_rows_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        compare([True], [True, False])
