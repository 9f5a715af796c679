"""What a dataset holds, counted row by row without keeping its texts."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from domain.datasets.digests import text_digest
from domain.datasets.rows import Row, RowReader
from domain.datasets.sniff import Format

MAX_EXAMPLES = 20  # of conflicting texts, by line


class ConflictingText(BaseModel):
    """Two rows with the same text and different labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_line: int
    first_label: str
    line: int
    label: str


class DatasetReport(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    labels: dict[str, int]  # label -> rows, sorted by label
    blank_lines: int
    duplicate_rows: int  # rows whose text and label stood in an earlier row
    conflicting_texts: int  # texts that stand under more than one label
    conflicts: tuple[ConflictingText, ...]  # the first twenty
    longest_text_chars: int
    mean_text_chars: float
    format: Format
    delimiter: str | None  # of CSV
    encoding: Literal["utf-8", "utf-8-sig"]
    text_column: str
    label_column: str


class ReportBuilder:
    """Holds one digest a text; two texts with the same one have not been found by anybody yet."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[int, str]] = {}  # line and label where a text stood first
        self._also: dict[bytes, set[str]] = {}  # the labels of a text that has more than one
        self._conflicts: list[ConflictingText] = []
        self._duplicate_rows = 0
        self._longest = 0
        self._chars = 0

    def add(self, row: Row) -> None:
        self._longest = max(self._longest, len(row.text))
        self._chars += len(row.text)
        digest = text_digest(row.text)
        line, label = self._first.setdefault(digest, (row.line, row.label))
        if line == row.line:
            return
        labels = self._also.get(digest, {label})
        if row.label in labels:
            self._duplicate_rows += 1
            return
        self._also[digest] = labels | {row.label}
        if len(self._conflicts) < MAX_EXAMPLES:
            self._conflicts.append(
                ConflictingText(first_line=line, first_label=label, line=row.line, label=row.label)
            )

    def build(self, reader: RowReader) -> DatasetReport | None:
        """The report over all rows that were added; None when ``reader`` could not read the file."""
        if not (reader.format and reader.text_column and reader.label_column and reader.row_count):
            return None
        return DatasetReport(
            rows=reader.row_count,
            labels=reader.labels,
            blank_lines=reader.blank_lines,
            duplicate_rows=self._duplicate_rows,
            conflicting_texts=len(self._also),
            conflicts=tuple(self._conflicts),
            longest_text_chars=self._longest,
            mean_text_chars=self._chars / reader.row_count,
            format=reader.format,
            delimiter=reader.delimiter,
            encoding=reader.encoding,
            text_column=reader.text_column,
            label_column=reader.label_column,
        )
