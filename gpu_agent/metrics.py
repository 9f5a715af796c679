"""Accuracy, F1, precision and recall, as `evaluate` metrics that need no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import evaluate
from datasets import Features, Value
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

FEATURES = Features({"predictions": Value("string"), "references": Value("string")})


@dataclass(frozen=True, slots=True)
class Quality:
    accuracy: float
    f1: float
    precision: float
    recall: float


class Accuracy(evaluate.Metric):  # type: ignore[misc]  # the package has no types
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of rows with the right label.",
            citation="",
            features=FEATURES,
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroScores(evaluate.Metric):  # type: ignore[misc]  # the package has no types
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(
                "F1, precision and recall of each label that occurs in the references, and the "
                "plain mean of each: a rare label counts as much as a common one. A label that is "
                "never predicted has precision 0."
            ),
            citation="",
            features=FEATURES,
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        # Labels only the predictions have are left out: systems are then averaged over the same ones.
        precision, recall, f1, _ = precision_recall_fscore_support(
            references,
            predictions,
            labels=sorted(set(references)),
            average="macro",
            zero_division=0.0,
        )
        return {"f1": float(f1), "precision": float(precision), "recall": float(recall)}


def quality(predictions: Sequence[str], references: Sequence[str], cache: Path) -> Quality:
    """Score label names against the expected ones; `evaluate` wants a folder to write in."""
    own = {"keep_in_memory": True, "cache_dir": str(cache)}
    scores = evaluate.combine([Accuracy(**own), MacroScores(**own)])
    return Quality(**scores.compute(predictions=list(predictions), references=list(references)))
