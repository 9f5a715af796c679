"""Boosted trees as plain arrays: taken out of scikit-learn once, and followed with numpy."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE: Final = 1024  # with a thousand trees, 8 MB for each number of a step

Matrix = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


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


def raw_scores(arrays: Arrays, matrix: Matrix) -> Matrix:
    """Add up what every tree says of every row: (rows, classes), or one column for two classes."""
    classes = len(arrays["baseline"])
    parts = [
        arrays["baseline"] + said.reshape(len(said), -1, classes).sum(axis=1)
        for said in _said(arrays, matrix)
    ]
    return np.concatenate([np.zeros((0, classes)), *parts])


def added_up(arrays: Arrays, matrix: Matrix) -> Iterator[Matrix]:
    """Give the probabilities after each round of trees."""
    classes = len(arrays["baseline"])
    said = np.concatenate(list(_said(arrays, matrix))).reshape(len(matrix), -1, classes)
    scores = np.tile(arrays["baseline"], (len(matrix), 1))
    for at in range(said.shape[1]):
        scores = scores + said[:, at]
        yield shares(scores)


def shares(scores: Matrix) -> Matrix:
    """The softmax of each row; a single column is the second of two classes beside a 0."""
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Matrix = raised / raised.sum(axis=1, keepdims=True)
    return result


def _said(arrays: Arrays, matrix: Matrix) -> Iterator[Matrix]:
    """Follow all trees with all rows, a level at a time: (rows, trees), some rows after others."""
    start = arrays["start"]
    sizes = np.diff(start)
    first = np.repeat(
        start[:-1], sizes
    )  # node of each node's tree that the others are counted from
    left, right = arrays["left"] + first, arrays["right"] + first
    leaf, feature, threshold = arrays["leaf"] > 0, arrays["feature"], arrays["threshold"]
    for begin in range(0, len(matrix), ROWS_AT_ONCE):
        rows = matrix[begin : begin + ROWS_AT_ONCE]
        at = np.tile(start[:-1], (len(rows), 1))
        for _ in range(sizes.max(initial=0)):  # no path is longer, not even in an altered file
            if leaf[at].all():
                break
            smaller = np.take_along_axis(rows, feature[at], axis=1) <= threshold[at]
            at = np.where(leaf[at], at, np.where(smaller, left[at], right[at]))
        yield arrays["value"][at]
