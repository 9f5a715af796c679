"""Rows of a text and a label."""

from collections.abc import Mapping, Sequence

from domain.datasets.checks import Columns, Row, RowChecks, choose_columns
from domain.datasets.problems import Problems
from domain.datasets.values import Number, ValueChecks


class LabelledRows:
    at_least = "at least two rows with different labels"

    def __init__(
        self, text_column: str | None, label_column: str | None, problems: Problems
    ) -> None:
        self._chosen = (text_column, label_column)
        self._problems = problems
        self._checks = RowChecks(problems)
        self._values = ValueChecks(problems)
        self.columns: Columns | None = None

    @property
    def labels(self) -> dict[str, int]:
        return self._checks.labels

    def begin(self, names: Sequence[str], line: int) -> None:
        self.columns = choose_columns(names, *self._chosen, line, self._problems)

    def take(self, line: int, values: Mapping[str, object]) -> Row | None:
        if self.columns is None:
            return None
        text = self._values.text(values, self.columns.text, line)
        label = self._label(values, self.columns.label, line)
        if text is None or label is None:
            return None
        return self._checks.accept(line, text, label, self.columns)

    def finish(self) -> None:
        if self.columns:
            self._checks.finish(self.columns)

    def _label(self, values: Mapping[str, object], key: str, line: int) -> str | None:
        value = values.get(key)
        if type(value) is str:
            return self._values.encodable(value, line, key)
        expected = "a string, an integer, true or false"
        value = self._values.present(values, key, line, expected)
        if value is None:
            return None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, Number) and not _is_fraction(value):
            return str(value)
        self._values.wrong_type(value, line, key, expected)
        return None


def _is_fraction(number: str) -> bool:
    return not number.removeprefix("-").isdecimal()
