"""Logistic regression and boosted trees: fitted by scikit-learn in one go, kept as plain arrays."""

import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

from domain.jobs.spec import Hyperparameters
from domain.jobs.tabular import TabularConfig
from gpu_agent.tabular.features import Matrix
from gpu_agent.tabular.scores import log_loss
from gpu_agent.tabular.trees import added_up, tree_arrays

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows as numbers, and the place of each row's label."""

    matrix: Matrix
    targets: list[int]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, slots=True)
class Fitted:
    arrays: Arrays
    remarks: tuple[str, ...]  # what whoever reads the log should know


def one_thread() -> AbstractContextManager[None]:
    """Keep OpenMP and BLAS to one thread: at such sizes more are slower, and sums may differ."""
    limited: AbstractContextManager[None] = threadpool_limits(limits=1)
    return limited


def fit_regression(rows: Part, config: TabularConfig) -> Fitted:
    regression = LogisticRegression(
        C=config.c,
        max_iter=config.max_iter,
        class_weight="balanced" if config.balanced else None,
        random_state=0,
    )
    remarks: tuple[str, ...] = ()
    with one_thread(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        regression.fit(rows.matrix, rows.targets)
    if caught:
        remarks = (f"the regression has not settled within max_iter={config.max_iter} steps",)
    arrays = {
        "weight": np.asarray(regression.coef_, dtype=np.float64),
        "bias": np.asarray(regression.intercept_, dtype=np.float64),
    }
    return Fitted(arrays, remarks)


def fit_boosting(
    rows: Part, validation: Part, config: Hyperparameters, own: TabularConfig, seed: int
) -> Fitted:
    """Fit all rounds; where the best are kept, leave out those after the least validation loss."""
    boosting = HistGradientBoostingClassifier(
        learning_rate=config.learning_rate,
        max_iter=own.max_iter,
        max_leaf_nodes=own.max_leaf_nodes,
        min_samples_leaf=own.min_samples_leaf,
        l2_regularization=own.l2_regularization,
        class_weight="balanced" if own.balanced else None,
        early_stopping=False,  # it would hold out rows of its own, and part groups
        random_state=seed,
    )
    with one_thread():
        boosting.fit(rows.matrix, rows.targets)
    kept = own.max_iter
    remarks: tuple[str, ...] = ()
    if config.keep_best and len(validation):
        losses = _losses(tree_arrays(boosting, own.max_iter), validation)
        kept = 1 + int(np.argmin(losses))
        remarks = (f"the first {kept} of {own.max_iter} rounds have the least validation loss",)
    return Fitted(tree_arrays(boosting, kept), remarks)


def _losses(arrays: Arrays, validation: Part) -> list[float]:
    """The validation loss after each round."""
    return [log_loss(shares, validation.targets) for shares in added_up(arrays, validation.matrix)]
