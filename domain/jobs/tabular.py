"""How a model of a table is made: the families there are, and what each takes."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

MLP: Final = "finetrail/mlp"
LOGISTIC_REGRESSION: Final = "finetrail/logistic-regression"
GRADIENT_BOOSTING: Final = "finetrail/gradient-boosting"
TABULAR_MODELS: Final = (GRADIENT_BOOSTING, MLP, LOGISTIC_REGRESSION)  # as "base models" of a job


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TabularConfig(_Part):
    """The words are scikit-learn's where it is scikit-learn that trains."""

    hidden_size: int = Field(default=64, ge=1, le=4096)  # of both hidden layers
    c: float = Field(default=1.0, gt=0)  # the smaller, the smaller the weights are held
    max_iter: int = Field(default=200, ge=1, le=10_000)  # rounds of trees; steps of a regression
    max_leaf_nodes: int = Field(default=31, ge=2, le=1024)  # of a tree
    min_samples_leaf: int = Field(default=10, ge=1)  # rows
    l2_regularization: float = Field(default=0.0, ge=0)  # of the leaves
    balanced: bool = False  # every class counts as much as any other, however rare


class TabularChoices(_Part):
    """What is left out takes its default."""

    hidden_size: int | None = Field(default=None, ge=1, le=4096)
    c: float | None = Field(default=None, gt=0)
    max_iter: int | None = Field(default=None, ge=1, le=10_000)
    max_leaf_nodes: int | None = Field(default=None, ge=2, le=1024)
    min_samples_leaf: int | None = Field(default=None, ge=1)
    l2_regularization: float | None = Field(default=None, ge=0)
    balanced: bool | None = None


# What each family takes of all hyperparameters; another one that is chosen is refused.
TAKEN: Final[dict[str, frozenset[str]]] = {
    GRADIENT_BOOSTING: frozenset(
        {
            "learning_rate",
            "keep_best",
            "tabular.max_iter",
            "tabular.max_leaf_nodes",
            "tabular.min_samples_leaf",
            "tabular.l2_regularization",
            "tabular.balanced",
        }
    ),
    MLP: frozenset(
        {
            "epochs",
            "batch_size",
            "learning_rate",
            "warmup_ratio",
            "weight_decay",
            "max_grad_norm",
            "schedule",
            "checkpoint_every",
            "early_stopping_patience",
            "keep_best",
            "tabular.hidden_size",
            "tabular.balanced",
        }
    ),
    LOGISTIC_REGRESSION: frozenset({"tabular.c", "tabular.max_iter", "tabular.balanced"}),
}
# Laid over the defaults of all methods. Of a few hundred rows an epoch takes milliseconds, so many of
# them are run, and the best is kept.
TABULAR_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    MLP: {
        "epochs": 100,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "weight_decay": 1e-3,
        "warmup_ratio": 0.0,
        "schedule": "cosine",
        "checkpoint_every": 500,
        "early_stopping_patience": 20,
        "keep_best": True,
    },
    LOGISTIC_REGRESSION: {"epochs": 1},
    GRADIENT_BOOSTING: {"epochs": 1, "learning_rate": 0.1, "keep_best": True},
}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by name, those of a part with the part's name before their own."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found
