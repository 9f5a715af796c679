"""Boosted trees as plain arrays: taken out of scikit-learn once, and followed with numpy."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def tree_arrays(boosting: Any, trees: int) -> dict[str, NDArray[Any]]:
    """Take the first trees of each class out of a fitted `HistGradientBoostingClassifier`.

    The nodes of all trees stand one after another; ``start`` says where each tree begins, and a
    tree's children are counted from there. Trees stand in the order they are added up: those of the
    first round for each class, then the next round.
    """
    rounds = boosting._predictors[:trees]  # noqa: SLF001 - it has no other way to tell its trees
    nodes = [tree.nodes for each in rounds for tree in each]
    together = np.concatenate(nodes)
    return {
        "baseline": np.asarray(boosting._baseline_prediction, dtype=np.float64).reshape(-1),  # noqa: SLF001
        "start": np.cumsum([0, *map(len, nodes)]).astype(np.int64),
        "feature": together["feature_idx"].astype(np.int32),
        "threshold": together["num_threshold"].astype(np.float64),
        "left": together["left"].astype(np.int32),
        "right": together["right"].astype(np.int32),
        "leaf": together["is_leaf"].astype(np.uint8),
        "value": together["value"].astype(np.float64),
    }


def raw_scores(arrays: Mapping[str, NDArray[Any]], matrix: Matrix) -> Matrix:
    """Add up what every tree says of every row: (rows, classes), or one column for two classes."""
    *_, scores = _rounds(arrays, matrix)  # one array, added to
    return scores


def added_up(arrays: Mapping[str, NDArray[Any]], matrix: Matrix) -> Iterator[Matrix]:
    """Give the probabilities after each round of trees."""
    return map(shares, _rounds(arrays, matrix))


def shares(scores: Matrix) -> Matrix:
    """The softmax of each row; a single column is the second of two classes beside a 0."""
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Matrix = raised / raised.sum(axis=1, keepdims=True)
    return result


def _rounds(arrays: Mapping[str, NDArray[Any]], matrix: Matrix) -> Iterator[Matrix]:
    baseline, start = arrays["baseline"], arrays["start"].tolist()
    scores = np.tile(baseline, (len(matrix), 1))
    for tree, (begin, end) in enumerate(pairwise(start)):
        place = tree % len(baseline)
        scores[:, place] += _values(arrays, begin, end, matrix)
        if place == len(baseline) - 1:
            yield scores  # the same array every time


def _values(arrays: Mapping[str, NDArray[Any]], begin: int, end: int, matrix: Matrix) -> Matrix:
    """Follow one tree with all rows at once, a level at a time."""
    feature, threshold = arrays["feature"][begin:end], arrays["threshold"][begin:end]
    left, right = arrays["left"][begin:end], arrays["right"][begin:end]
    leaf = arrays["leaf"][begin:end].astype(bool)
    rows = np.arange(len(matrix))
    at = np.zeros(len(matrix), dtype=np.int64)
    for _ in range(end - begin):  # no path is longer, not even in a file that somebody altered
        if leaf[at].all():
            break
        smaller = matrix[rows, feature[at]] <= threshold[at]
        at = np.where(leaf[at], at, np.where(smaller, left[at], right[at]))
    values: Matrix = arrays["value"][begin:end][at]
    return values
