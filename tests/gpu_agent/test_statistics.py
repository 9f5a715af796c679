"""The test and the interval against numbers known by reasoning, and against SciPy."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import binomtest

from gpu_agent.statistics import bootstrap_interval, compare, mcnemar, verdict


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
