"""Bytes of a dataset to rows: of a label, a conversation, a comparison or numbers, in any format.

A push parser: whoever receives an upload feeds it the chunks as they come, and it never holds more
than a block of them; Parquet, whose index is at its end, is put aside in a file until then. It
raises for no input; what is wrong stands in ``problems``.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from domain.datasets.checks import Columns, Row
from domain.datasets.conversations import Conversation
from domain.datasets.csv_rows import CsvRows
from domain.datasets.json_array_rows import JsonArrayRows
from domain.datasets.jsonl_rows import JsonlRows
from domain.datasets.lines import BLOCK_BYTES, Block, LineBlocks
from domain.datasets.paragraphs import ParagraphRows
from domain.datasets.parquet_rows import ParquetRows
from domain.datasets.preferences import PreferencePair, RatedCompletion
from domain.datasets.problems import LineProblem, Problems
from domain.datasets.shapes import AnyRow, Shapes
from domain.datasets.sniff import DELIMITERS, Compression, Format, detect_format, refuse_unreadable
from domain.datasets.table_rows import Cleanings
from domain.datasets.table_scan import TableRow
from domain.datasets.tables import TableChoice, TableSchema
from domain.datasets.unpacking import Unpacker
from domain.jobs.spec import RowKind

__all__ = [
    "Conversation",
    "DatasetUnreadable",
    "LineProblem",
    "PreferencePair",
    "RatedCompletion",
    "Row",
    "RowReader",
    "TableRow",
    "read_conversations",
    "read_pairs",
    "read_rated",
    "read_rows",
    "read_table",
]

HEAD_BYTES = 64 * 1024  # looked at before anything is read


class DatasetUnreadable(ValueError):
    """Bytes that were to hold a dataset do not; the same bytes will never do."""

    def __init__(self, problems: Sequence[LineProblem], count: int) -> None:
        first = problems[0]
        super().__init__(f"{count} problems; the first, on line {first.line}: {first.message}")
        self.problems = problems
        self.count = count


class _Container(Protocol):
    """Takes the unpacked bytes of one format."""

    @property
    def delimiter(self) -> str | None: ...

    @property
    def byte_order_mark(self) -> bool: ...

    def feed(self, data: bytes) -> Iterator[AnyRow]: ...

    def finish(self) -> Iterator[AnyRow]: ...


class _LineRows(Protocol):
    @property
    def delimiter(self) -> str | None: ...

    def rows(self, block: Block) -> Iterator[AnyRow]: ...

    def finish(self) -> Iterator[AnyRow]: ...


class _Lines:
    """A format of lines."""

    def __init__(self, rows: _LineRows, problems: Problems, block_bytes: int) -> None:
        self._rows = rows
        self._problems = problems
        self._blocks = LineBlocks(block_bytes)

    @property
    def delimiter(self) -> str | None:
        return self._rows.delimiter

    @property
    def byte_order_mark(self) -> bool:
        return self._blocks.byte_order_mark

    def feed(self, data: bytes) -> Iterator[AnyRow]:
        for block in self._blocks.feed(data):
            yield from self._rows.rows(block)
            if self._problems.stopped():
                return

    def finish(self) -> Iterator[AnyRow]:
        for block in self._blocks.finish():
            yield from self._rows.rows(block)
        yield from self._rows.finish()


class RowReader:
    """Feed it the chunks of one file, then finish it.

    Args:
        format: None to tell it by the content, then by ``filename`` and ``content_type``. Whether it
            is packed is always told by the content.
        text_column: None to find it by its usual names; the same for ``label_column``.
        kind: None to tell it by the first row; without one, chosen columns mean a text and a label.
        delimiter: of CSV: a comma, a semicolon, a tab or a vertical bar; None to find which of the
            first three it is.
        table: of a tabular file: what was said about its columns, or the schema to read it by.
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
        kind: RowKind | None = None,
        filename: str | None = None,
        content_type: str | None = None,
        table: TableChoice | TableSchema | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        if delimiter not in (None, *DELIMITERS, "|"):
            raise ValueError(f"{delimiter!r} cannot part the fields of a CSV file")
        self.format = format
        self._delimiter = delimiter
        self._chosen = (kind, text_column, label_column)
        self._named = (filename, content_type)
        self._table = table
        self._head = bytearray()
        self._block_bytes = block_bytes
        self._problems = Problems()
        self._unpacker = Unpacker(self._problems, block_bytes)
        self._shapes: Shapes | None = None
        self._container: _Container | None = None
        self._told = "it was asked for"  # why it is of this format

    def feed(self, chunk: bytes) -> list[AnyRow]:
        """Take the next bytes and give the rows that became whole."""
        return list(self.take(chunk))

    def take(self, chunk: bytes) -> Iterator[AnyRow]:
        """Do the same row by row, so that no more than a piece of a packed file is held."""
        for piece in self._unpacker.feed(chunk):
            yield from self._take(piece)

    def finish(self) -> list[AnyRow]:
        """Take the end of the file, give the last rows and judge the file as a whole."""
        return list(self.rest())

    def rest(self) -> Iterator[AnyRow]:
        """Do the same row by row: of some formats no row comes before the end."""
        for piece in self._unpacker.finish():
            yield from self._take(piece)
        if self._problems.stopped():
            return
        if self._container is None:
            yield from self._rows(self._begin())
        container, shapes = self._container, self._shapes
        if container is None or shapes is None or self._problems.stopped():
            return
        yield from container.finish()
        self._judge(shapes)

    def check(self, chunk: bytes) -> None:
        """Take the next bytes for what is wrong with them."""
        for _ in self.take(chunk):
            pass

    def check_rest(self) -> None:
        """Take the end of the file for what is wrong with it, and with the whole."""
        for _ in self.rest():
            pass

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
        return self._container.delimiter if self._container else None

    @property
    def compression(self) -> Compression | None:
        return self._unpacker.compression

    @property
    def why(self) -> str:
        """Why the file is read as it is, in words."""
        names = {"csv": "CSV", "jsonl": "JSON Lines", "json": "JSON", "parquet": "Parquet"}
        if self.format is None or self.kind is None or self._shapes is None:
            return ""
        named = names.get(self.format, "plain text")
        packed = f"{named}, packed with gzip" if self.compression else named
        return f"{self.kind}, because {self._shapes.why}; {packed}, because {self._told}"

    @property
    def encoding(self) -> Literal["utf-8", "utf-8-sig"]:
        marked = self._container is not None and self._container.byte_order_mark
        return "utf-8-sig" if marked else "utf-8"

    @property
    def kind(self) -> RowKind | None:
        """As it was given, or as the first row told it."""
        return self._shapes.kind if self._shapes else self._chosen[0]

    @property
    def text_column(self) -> str | None:
        """What is answered: the text, the instruction, the prompt or the messages."""
        return self._columns.text if self._columns else None

    @property
    def label_column(self) -> str | None:
        """The answer; empty of a chat, whose answers stand among its messages."""
        return self._columns.label if self._columns else None

    @property
    def labels(self) -> dict[str, int]:
        """Rows of each label so far, sorted by name; of a table that is scanned, at the end."""
        return dict(sorted(self._shapes.labels.items())) if self._shapes else {}

    @property
    def schema(self) -> TableSchema | None:
        """How a table is to be read; there once it was scanned to its end and is good."""
        return self._shapes.schema if self._shapes else None

    @property
    def cleanings(self) -> Cleanings | None:
        """What was cleaned so far, of a table that is read by its schema."""
        return self._shapes.cleanings if self._shapes else None

    @property
    def row_count(self) -> int:
        return self._shapes.rows if self._shapes else 0

    @property
    def blank_lines(self) -> int:
        return self._shapes.blank_lines if self._shapes else 0

    @property
    def _columns(self) -> Columns | None:
        return self._shapes.columns if self._shapes else None

    def _take(self, piece: bytes) -> Iterator[AnyRow]:
        if self._problems.stopped():
            return
        if self._container is None:
            self._head += piece
            if len(self._head) < HEAD_BYTES:
                return
            piece = self._begin()
        yield from self._rows(piece)

    def _begin(self) -> bytes:
        head = bytes(self._head)
        self._head.clear()
        refuse_unreadable(head[:HEAD_BYTES], self.format, self._problems)
        if self.format is None:
            kind, text, label = self._chosen
            told = kind or ("classification" if text or label else None)
            self.format, self._told = detect_format(*self._named, head[:HEAD_BYTES], told)
        self._container = self._make(self.format)
        return head

    def _make(self, format_: Format) -> _Container:
        nested = format_ not in {"csv", "text"}
        shapes = Shapes(
            *self._chosen, self._problems, nested=nested, table=self._table, format_=format_
        )
        self._shapes = shapes
        problems, block_bytes = self._problems, self._block_bytes
        match format_:
            case "csv":
                return _Lines(CsvRows(shapes, self._delimiter, problems), problems, block_bytes)
            case "jsonl":
                return _Lines(JsonlRows(shapes, problems), problems, block_bytes)
            case "text":
                return _Lines(ParagraphRows(shapes, problems), problems, block_bytes)
            case "json":
                return JsonArrayRows(shapes, problems, block_bytes)
            case "parquet":
                return ParquetRows(shapes, problems)

    def _rows(self, data: bytes) -> Iterator[AnyRow]:
        if self._container is not None and not self._problems.stopped():
            yield from self._container.feed(data)

    def _judge(self, shapes: Shapes) -> None:
        if self._problems.count:
            return  # rows were left out, so nothing can be said of the whole
        if shapes.rows:
            shapes.finish()
        else:
            header = shapes.columns is not None
            self._problems.stop(
                1,
                "no_rows" if header else "empty_file",
                "there is a header and no row below it" if header else "the file is empty",
                shapes.at_least,
            )


