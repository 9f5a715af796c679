"""What a sender says about the columns of a table, field by field."""

import csv
from typing import Final, Literal

from domain.datasets.problems import is_name
from domain.datasets.tables import MAX_COLUMNS, SHIPPED, TableChoice
from gateway.problems import invalid

NAMES: Final = "names of columns, parted by commas, such as AGE,BMI"
_TEXTS: Final = {"schema": "shipped", "target": "target"}  # fields of one value


def chosen(
    choice: TableChoice, field: str, value: str, where: Literal["query", "body"] = "query"
) -> TableChoice:
    """Add what one field says; names are parted as a line of CSV is, so that any can be quoted.

    Raises:
        Problem: 400, it names nothing that can be.
    """
    if field == "schema" and value not in SHIPPED:
        raise invalid(field, f"one of {', '.join(SHIPPED)}", where)
    if field in _TEXTS:
        return choice.model_copy(update={_TEXTS[field]: value})
    try:
        names = tuple(
            name.strip()
            for name in next(csv.reader([value], strict=True, skipinitialspace=True), [])
        )
    except csv.Error:
        raise invalid(field, NAMES, where) from None
    if not names or len(names) > MAX_COLUMNS or not all(map(is_name, names)):
        raise invalid(field, NAMES, where)
    return choice.model_copy(update={field: names})


def table_choice(**fields: str | None) -> TableChoice:
    """What all fields say together; None is nothing said.

    Raises:
        Problem: 400, with the field.
    """
    choice = TableChoice()
    for field, value in fields.items():
        if value is not None:
            choice = chosen(choice, field, value)
    return choice
