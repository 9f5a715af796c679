"""The kinds of rows: how each is told by its keys, and what every row of it must hold."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from domain.datasets.chat_rows import ChatRows
from domain.datasets.checks import Columns, Row
from domain.datasets.completion_rows import CompletionRows
from domain.datasets.conversations import Conversation
from domain.datasets.instruction_rows import InstructionRows
from domain.datasets.labelled_rows import LabelledRows
from domain.datasets.problems import Problems, shown
from domain.datasets.table_rows import Cleanings, TableReading
from domain.datasets.table_scan import TableRow, TableScan
from domain.datasets.tables import TableChoice, TableSchema
from domain.jobs.spec import RowKind

AnyRow = Row | Conversation | TableRow

SIGNS: Mapping[RowKind, frozenset[str]] = {
    "chat": frozenset({"messages"}),
    "instruction": frozenset({"instruction", "output"}),
    "prompt_completion": frozenset({"prompt", "completion"}),
}


class RowShape(Protocol):
    """Takes the rows of one kind."""

    columns: Columns | None  # known once the first row, or the header, was good

    def begin(self, names: Sequence[str], line: int) -> None:
        """Find the columns among the names of the first row or the header."""

    def take(self, line: int, values: Mapping[str, object]) -> AnyRow | None: ...

    def finish(self) -> None:
        """Judge the rows as a whole; all of them were good."""

    @property
    def at_least(self) -> str:
        """What a file of this kind has to hold, in words."""


class Shapes:
    """Tells the kind of the rows by the first one, then hands every row to the shape of this kind.

    Args:
        kind: None to tell it; but chosen columns without a kind mean a text and a label.
        nested: whether a value can be more than a string, which a chat needs.
        table: of a tabular file: what was said about its columns, or how it was found to be read.
    """

    def __init__(
        self,
        kind: RowKind | None,
        text_column: str | None,
        label_column: str | None,
        problems: Problems,
        *,
        nested: bool,
        table: TableChoice | TableSchema | None = None,
    ) -> None:
        self.kind = kind or ("classification" if text_column or label_column else None)
        self._table = table
        self._telling = self.kind is None
        self._nested = nested
        self._chosen = (text_column or None, label_column or None)
        self._problems = problems
        self._shape: RowShape | None = None
        self.labels: dict[str, int] = {}
        self.rows = 0
        self.blank_lines = 0

    @property
    def columns(self) -> Columns | None:
        return self._shape.columns if self._shape else None

    @property
    def schema(self) -> TableSchema | None:
        """How a table is to be read, once all of it was scanned."""
        return self._shape.schema if isinstance(self._shape, TableScan) else None

    @property
    def cleanings(self) -> Cleanings | None:
        """What was cleaned so far, of a table that is read by its schema."""
        return self._shape.cleanings if isinstance(self._shape, TableReading) else None

    @property
    def at_least(self) -> str:
        return self._shape.at_least if self._shape else LabelledRows.at_least

    def begin(self, names: Sequence[str], line: int, delimiter: str | None = None) -> None:
        if self._telling:
            kinds = self._kinds(names)
            if len(kinds) > 1:
                self._problems.stop(line, "two_kinds", *_two_kinds(kinds))
                return
            self.kind = kinds[0] if kinds else "classification"
        if self.kind == "chat" and not self._nested:
            self._problems.stop(
                line,
                "chat_needs_jsonl",
                "a CSV file cannot hold conversations",
                'JSON Lines, such as {"messages": [{"role": "user", "content": "…"}, …]}',
            )
            return
        self._shape = self._make(self.kind or "classification", delimiter)
        self._shape.begin(names, line)

    def take(self, line: int, values: Mapping[str, object]) -> AnyRow | None:
        if self._shape is None:
            return None
        if self._telling and self._nested and len(kinds := self._kinds(values)) > 1:
            self._problems.add(line, "two_kinds", *_two_kinds(kinds))
            return None
        row = self._shape.take(line, values)
        self.rows += row is not None
        return row

    def finish(self) -> None:
        if self._shape:
            self._shape.finish()

    def _make(self, kind: RowKind, delimiter: str | None) -> RowShape:
        match kind:
            case "classification":
                labelled = LabelledRows(*self._chosen, self._problems)
                self.labels = labelled.labels
                return labelled
            case "chat":
                return ChatRows(*self._chosen, self._problems)
            case "instruction":
                return InstructionRows(*self._chosen, self._problems)
            case "prompt_completion":
                return CompletionRows(*self._chosen, self._problems)
            case "tabular":
                return self._make_table(decimal_comma=delimiter not in {None, ","})

    def _make_table(self, *, decimal_comma: bool) -> RowShape:
        told = self._table or TableChoice()
        table: TableScan | TableReading
        if isinstance(told, TableSchema):
            table = TableReading(told, self._problems, decimal_comma=decimal_comma)
        else:
            choice = told.model_copy(update={"target": told.target or self._chosen[1]})
            table = TableScan(choice, self._problems, decimal_comma=decimal_comma)
        self.labels = table.labels
        return table

    def _kinds(self, names: Sequence[str] | Mapping[str, object]) -> list[RowKind]:
        known = {name.casefold() for name in names}
        return [
            kind
            for kind, signs in SIGNS.items()
            if signs <= known and (self._nested or kind != "chat")
        ]


def _two_kinds(kinds: Sequence[RowKind]) -> tuple[str, str]:
    described = " and ".join(
        f"{kind} ({', '.join(map(shown, sorted(SIGNS[kind])))})" for kind in kinds
    )
    return (
        f"the keys of the row are those of two kinds: {described}",
        f"the keys of one kind, or say which with kind (CLI: --kind {kinds[0]})",
    )
