"""A table read by its schema: every cell as a number, a category or missing, and what was cleaned."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from domain.datasets.cells import NO_NUMBER, category_key, cell_text, read_number
from domain.datasets.checks import Columns, find_column, missing_column
from domain.datasets.problems import Problems, shown
from domain.datasets.table_scan import AT_LEAST, TableRow, cells_are_plain, check_label
from domain.datasets.tables import Cleaning, TableColumn, TableSchema

MAX_LISTED: Final = 100  # cleanings in full; all are counted
_SHOWN_CHARS: Final = 60  # of a value that was cleaned

Why = Literal["blanks", "spelling", "decimal_comma", "unreadable", "missing", "unknown"]


class Cleanings:
    """What was read otherwise than it stands: the first hundred in full, all of them counted."""

    def __init__(self) -> None:
        self.first: list[Cleaning] = []
        self.by_reason: dict[str, int] = {}
        self.missing: dict[str, int] = {}

    @property
    def count(self) -> int:
        return sum(self.by_reason.values())

    def add(self, line: int, column: str, was: str, became: str | None, why: Why) -> None:
        self.by_reason[why] = self.by_reason.get(why, 0) + 1
        if became is None:
            self.missing[column] = self.missing.get(column, 0) + 1
        if len(self.first) < MAX_LISTED:
            self.first.append(
                Cleaning(line=line, column=column, was=_cut(was), became=became, why=why)
            )


class CellReader:
    """Reads the cells of a table as its schema says."""

    def __init__(self, schema: TableSchema, *, decimal_comma: bool) -> None:
        self.schema = schema
        self._decimal_comma = decimal_comma
        self._categories = {
            column.name: {category_key(name): name for name in column.categories}
            for column in schema.columns
            if column.role == "categorical"
        }
        self._classes = {category_key(name): name for name in schema.classes}
        for spelling, name in schema.spellings.items():
            if name in schema.classes:
                self._classes.setdefault(spelling, name)

    def label(self, text: str) -> str | None:
        """The class that a text names, or None."""
        return self._classes.get(category_key(text))

    def value(self, column: TableColumn, text: str) -> tuple[float | str | None, Why | None]:
        """What a cell says, and why that is not what stands there."""
        stripped = text.strip()
        numeric = column.role == "numeric"
        value, why = self._number(stripped) if numeric else self._category(column.name, stripped)
        return value, why or ("blanks" if stripped != text else None)

    def _number(self, text: str) -> tuple[float | str | None, Why | None]:
        number = read_number(text, decimal_comma=self._decimal_comma)
        if number is not None:
            return number, "decimal_comma" if "," in text else None
        return None, "missing" if text.casefold() in NO_NUMBER else "unreadable"

    def _category(self, column: str, text: str) -> tuple[float | str | None, Why | None]:
        if not text:
            return None, "missing"
        name = self._categories[column].get(category_key(text))
        if name is None:
            return None, "unknown"
        return name, None if name == text else "spelling"


class TableReading:
    """Gives the rows of a table as training reads them."""

    at_least = AT_LEAST

    def __init__(self, schema: TableSchema, problems: Problems, *, decimal_comma: bool) -> None:
        self._schema = schema
        self._problems = problems
        self._cells = CellReader(schema, decimal_comma=decimal_comma)
        self._names: dict[str, str] = {}  # as they stand in this file, by those of the schema
        self.columns: Columns | None = None
        self.labels: dict[str, int] = {}
        self.cleanings = Cleanings()

    def begin(self, names: Sequence[str], line: int) -> None:
        schema = self._schema
        needed = [schema.target, *(column.name for column in schema.inputs)]
        for wanted in [*needed, *schema.groups]:
            found = find_column(names, [wanted])
            if found is not None:
                self._names[wanted] = found
            elif wanted in needed:
                missing_column(names, wanted, "the columns of the schema", line, self._problems)
        if not self._problems.stopped():
            self.columns = Columns("", schema.target)

    def take(self, line: int, values: Mapping[str, object]) -> TableRow | None:
        if self.columns is None or not cells_are_plain(values, line, self._problems):
            return None
        label = self._label(cell_text(values.get(self._names[self._schema.target])), line)
        if label is None:
            return None
        read = {column.name: self._value(column, values, line) for column in self._schema.inputs}
        groups = tuple(self._text(values, name).strip() for name in self._schema.groups)
        self.labels[label] = self.labels.get(label, 0) + 1
        return TableRow(line, read, label, groups)

    def finish(self) -> None:
        """One good row is enough for a test."""

    def _text(self, values: Mapping[str, object], column: str) -> str:
        return cell_text(values.get(self._names.get(column, "")))

    def _label(self, text: str, line: int) -> str | None:
        target = self._schema.target
        if not check_label(text.strip(), line, target, self._problems):
            return None
        label = self._cells.label(text)
        if label is None:
            what = f"{shown(text.strip())} is none of the classes"
            expected = f"one of {', '.join(map(shown, self._schema.classes[:20]))}"
            self._problems.add(line, "unknown_class", what, expected, field=target)
        elif label != text:
            why: Why = "blanks" if label == text.strip() else "spelling"
            self.cleanings.add(line, target, text, label, why)
        return label

    def _value(
        self, column: TableColumn, values: Mapping[str, object], line: int
    ) -> float | str | None:
        text = self._text(values, column.name)
        value, why = self._cells.value(column, text)
        if why is not None:
            became = None if value is None else value if isinstance(value, str) else text.strip()
            if why == "decimal_comma":
                became = repr(value)
            self.cleanings.add(line, column.name, text, became, why)
        return value


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
