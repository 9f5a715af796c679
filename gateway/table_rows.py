"""Rows that a model of a table is asked with: checked by the schema it was trained with."""

from collections.abc import Mapping, Sequence
from typing import Any

from domain.datasets.cells import cell_text
from domain.datasets.checks import find_column
from domain.datasets.problems import shown
from domain.datasets.table_rows import CellReader
from domain.datasets.tables import TableColumn, TableSchema
from gateway.problems import Problem

Value = int | float | str | bool | None
Values = Mapping[str, Value]
Row = dict[str, float | str | None]
MOST_LISTED = 20  # wrong fields; the first ones tell what is wrong with all


def checked_rows(schema: dict[str, Any] | None, rows: Sequence[Values]) -> tuple[Row, ...]:
    """The same rows with every input named; a category that training has not seen is missing.

    Raises:
        Problem: 400, with the row and the column of each wrong value.
    """
    if schema is None:
        raise RuntimeError("a model of a table has the schema of its rows")
    reader = CellReader(TableSchema.model_validate(schema), decimal_comma=False)
    errors: list[dict[str, Any]] = []
    checked = tuple(_checked(reader, number, row, errors) for number, row in enumerate(rows))
    if errors:
        first = errors[0]
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise Problem(
            "invalid_request",
            f"{first['field']}: {first['message']}{more}",
            errors=errors[:MOST_LISTED],
        )
    return checked


def _checked(reader: CellReader, number: int, row: Values, errors: list[dict[str, Any]]) -> Row:
    """Take what the schema knows; what it knows and does not use is passed over."""
    schema = reader.schema
    known = [*(column.name for column in schema.columns), schema.target]
    given: dict[str, Value] = {}

    def refuse(column: str, message: str) -> None:
        errors.append({"field": f"rows[{number}].{column}", "in": "body", "message": message})

    for told, value in row.items():
        name = find_column(known, [told])
        if name is None:
            inputs = ", ".join(shown(one.name) for one in schema.inputs[:50])
            refuse(told[:200], f"there is no such column; the model is asked with {inputs}")
        elif name in given:
            refuse(told, "stands there twice, in two spellings")
        else:
            given[name] = value
    checked: Row = {}
    for column in schema.inputs:
        found = given.get(column.name)
        value, _ = reader.value(column, cell_text(found))
        if _fits(column, found, value):
            checked[column.name] = value
        else:
            refuse(column.name, f"a finite number or null, not {shown(cell_text(found))}")
    return checked


def _fits(column: TableColumn, given: Value, value: float | str | None) -> bool:
    if column.role == "categorical" or given is None:
        return True
    return isinstance(given, int | float) and not isinstance(given, bool) and value is not None
