"""How good probabilities are: the same figures for every model of a table."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from domain.work import ClassScores, Scores
from gpu_agent.tabular.features import Matrix

LEAST: float = 1e-15  # of a probability under the logarithm, as scikit-learn's log_loss has had it


def log_loss(probabilities: Matrix, targets: Sequence[int]) -> float:
    """Mean of −ln p of the right class, in nats a row; a target of −1 is a class nobody predicts."""
    right = [
        probabilities[row, target] if target >= 0 else 0.0 for row, target in enumerate(targets)
    ]
    return float(-np.log(np.maximum(right, LEAST)).mean())


def scores(said: Sequence[str], expected: Sequence[str], loss: float | None) -> Scores:
    """Macro means are over the classes that occur among the expected ones."""
    labels = sorted(set(expected))
    precision, recall, f1, _ = precision_recall_fscore_support(
        expected, said, labels=labels, average="macro", zero_division=0.0
    )
    right = [one == other for one, other in zip(said, expected, strict=True)]
    return Scores(
        accuracy=float(np.mean(right)),
        f1=float(f1),
        precision=float(precision),
        recall=float(recall),
        loss=loss,
        latency_ms_p50=None,
        latency_ms_mean=None,
    )


def by_class(said: Sequence[str], expected: Sequence[str]) -> tuple[ClassScores, ...]:
    """Every class that occurs among the expected ones, sorted."""
    labels = sorted(set(expected))
    columns = precision_recall_fscore_support(expected, said, labels=labels, zero_division=0.0)
    return tuple(
        ClassScores(label=label, precision=p, recall=r, f1=f, rows=int(rows))
        for label, p, r, f, rows in zip(labels, *(each.tolist() for each in columns), strict=True)
    )
