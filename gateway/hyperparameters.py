"""What is trained with when nothing else is asked for, in words, from the rules themselves."""

from typing import Any, Final

from pydantic import BaseModel

from domain.jobs.spec import (
    METHODS,
    SFT,
    TINY,
    TINY_SFT,
    GrpoConfig,
    HyperparameterChoices,
    Hyperparameters,
    hyperparameters,
)
from domain.jobs.tabular import TABULAR_MODELS, TAKEN, TabularConfig, flat

_COLUMNS: Final[dict[str, Hyperparameters]] = {
    "`sequence_classification`": Hyperparameters(),
    "`sft`": SFT,
    f"`sft` on `{TINY}`": TINY_SFT,
    "`grpo`": hyperparameters("grpo", "any", HyperparameterChoices()),
    **{
        family: hyperparameters("tabular", family, HyperparameterChoices())
        for family in TABULAR_MODELS
    },
}
WHICH_METHOD: Final = "What suits the rows of the dataset if left out: " + ", ".join(
    f"`{method}` for `{kind}`" for kind, method in METHODS.items()
)


def defaults_table() -> str:
    """A table in Markdown: what each hyperparameter is when it is left out."""
    columns = [_taken(name, values) for name, values in _COLUMNS.items()]
    head = ("if left out", *(f"`{name}`" if name in TAKEN else name for name in _COLUMNS))
    grpo = (f"grpo.{name}" for name in GrpoConfig.model_fields)
    names = [*columns[0], *grpo, *(f"tabular.{name}" for name in TabularConfig.model_fields)]
    rows = [
        (f"`{name}`", *(_shown(column[name]) if name in column else "–" for column in columns))
        for name in names
    ]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _taken(name: str, values: Hyperparameters) -> dict[str, Any]:
    plain = flat({key: dict(v) if isinstance(v, BaseModel) else v for key, v in values})
    taken = TAKEN.get(name) or plain.keys() - {"tabular"}
    # A part that is one method's own stands in no other's column.
    parts = {"preference", "grpo"} - {name.strip("`")}
    return {
        key: value
        for key, value in plain.items()
        if key in taken and key.partition(".")[0] not in parts
    }


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, int | float) else str(value or "none")


DEFAULTS: Final = f"What is left out takes the default of the method:\n\n{defaults_table()}"
