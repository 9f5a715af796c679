"""Plain text to rows: paragraphs, parted by blank lines."""

from collections.abc import Iterator

from domain.datasets.lines import NOT_TEXT, Block, add_line_too_long, add_not_text
from domain.datasets.problems import Problems
from domain.datasets.shapes import AnyRow, Shapes
from domain.datasets.text_rows import TEXT
from domain.datasets.values import MAX_FIELD_CHARS, too_long_field


class ParagraphRows:
    """Reads blocks of lines; a paragraph whose end is not there yet waits for the next block."""

    delimiter = None

    def __init__(self, shapes: Shapes, problems: Problems) -> None:
        self._shapes = shapes
        self._problems = problems
        self._lines: list[str] = []
        self._line = 1  # number of the first of them
        self._chars = 0
        self._spoilt = False  # something in it was named as wrong
        self._begun = False

    def rows(self, block: Block) -> Iterator[AnyRow]:
        if not self._begun:
            self._begun = True
            self._shapes.begin([TEXT], 1)
        if block.too_long:
            add_line_too_long(self._problems, block.line)
            self._spoilt = True
        for index, text in enumerate(block.lines):
            if self._problems.stopped():
                return
            if not text.strip():
                self._shapes.blank_lines += 1
                yield from self.finish()
                continue
            if not self._chars:
                self._line = block.line + index
            if not block.clean and NOT_TEXT.search(text):
                add_not_text(self._problems, block.lines, index, block.line, block.offset)
                self._spoilt = True
            self._chars += len(text)
            if self._chars <= MAX_FIELD_CHARS:
                self._lines.append(text.rstrip("\r\n"))

    def finish(self) -> Iterator[AnyRow]:
        """Take the end of a paragraph."""
        line, chars, spoilt = self._line, self._chars, self._spoilt
        text = "\n".join(self._lines)
        self._lines, self._chars, self._spoilt = [], 0, False
        if not chars or spoilt:
            return
        if chars > MAX_FIELD_CHARS:
            too_long_field(self._problems, line, TEXT, chars)
        elif row := self._shapes.take(line, {TEXT: text}):
            yield row
