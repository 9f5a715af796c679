"""A JSON array to rows: one object after the other, however long the lines are."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, Final

from domain.datasets.jsonl_rows import (
    DECODER,
    JSON_SPACE,
    MAX_DEPTH,
    DuplicateKey,
    NotJson,
    add_not_an_object,
    depth_of,
)
from domain.datasets.lines import MAX_LINE_BYTES, NOT_TEXT
from domain.datasets.problems import Problems, shown
from domain.datasets.shapes import AnyRow, Shapes

MAX_OBJECT_CHARS: Final = MAX_LINE_BYTES  # as one line of JSON Lines may have
_PLAIN: Final = json.JSONDecoder()  # takes what is JSON to others, to find where it ends
_ARRAY: Final = 'an array of objects: [{"text": "…", "label": "…"}, …]'


class JsonArrayRows:
    """Takes bytes; what is wrong between two objects ends the reading, for nobody knows how to go on.

    Bytes are gathered to blocks, so that what is read never depends on how they were cut.
    """

    delimiter = None

    def __init__(self, shapes: Shapes, problems: Problems, block_bytes: int) -> None:
        self._shapes = shapes
        self._problems = problems
        self._block_bytes = block_bytes
        self._buffer = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""  # what is not read yet
        self._offset = 0  # of its first byte
        self._line, self._column = 1, 1  # of its first character
        self._mark = (0, 1)  # where the last object began, and on which line
        self._begun = False
        self._tried = 0  # characters of an object whose end was not there
        self._next = "["  # what may come: "[", a value, "," or "end"
        self._first = True  # no object was met yet
        self.byte_order_mark = False

    def feed(self, data: bytes) -> Iterator[AnyRow]:
        self._buffer += data
        while len(self._buffer) >= self._block_bytes and not self._problems.stopped():
            block = bytes(self._buffer[: self._block_bytes])
            del self._buffer[: self._block_bytes]
            yield from self._more(self._decoder.decode(block), final=False)

    def finish(self) -> Iterator[AnyRow]:
        yield from self._more(self._decoder.decode(bytes(self._buffer), final=True), final=True)
        if not self._problems.stopped() and self._next not in {"end", "["}:
            self._stop(0, "the file ends before the array does")

    def _more(self, text: str, *, final: bool) -> Iterator[AnyRow]:
        if not self._begun and text:
            self._begun = True
            self.byte_order_mark = text.startswith("\ufeff")
            self._offset = 3 if self.byte_order_mark else 0
            text = text.removeprefix("\ufeff")
        self._text += text
        if not final and len(self._text) < 2 * self._tried:
            return  # trying again at every block would cost the square of the object's length
        self._tried = 0
        at = 0
        while not self._problems.stopped():
            at = self._pass_space(at)
            if at == len(self._text) or (not final and self._text[at] == "\r"):
                break
            if self._next != "value" or self._text[at] == "]":
                at = self._pass_sign(at)
                continue
            end, row = self._value(at, final=final)
            if end is None:
                break
            if row is not None:
                yield row
            at, self._next, self._first = end, ",", False
        if not self._problems.stopped():
            self._forget(at)

    def _pass_space(self, at: int) -> int:
        text, end = self._text, len(self._text)
        while at < end and text[at] in JSON_SPACE:
            if text[at] == "\r" and at + 1 == end:
                return at  # it may be half of a CRLF
            at += 1
        return at

    def _pass_sign(self, at: int) -> int:
        sign = self._text[at]
        if self._next == sign and sign in "[,":
            self._next = "value"
        elif sign == "]" and (self._next == "," or (self._next == "value" and self._first)):
            self._next = "end"
        elif self._next == "[":
            line, _ = self._place(at)
            self._problems.stop(line, "not_an_array", f"the file begins with {shown(sign)}", _ARRAY)
        elif self._next == "end":
            self._stop(at, "there is something behind the array")
        elif self._next == ",":
            self._stop(at, "a comma was to come, or the end of the array")
        else:
            self._stop(at, "there is no object behind the comma")
        return at + 1

    def _value(self, at: int, *, final: bool) -> tuple[int | None, AnyRow | None]:
        """Read one value; its end is None where it has not come yet."""
        try:
            value, end = DECODER.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            return self._broken(at, error, final=final), None
        except (DuplicateKey, NotJson) as error:
            try:
                _, end = _PLAIN.raw_decode(self._text, at)
            except json.JSONDecodeError as broken:
                return self._broken(at, broken, final=final), None
            self._refuse(error, at, end)
            return end, None
        except RecursionError:
            self._too_deep(at, stop=True)
            return at, None
        if end == len(self._text) and not final:
            return None, None  # a number may go on
        return end, self._row(value, at, end)

    def _row(self, value: Any, at: int, end: int) -> AnyRow | None:
        source = self._text[at:end]
        line = self._line_of(at)
        if not source.isascii() and (found := NOT_TEXT.search(source)):
            self._not_text(at + found.start())
        elif source.count("[") + source.count("{") > MAX_DEPTH and depth_of(source) > MAX_DEPTH:
            self._too_deep(at, stop=False)
        elif not isinstance(value, dict):
            add_not_an_object(value, line, "the array", self._problems)
        else:
            if self._shapes.columns is None:
                self._shapes.begin(list(value), line)
            return None if self._problems.stopped() else self._shapes.take(line, value)
        return None

    def _broken(self, at: int, error: json.JSONDecodeError, *, final: bool) -> int | None:
        if not final and len(self._text) - at <= MAX_OBJECT_CHARS:
            self._tried = len(self._text) - at
            return None
        found = NOT_TEXT.search(self._text, at, error.pos + 1)
        if found and found[0] != "\0":
            self._not_text(found.start())
            self._problems.give_up()
        elif error.msg.startswith("Unterminated") and not final:
            self._stop(at, f"the object has more than {MAX_OBJECT_CHARS:,} characters")
        else:
            self._stop(error.pos, f"not valid JSON: {error.msg}")
        return at

    def _refuse(self, error: DuplicateKey | NotJson, at: int, end: int) -> None:
        line, column = self._place(at)
        key = str(error)
        if isinstance(error, DuplicateKey):
            what = f"the key {shown(key)} stands twice in one object"
            self._problems.add(line, "duplicate_key", what, "every key once", field=key)
        else:
            line, column = self._place(max(self._text.find(key, at, end), at))
            what = f"not valid JSON: {key} is not a JSON value"
            self._problems.add(line, "invalid_json", what, "a number, or null", column=column)

    def _too_deep(self, at: int, *, stop: bool) -> None:
        line, _ = self._place(at)
        what = f"values are nested more than {MAX_DEPTH} levels deep"
        expected = "a flat object with a text and a label, or with messages"
        if stop:
            self._problems.stop(line, "too_deep", what, expected)
        else:
            self._problems.add(line, "too_deep", what, expected)

    def _not_text(self, at: int) -> None:
        line, column = self._place(at)
        byte = self._text[at].encode("utf-8", "surrogateescape")[0]
        before = len(self._text[:at].encode("utf-8", "surrogateescape"))
        self._problems.add(
            line,
            "invalid_utf8",
            f"byte 0x{byte:02X} at offset {self._offset + before:,} of the file is not UTF-8 text",
            "UTF-8 text; save the file again as UTF-8",
            column=column,
        )

    def _stop(self, at: int, what: str) -> None:
        line, column = self._place(at)
        self._problems.stop(line, "invalid_json", what, _ARRAY, column=column)

    def _place(self, at: int) -> tuple[int, int]:
        """The line and the column of a character of the text."""
        breaks = _line_breaks(self._text, at)
        if not breaks:
            return self._line, self._column + at
        last = max(self._text.rfind("\n", 0, at), self._text.rfind("\r", 0, at))
        return self._line + breaks, at - last

    def _line_of(self, at: int) -> int:
        """The line of an object behind the last one; what was counted is not counted again."""
        before, line = self._mark
        line += _line_breaks(self._text, at, before)
        self._mark = (at, line)
        return line

    def _forget(self, at: int) -> None:
        """Let go of what was read."""
        if not at:
            return
        self._line, self._column = self._place(at)
        self._mark = (0, self._line)
        self._offset += len(self._text[:at].encode("utf-8", "surrogateescape"))
        self._text = self._text[at:]


def _line_breaks(text: str, end: int, start: int = 0) -> int:
    breaks = text.count("\n", start, end)
    returns = text.count("\r", start, end)
    return breaks + returns - text.count("\r\n", start, end) if returns else breaks