def read_rows(
    chunks: Iterable[bytes],
    format: Format | None = None,  # noqa: A002 - as in RowReader
    text_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
) -> Iterator[Row]:
    """Read texts and labels from a file that is expected to be good.

    Raises:
        DatasetUnreadable: at the end, after the rows that could be read.
    """
    reader = RowReader(format, text_column, label_column, delimiter, kind="classification")
    for row in _read(reader, chunks):
        if isinstance(row, Row):
            yield row


def read_conversations(
    chunks: Iterable[bytes],
    format: Format | None = None,  # noqa: A002 - as in RowReader
    kind: RowKind | None = None,
    delimiter: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Iterator[Conversation]:
    """Read conversations from a file that is expected to be good; of a classification, none.

    Raises:
        DatasetUnreadable: at the end, after the rows that could be read.
    """
    reader = RowReader(format, text_column, label_column, delimiter, kind=kind)
    for row in _read(reader, chunks):
        if isinstance(row, Conversation):
            yield row


def read_pairs(
    chunks: Iterable[bytes],
    format: Format | None = None,  # noqa: A002 - as in RowReader
    delimiter: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Iterator[PreferencePair]:
    """Read pairs of answers from a file that is expected to be good.

    Raises:
        DatasetUnreadable: at the end, after the rows that could be read.
    """
    reader = RowReader(format, text_column, label_column, delimiter, kind="preference")
    for row in _read(reader, chunks):
        if isinstance(row, PreferencePair):
            yield row


def read_rated(
    chunks: Iterable[bytes],
    format: Format | None = None,  # noqa: A002 - as in RowReader
    delimiter: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> Iterator[RatedCompletion]:
    """Read rated answers from a file that is expected to be good.

    Raises:
        DatasetUnreadable: at the end, after the rows that could be read.
    """
    reader = RowReader(format, text_column, label_column, delimiter, kind="kto")
    for row in _read(reader, chunks):
        if isinstance(row, RatedCompletion):
            yield row


def read_table(
    chunks: Iterable[bytes],
    format: Format | None,  # noqa: A002 - as in RowReader
    schema: TableSchema,
    delimiter: str | None = None,
) -> Iterator[TableRow]:
    """Read the rows of a table that is expected to be good, as its schema says.

    Raises:
        DatasetUnreadable: at the end, after the rows that could be read.
    """
    reader = RowReader(format, delimiter=delimiter, kind="tabular", table=schema)
    for row in _read(reader, chunks):
        if isinstance(row, TableRow):
            yield row


def _read(reader: RowReader, chunks: Iterable[bytes]) -> Iterator[AnyRow]:
    for chunk in chunks:
        yield from reader.take(chunk)
    yield from reader.rest()
    if reader.problem_count:
        raise DatasetUnreadable(reader.problems, reader.problem_count)
