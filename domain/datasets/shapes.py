"""The kinds of rows: how each is told by its keys, and what every row of it must hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from domain.datasets.chat_rows import ChatRows
from domain.datasets.checks import Columns, Row
from domain.datasets.completion_rows import CompletionRows
from domain.datasets.conversations import Conversation
from domain.datasets.instruction_rows import InstructionRows
from domain.datasets.labelled_rows import LabelledRows
from domain.datasets.preference_rows import PreferenceRows
from domain.datasets.preferences import PreferencePair, RatedCompletion
from domain.datasets.problems import Problems, shown
from domain.datasets.rated_rows import RatedRows
from domain.datasets.sniff import Format
from domain.datasets.table_rows import Cleanings, TableReading
from domain.datasets.table_scan import TableRow, TableScan
from domain.datasets.tables import TableChoice, TableSchema
from domain.datasets.text_rows import TextRows
from domain.jobs.spec import RowKind

AnyRow = Row | Conversation | TableRow | PreferencePair | RatedCompletion


@dataclass(frozen=True, slots=True)
class Sign:
    """Keys by which a kind is told."""

    kind: RowKind
    keys: frozenset[str]
    nested: bool = False  # only where a value can be more than a string
    alone: bool = False  # there is no other key


# The last two say less than those above them, which hold their keys too.
SIGNS: Final = (
    Sign("chat", frozenset({"messages"}), nested=True),
    Sign("chat", frozenset({"conversations"}), nested=True),
    Sign("instruction", frozenset({"instruction", "output"})),
    Sign("preference", frozenset({"chosen", "rejected"})),
    Sign("preference", frozenset({"preferred_output", "non_preferred_output"})),
    Sign("preference", frozenset({"preferred_completion", "non_preferred_completion"})),
    Sign("kto", frozenset({"prompt", "completion", "label"})),
    Sign("prompt_completion", frozenset({"prompt", "completion"})),
    Sign("text", frozenset({"text"}), alone=True),
)
TOLD_BY: Final = {
    "messages": "messages with roles",
    "conversations": "conversations, as ShareGPT has them",
}


class RowShape(Protocol):
    """Takes the rows of one kind."""

    @property
    def columns(self) -> Columns | None:
        """Known once the first row, or the header, was good."""

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
        format_: Format = "csv",
    ) -> None:
        self.kind = kind or ("classification" if text_column or label_column else None)
        self.why = "it was asked for" if kind else "a column was chosen" if self.kind else ""
        self._table = table
        self._telling = self.kind is None
        self._last_keys: tuple[str, ...] = ()  # most rows have those of the one before
        self._nested = nested
        self._format = format_
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
        if self._format == "text" and not self._may_be_text(line):
            return
        self._tell(names, line, delimiter)
        if self._problems.stopped():
            return
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
        if self._telling and self._nested and (keys := tuple(values)) != self._last_keys:
            found = self._signs(values)
            if len({sign.kind for sign in found}) > 1:
                self._problems.add(line, "two_kinds", *_two_kinds(found))
                return None
            self._last_keys = keys
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
            case "text":
                return TextRows(*self._chosen, self._problems)
            case "preference":
                return PreferenceRows(*self._chosen, self._problems)
            case "kto":
                return RatedRows(*self._chosen, self._problems)
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

    def _may_be_text(self, line: int) -> bool:
        if self.kind in {None, "text"}:
            return True
        self._problems.stop(
            line,
            "text_has_no_columns",
            f"a file of plain text holds no rows of the kind {self.kind}",
            "the kind text; or CSV, JSON Lines, JSON or Parquet, which have columns",
        )
        return False

    def _tell(self, names: Sequence[str], line: int, delimiter: str | None) -> None:
        if not self._telling:
            return
        found = self._signs(names)
        if len({sign.kind for sign in found}) > 1:
            self._problems.stop(line, "two_kinds", *_two_kinds(found))
            return
        where = "the header" if delimiter else "the first row"
        if self._format == "text":
            self.kind, self.why = "text", "plain text has no columns"
            return
        if found:
            self.kind, keys = found[0].kind, found[0].keys
            told = TOLD_BY.get(min(keys)) or ", ".join(sorted(keys))
            self.why = f"{where} has {told}{' alone' if found[0].alone else ''}"
        else:
            self.kind = "classification"
            self.why = f"{where} has the keys of no other kind"

    def _signs(self, names: Iterable[str]) -> list[Sign]:
        known = {name.casefold() for name in names}
        found = [
            sign
            for sign in SIGNS
            if sign.keys <= known
            and (self._nested or not sign.nested)
            and (not sign.alone or sign.keys == known)
        ]
        return [sign for sign in found if not any(sign.keys < other.keys for other in found)]


def _two_kinds(found: Sequence[Sign]) -> tuple[str, str]:
    described = " and ".join(
        f"{sign.kind} ({', '.join(map(shown, sorted(sign.keys)))})" for sign in found
    )
    return (
        f"the keys of the row are those of two kinds: {described}",
        f"the keys of one kind, or say which with kind (CLI: --kind {found[0].kind})",
    )
