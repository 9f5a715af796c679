"""CSV to rows: quoted fields over several lines, and every bad line named by where it went wrong."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from domain.datasets.lines import (
    MAX_LINE_BYTES,
    NOT_TEXT,
    Block,
    add_line_too_long,
    add_not_text,
)
from domain.datasets.problems import MAX_NAME_CHARS, Problems, shown
from domain.datasets.shapes import AnyRow, Shapes
from domain.datasets.sniff import DELIMITERS
from domain.datasets.values import MAX_FIELD_CHARS, too_long_field

_DELIMITER_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_STRAY_TEXT = ("bad_quote", "there is text behind a closing quote")
_UNTERMINATED = (
    "unterminated_quote",
    "a quote opens here and is not closed where the field ends",
)
_QUOTING = "one quote before the field, one behind it, and a quote inside it written twice"
_OPEN_AT_END = "unexpected end of data"  # how csv.Error says that a quote is still open
_FIELD_LIMIT = "field larger than field limit"  # csv's own limit, 131,072 unless somebody set it


class CsvRows:
    """Reads blocks of lines; a record whose end is not there yet waits for the next block."""

    def __init__(self, shapes: Shapes, delimiter: str | None, problems: Problems) -> None:
        self._shapes = shapes
        self._problems = problems
        self._names: list[str] = []  # none before the header was read
        self._lines: list[str] = []  # of a record that is not whole yet
        self._line = 1  # number of the first of them
        self._offset = 0  # of its first byte
        self._clean = True
        self._tried_chars = 0  # of an open record, when it was last tried
        self.delimiter = delimiter

    def rows(self, block: Block) -> Iterator[AnyRow]:
        if block.too_long:
            yield from self.finish()
            add_line_too_long(self._problems, block.line)
            self._give_up_without_header()
            return
        if not self._lines:
            self._line, self._offset, self._clean = block.line, block.offset, True
        self._lines = self._lines + block.lines
        self._clean = self._clean and block.clean
        if self._tried_chars and sum(map(len, self._lines)) < 2 * self._tried_chars:
            return  # trying again at every block would cost the square of the record's length
        yield from self._read(end=block.end)

    def finish(self) -> Iterator[AnyRow]:
        yield from self._read(end=None)

    def _read(self, *, end: int | None) -> Iterator[AnyRow]:
        """Read all records of the lines at hand; with ``end`` None no more will come."""
        start = self._pass_blank_lines() if not self._names else 0
        while start < len(self._lines) and self.delimiter and not self._problems.stopped():
            first = start
            reader = csv.reader(_from(self._lines, start), delimiter=self.delimiter, strict=True)
            try:
                for fields in reader:
                    stop = first + reader.line_num
                    row = self._record(fields, start, stop)
                    start = stop
                    if row is not None:
                        yield row
                    elif self._problems.stopped():
                        break
            except csv.Error as error:
                if end is not None and str(error) == _OPEN_AT_END and self._may_go_on(start):
                    break
                start = self._broken(start, first + reader.line_num, str(error))
        self._keep(start, end or 0)

    def _pass_blank_lines(self) -> int:
        """Go to the header and see by which delimiter it is parted."""
        blank = 0
        while blank < len(self._lines) and not self._lines[blank].strip():
            blank += 1
        self._shapes.blank_lines += blank
        if self.delimiter is None and blank < len(self._lines):
            self.delimiter = _detect_delimiter(self._lines[blank])
        return blank

    def _may_go_on(self, start: int) -> bool:
        return sum(map(len, self._lines[start:])) <= MAX_LINE_BYTES

    def _keep(self, start: int, end: int) -> None:
        rest = self._lines[start:]
        kept = "".join(rest)
        self._line += start
        self._offset = end - len(kept.encode("utf-8", "surrogateescape"))
        self._lines = [] if self._problems.stopped() else rest
        self._tried_chars = len(kept)

    def _record(self, fields: list[str], start: int, stop: int) -> AnyRow | None:
        line = self._line + start
        if not any(map(str.strip, fields)):
            self._shapes.blank_lines += 1
        elif not self._clean and NOT_TEXT.search("".join(self._lines[start:stop])):
            add_not_text(self._problems, self._lines, start, self._line, self._offset)
            self._give_up_without_header()
        elif not self._names:
            self._header(fields, line)
        elif len(fields) != len(self._names):
            self._wrong_count(fields, line)
        elif (longest := max(map(len, fields))) > MAX_FIELD_CHARS:
            name = self._names[list(map(len, fields)).index(longest)]
            too_long_field(self._problems, line, name, longest)
        else:
            return self._shapes.take(line, dict(zip(self._names, fields, strict=True)))
        return None

    def _header(self, fields: list[str], line: int) -> None:
        names = [field.strip() for field in fields]
        longest = max(names, key=len)
        twice = [name for name, times in Counter(names).items() if name and times > 1]
        if len(longest) > MAX_NAME_CHARS:
            self._problems.stop(
                line,
                "bad_header",
                f"the first line has a field of {len(longest):,} characters: {shown(longest)}",
                "a first line that names the columns, such as text,label",
            )
        elif twice:
            self._problems.stop(
                line,
                "duplicate_column",
                f"more than one column is called {shown(twice[0])}",
                "a different name for every column",
                field=twice[0],
            )
        else:
            self._shapes.begin(names, line, self.delimiter)
            self._names = [] if self._problems.stopped() else names

    def _wrong_count(self, fields: Sequence[str], line: int) -> None:
        wanted = len(self._names)
        self._problems.add(
            line,
            "wrong_field_count",
            f"the row has {len(fields)} field{'s' if len(fields) != 1 else ''},"
            f" the header has {wanted}",
            f"{wanted} fields parted by {_DELIMITER_NAMES.get(self.delimiter or '', 'delimiters')};"
            " a field that holds one itself stands in double quotes",
            field=self._names[len(fields)] if len(fields) < wanted else None,
        )

    def _broken(self, start: int, stop: int, reason: str) -> int:
        """Say where a record went wrong and give the line to go on from: the one below the quote."""
        text = "".join(self._lines[start:stop])
        position, index = _opening_quote(text, self.delimiter or ",")
        starts = [0, *_line_starts(text[:position])]
        go_on = start + len(starts)
        line = self._line + go_on - 1
        name = self._names[index] if index < len(self._names) else None
        if _FIELD_LIMIT in reason and stop == start + 1:
            too_long_field(self._problems, line, None, max(map(len, text.split(self.delimiter))))
        else:
            one_line = reason != _OPEN_AT_END and stop == go_on
            code, message = _STRAY_TEXT if one_line else _UNTERMINATED
            column = position - starts[-1] + 1
            self._problems.add(line, code, message, _QUOTING, column=column, field=name)
        self._give_up_without_header()
        return go_on

    def _give_up_without_header(self) -> None:
        if not self._names:
            self._problems.give_up()


def _from(lines: list[str], start: int) -> Iterator[str]:
    for index in range(start, len(lines)):
        yield lines[index]


def _detect_delimiter(header: str) -> str:
    """The one that parts the header into most fields; the first one of equals."""

    def fields(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=delimiter)))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=fields)


def _line_starts(text: str) -> list[int]:
    """Offsets behind each line end in ``text``."""
    return [match.end() for match in re.finditer(r"\r\n|\r|\n", text)]


def _opening_quote(record: str, delimiter: str) -> tuple[int, int]:
    """Where a broken record's last quoted field opens: its first character, and which field it is."""
    position, index, opened = 0, 0, (0, 0)
    while position < len(record):
        if record[position] == '"':
            opened = (position, index)
            closing = _closing_quote(record, position + 1)
            if closing is None or not record.startswith(delimiter, closing + 1):
                break
            position = closing + 2
        else:
            end = record.find(delimiter, position)
            if end < 0:
                break
            position = end + 1
        index += 1
    return opened


def _closing_quote(record: str, position: int) -> int | None:
    while (quote := record.find('"', position)) >= 0:
        if not record.startswith('""', quote):
            return quote
        position = quote + 2
    return None
