"""Bytes of a classification dataset to rows: CSV or JSON Lines, one text and one label a row.

A push parser: whoever receives an upload feeds it the chunks as they come, and it never holds more
than a block of them. It raises for no input; what is wrong stands in ``problems``.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from domain.datasets.checks import Columns, Row, RowChecks
from domain.datasets.csv_rows import DELIMITERS, CsvRows
from domain.datasets.jsonl_rows import JsonlRows
from domain.datasets.lines import BLOCK_BYTES, LineBlocks
from domain.datasets.problems import LineProblem, Problems
from domain.datasets.sniff import Format, detect_format, refuse_unreadable

__all__ = ["DatasetUnreadable", "LineProblem", "Row", "RowReader", "read_rows"]

HEAD_BYTES = 64 * 1024  # looked at before anything is read


class DatasetUnreadable(ValueError):
    """Bytes that were to hold a dataset do not; the same bytes will never do."""

    def __init__(self, problems: Sequence[LineProblem], count: int) -> None:
        first = problems[0]
        super().__init__(f"{count} problems; the first, on line {first.line}: {first.message}")
        self.problems = problems
        self.count = count


class RowReader:
    """Feed it the chunks of one file, then finish it.

    Args:
        format: None to tell it by the content, then by ``filename`` and ``content_type``.
        text_column: None to find it by its usual names; the same for ``label_column``.
        delimiter: of CSV: a comma, a semicolon, a tab or a vertical bar; None to find which of the
            first three it is.
        block_bytes: read at once, at least 4.

    Raises:
        ValueError: ``delimiter`` is none of these.
    """

    def __init__(
        self,
        format: Format | None = None,  # noqa: A002 - the word everybody uses for it
        text_column: str | None = None,
        label_column: str | None = None,
        delimiter: str | None = None,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        if delimiter not in (None, *DELIMITERS, "|"):
            raise ValueError(f"{delimiter!r} cannot part the fields of a CSV file")
        self.format = format
        self._delimiter = delimiter
        self._chosen = (text_column, label_column)
        self._named = (filename, content_type)
        self._head = bytearray()
        self._blocks = LineBlocks(block_bytes)
        self._problems = Problems()
        self._checks = RowChecks(self._problems)
        self._parser: CsvRows | JsonlRows | None = None

    def feed(self, chunk: bytes) -> list[Row]:
        """Take the next bytes and give the rows that became whole."""
        if self._problems.stopped():
            return []
        if self._parser is None:
            self._head += chunk
            if len(self._head) < HEAD_BYTES:
                return []
            chunk = self._begin()
        return self._rows(chunk)

    def finish(self) -> list[Row]:
        """Take the end of the file, give the last rows and judge the file as a whole."""
        rows = [] if self._parser else self._rows(self._begin())
        parser = self._parser
        if parser is None or self._problems.stopped():
            return rows
        for block in self._blocks.finish():
            rows.extend(parser.rows(block))
        rows.extend(parser.finish())
        self._judge(parser.columns)
        return rows

    @property
    def problems(self) -> list[LineProblem]:
        """The first hundred, in the order of the file."""
        return sorted(self._problems.first, key=lambda problem: (problem.line, problem.column or 0))

    @property
    def problem_count(self) -> int:
        return self._problems.count

    @property
    def stopped(self) -> bool:
        """Whether the rest of the file would not be read any more."""
        return self._problems.stopped()

    @property
    def delimiter(self) -> str | None:
        return self._parser.delimiter if self._parser else None

    @property
    def encoding(self) -> Literal["utf-8", "utf-8-sig"]:
        return "utf-8-sig" if self._blocks.byte_order_mark else "utf-8"

    @property
    def text_column(self) -> str | None:
        return self._columns.text if self._columns else None

    @property
    def label_column(self) -> str | None:
        return self._columns.label if self._columns else None

    @property
    def labels(self) -> dict[str, int]:
        """Rows of each label so far, sorted by name."""
        return dict(sorted(self._checks.labels.items()))

    @property
    def row_count(self) -> int:
        return self._checks.rows

    @property
    def blank_lines(self) -> int:
        return self._checks.blank_lines

    @property
    def _columns(self) -> Columns | None:
        return self._parser.columns if self._parser else None

    def _begin(self) -> bytes:
        head = bytes(self._head)
        self._head.clear()
        refuse_unreadable(head[:HEAD_BYTES], self._problems)
        if self.format is None:
            self.format = detect_format(*self._named, head[:HEAD_BYTES])
        if self.format == "csv":
            self._parser = CsvRows(*self._chosen, self._delimiter, self._problems, self._checks)
        else:
            self._parser = JsonlRows(*self._chosen, self._problems, self._checks)
        return head

    def _rows(self, chunk: bytes) -> list[Row]:
        if self._parser is None or self._problems.stopped():
            return []
        rows: list[Row] = []
        for block in self._blocks.feed(chunk):
            rows.extend(self._parser.rows(block))
            if self._problems.stopped():
                break
        return rows

    def _judge(self, columns: Columns | None) -> None:
        if self._problems.count:
            return  # rows were left out, so nothing can be said of the whole
        if columns and self._checks.rows:
            self._checks.finish(columns)
        else:
            header = columns is not None
            self._problems.stop(
                1,
                "no_rows" if header else "empty_file",
                "there is a header and no row below it" if header else "the file is empty",
                "at least two rows with different labels",
            )


def read_rows(
    chunks: Iterable[bytes],
    format: Format | None = None,  # noqa: A002 - as in RowReader
    text_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
) -> Iterator[Row]:
    """Read a file that is expected to be good.

    Raises:
        DatasetUnreadable: at the end, after the rows that could be read.
    """
    reader = RowReader(format, text_column, label_column, delimiter)
    for chunk in chunks:
        yield from reader.feed(chunk)
    yield from reader.finish()
    if reader.problem_count:
        raise DatasetUnreadable(reader.problems, reader.problem_count)
