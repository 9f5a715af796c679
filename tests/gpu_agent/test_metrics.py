"""Scores through `evaluate`, against sums done by hand."""

from pathlib import Path

import pytest

from gpu_agent.metrics import quality


def test_scores_of_a_known_confusion(tmp_path: Path) -> None:
    expected = ["a", "a", "a", "b"]
    said = ["a", "a", "b", "b"]

    scores = quality(said, expected, tmp_path)

    # a: precision 1, recall 2/3, F1 4/5; b: precision 1/2, recall 1, F1 2/3.
    assert scores.accuracy == 0.75
    assert scores.precision == pytest.approx((1 + 1 / 2) / 2)
    assert scores.recall == pytest.approx((2 / 3 + 1) / 2)
    assert scores.f1 == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_label_that_never_occurs_does_not_lower_the_mean(tmp_path: Path) -> None:
    scores = quality(["a", "c"], ["a", "b"], tmp_path)

    # Over a and b alone; c would make it a third of 1.
    assert scores.recall == 0.5


def test_metrics_say_what_they_measure(tmp_path: Path) -> None:
    from gpu_agent.metrics import MacroScores

    assert "mean" in MacroScores(cache_dir=str(tmp_path)).description
