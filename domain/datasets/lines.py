"""Bytes to numbered lines: cut into blocks of whole lines, whatever chunks they came in."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domain.datasets.problems import Problems

BLOCK_BYTES = 64 * 1024  # read at once; bounds memory and how long one call can take
MAX_LINE_BYTES = 2 * 1024 * 1024  # a text of the greatest length, all of it escaped, still fits
UTF8_BOM = b"\xef\xbb\xbf"
NOT_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and what surrogateescape makes of a bad byte


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, each with its line end as it was."""

    line: int  # number of the first one, from 1
    offset: int  # of the first byte, in the file
    end: int  # offset of the byte after the last one
    lines: list[str]
    clean: bool = True  # neither NUL nor bytes that are not UTF-8
    too_long: bool = False  # one line that was longer than anybody may hold; its text is left out


class LineBlocks:
    """Cuts bytes into blocks of lines ended by LF, CRLF or lone CR, in any mixture.

    Bytes are gathered to blocks of a fixed size first, so that what is read never depends on how
    the file was cut into chunks on its way.
    """

    def __init__(self, block_bytes: int, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._block_bytes = block_bytes
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        self._tail = b""  # a line whose end has not been seen
        self._skipping = False  # inside a line that is too long
        self._line = 1
        self._offset = 0
        self._started = False
        self.byte_order_mark = False

    def feed(self, chunk: bytes) -> Iterator[Block]:
        self._buffer += chunk
        whole = len(self._buffer) - len(self._buffer) % self._block_bytes
        if not whole:
            return
        data = bytes(self._buffer[:whole])
        del self._buffer[:whole]
        for start in range(0, whole, self._block_bytes):
            yield from self._cut(data[start : start + self._block_bytes], final=False)

    def finish(self) -> Iterator[Block]:
        data = bytes(self._buffer)
        self._buffer.clear()
        yield from self._cut(data, final=True)

    def _cut(self, data: bytes, *, final: bool) -> Iterator[Block]:
        searched = max(0, len(self._tail) - 1)  # a CR may be waiting there for its LF
        data = self._tail + data
        if not self._started:
            self._started = True
            self.byte_order_mark = data.startswith(UTF8_BOM)
            if self.byte_order_mark:
                data = data[len(UTF8_BOM) :]
                self._offset = len(UTF8_BOM)
        stop = len(data) if final else _end_of_lines(data, searched)
        self._tail = data[stop:]
        if stop:
            yield from self._blocks(data[:stop])
        if len(self._tail) > self._max_line_bytes or self._skipping:
            yield from self._skip()

    def _blocks(self, data: bytes) -> Iterator[Block]:
        if self._skipping:  # the end of a line that is too long comes first
            self._skipping = False
            rest = data[len(_first_line(data)) :]
            self._line += 1
            self._offset += len(data) - len(rest)
            data = rest
        if data:
            block = _block(data, self._line, self._offset)
            self._line += len(block.lines)
            self._offset = block.end
            yield block

    def _skip(self) -> Iterator[Block]:
        if not self._skipping:
            self._skipping = True
            yield Block(self._line, self._offset, self._offset, [], too_long=True)
        keep = 1 if self._tail.endswith(b"\r") else 0  # it may be half of a CRLF
        self._offset += len(self._tail) - keep
        self._tail = self._tail[len(self._tail) - keep :]


def _end_of_lines(data: bytes, start: int) -> int:
    """Offset behind the last line end; a CR at the very end may be half of a CRLF and waits."""
    end = len(data) - 1 if data.endswith(b"\r") else len(data)
    return max(data.rfind(b"\n", start, end), data.rfind(b"\r", start, end)) + 1


def _first_line(data: bytes) -> bytes:
    match = re.match(rb"[^\r\n]*(?:\r\n|\r|\n)?", data)
    return match[0] if match else b""


def _block(data: bytes, line: int, offset: int) -> Block:
    try:
        text, clean = data.decode("utf-8"), True
    except UnicodeDecodeError:
        text, clean = data.decode("utf-8", errors="surrogateescape"), False
    clean = clean and "\0" not in text
    lines = list(io.StringIO(text, newline=""))  # knows all three line ends and keeps them
    return Block(line, offset, offset + len(data), lines, clean=clean)


def add_line_too_long(problems: Problems, line: int) -> None:
    problems.add(
        line,
        "line_too_long",
        f"the line has more than {MAX_LINE_BYTES:,} bytes",
        "one row a line; check the line ends of the file",
    )


def add_not_text(
    problems: Problems, lines: Sequence[str], first: int, line: int, offset: int
) -> None:
    """Say which byte of ``lines[first:]`` is the first that is not text; there must be one.

    ``line`` and ``offset`` are those of ``lines[0]``.
    """
    index = first
    while not (found := NOT_TEXT.search(lines[index])):
        index += 1
    before = "" if problems.full() else "".join(lines[:index]) + lines[index][: found.start()]
    at = offset + len(before.encode("utf-8", "surrogateescape"))
    bad = found[0].encode("utf-8", "surrogateescape")[0]
    code, what = ("nul_byte", "a NUL byte") if bad == 0 else ("invalid_utf8", f"byte 0x{bad:02X}")
    problems.add(
        line + index,
        code,
        f"{what} at offset {at:,} of the file is not UTF-8 text",
        "UTF-8 text; save the file again as UTF-8",
        column=found.start() + 1,
    )
