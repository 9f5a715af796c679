"""Whether a model of a table can be trained as asked, and tested on another file."""

from domain.datasets.tables import TableSchema
from domain.jobs.spec import DatasetRef, HyperparameterChoices, Method, hyperparameters
from domain.jobs.tabular import TABULAR_MODELS, TAKEN, flat


def table_misfit(
    method: Method,
    base_model: str,
    choices: HyperparameterChoices,
    train: DatasetRef,
    test: DatasetRef | None,
) -> str | None:
    """What does not fit, in words; a choice that changes nothing fits, as in those of another job."""
    families = ", ".join(TABULAR_MODELS)
    if (method == "tabular") != (base_model in TABULAR_MODELS):
        if method == "tabular":
            return f"{method} cannot train {base_model}; the models of tables are {families}"
        return f"{method} cannot train {base_model}, which is a model of tables"
    usual = flat(hyperparameters(method, base_model, HyperparameterChoices()).in_full())
    chosen = {
        name
        for name, value in flat(choices.model_dump(mode="json", exclude_none=True)).items()
        if value != usual.get(name)
    }
    strange = {name for name in chosen if name.startswith("tabular.")}
    if method == "tabular":
        strange = chosen - TAKEN[base_model]
    if strange:
        taker = base_model if method == "tabular" else method
        return f"{taker} takes no {', no '.join(sorted(strange))}"
    if train.table is None or test is None or test.table is None:
        return None
    missing = _missing(train.table, test.table)
    if missing:
        return f"the test dataset lacks columns of the training dataset: {missing[:5]}"
    return None


def _missing(train: TableSchema, test: TableSchema) -> list[str]:
    there = {column.name.casefold() for column in test.columns} | {test.target.casefold()}
    needed = [train.target, *(column.name for column in train.inputs)]
    return [name for name in needed if name.casefold() not in there]


def unknown_classes(train: DatasetRef, test: DatasetRef) -> list[str]:
    """Labels of the test that training never shows; of a table, however they are spelled."""
    if train.table is None:
        return sorted(set(test.labels) - set(train.labels))
    known = {name.casefold() for name in train.labels} | set(train.table.spellings)
    return sorted(name for name in test.labels if name.casefold() not in known)
