"""What is trained with when nothing else is asked for, in words, from the rules themselves."""

from typing import Any, Final

from domain.jobs.spec import METHODS, SFT, TINY, TINY_SFT, Hyperparameters

_COLUMNS: Final[dict[str, Hyperparameters]] = {
    "`sequence_classification`": Hyperparameters(),
    "`sft`": SFT,
    f"`sft` on `{TINY}`": TINY_SFT,
}
WHICH_METHOD: Final = "What suits the rows of the dataset if left out: " + ", ".join(
    f"`{method}` for `{kind}`" for kind, method in METHODS.items()
)


def defaults_table() -> str:
    """A table in Markdown: what each hyperparameter is when it is left out."""
    columns = [_flat(values) for values in _COLUMNS.values()]
    head = ("if left out", *_COLUMNS)
    rows = [(f"`{name}`", *(_shown(column[name]) for column in columns)) for name in columns[0]]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _flat(values: Hyperparameters) -> dict[str, Any]:
    plain = dict(values)
    lora = dict(plain.pop("lora"))
    return plain | {f"lora.{name}": value for name, value in lora.items()}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, int | float) else str(value or "none")


DEFAULTS: Final = f"What is left out takes the default of the method:\n\n{defaults_table()}"
