"""Rows of a text alone, all of which is learned."""

from collections.abc import Mapping, Sequence

from domain.datasets.checks import Columns, find_column, missing_column
from domain.datasets.conversations import Conversation, Message
from domain.datasets.problems import Problems
from domain.datasets.values import ValueChecks

TEXT = "text"


class TextRows:
    at_least = "at least one row with a text"

    def __init__(
        self, text_column: str | None, label_column: str | None, problems: Problems
    ) -> None:
        self._chosen = (text_column, label_column)
        self._problems = problems
        self._values = ValueChecks(problems)
        self.columns: Columns | None = None

    def begin(self, names: Sequence[str], line: int) -> None:
        key, label = self._chosen
        if label:
            self._problems.stop(
                line,
                "text_has_no_label",
                "a text alone is learned as a whole; it has no label",
                "no label_column (CLI: --label) with the kind text, or the kind classification",
                field=label,
            )
            return
        found = find_column(names, [key or TEXT])
        if found is None:
            missing_column(names, key or TEXT, TEXT, line, self._problems)
        else:
            self.columns = Columns(found, "")

    def take(self, line: int, values: Mapping[str, object]) -> Conversation | None:
        if self.columns is None:
            return None
        text = self._values.filled(values, self.columns.text, line)
        if text is None:
            return None
        return Conversation(line, (Message("assistant", text, supervised=True),), raw=True)

    def finish(self) -> None:
        """One good row is enough."""
