"""JSON Lines to rows: one object a line, and every line that is none named by where it goes wrong."""

import json
import re
from collections.abc import Iterator
from typing import Any, Never

from domain.datasets.lines import NOT_TEXT, Block, add_line_too_long, add_not_text
from domain.datasets.problems import Problems, shown
from domain.datasets.shapes import AnyRow, Shapes
from domain.datasets.values import Number, kind_of

MAX_DEPTH = 64  # of nesting; real rows have one or two levels, thousands would exhaust the stack
JSON_SPACE = " \t\r\n"
_STRING = re.compile(r'"(?:[^"\\]+|\\.)*"?', re.DOTALL)  # or what is left of one


class DuplicateKey(Exception):
    """An object has a key twice."""


class NotJson(Exception):
    """A constant that other readers take, and JSON does not have."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return result


def _refuse_constant(name: str) -> Never:
    raise NotJson(name)


DECODER = json.JSONDecoder(
    object_pairs_hook=_no_duplicates,
    parse_int=Number,
    parse_float=Number,
    parse_constant=_refuse_constant,
)


class JsonlRows:
    """Reads blocks of lines; every line stands alone."""

    delimiter = None

    def __init__(self, shapes: Shapes, problems: Problems) -> None:
        self._shapes = shapes
        self._problems = problems
        self._begun = False
        self._shaped = False

    def rows(self, block: Block) -> Iterator[AnyRow]:
        if block.too_long:
            add_line_too_long(self._problems, block.line)
        for index, text in enumerate(block.lines):
            if self._problems.stopped():
                return
            if not text.strip():
                self._shapes.blank_lines += 1
            elif not block.clean and NOT_TEXT.search(text):
                add_not_text(self._problems, block.lines, index, block.line, block.offset)
            elif row := self._row(text, block.line + index):
                yield row

    def finish(self) -> Iterator[AnyRow]:
        yield from ()

    def _row(self, source: str, line: int) -> AnyRow | None:
        if not self._begun:
            self._begun = True
            self._refuse_other_json(source.strip(), line)
            if self._problems.stopped():
                return None
        parsed = self._parse(source, line)
        if parsed is None:
            return None
        if not self._shaped:
            self._shaped = True
            self._shapes.begin(list(parsed), line)
        return None if self._problems.stopped() else self._shapes.take(line, parsed)

    def _refuse_other_json(self, first_line: str, line: int) -> None:
        if first_line.startswith("["):
            self._problems.stop(
                line,
                "json_array",
                "the file is a JSON array, not JSON Lines",
                "one object a line, no brackets around and no commas between them; or the format"
                " json, which is such an array",
            )
        elif first_line == "{":
            self._problems.stop(
                line,
                "json_over_lines",
                "an object goes over more than one line",
                "each object on one line; convert it with: jq -c . data.json > data.jsonl",
            )

    def _parse(self, source: str, line: int) -> dict[str, Any] | None:
        lead = len(source) - len(source.lstrip(JSON_SPACE))
        source = source.strip(JSON_SPACE)
        if source.count("[") + source.count("{") > MAX_DEPTH and depth_of(source) > MAX_DEPTH:
            self._problems.add(
                line,
                "too_deep",
                f"values are nested more than {MAX_DEPTH} levels deep",
                "a flat object with a text and a label, or with messages",
            )
            return None
        try:
            value = DECODER.decode(source)
        except json.JSONDecodeError as error:
            self._invalid(line, error.msg, lead + error.pos + 1)
        except NotJson as error:
            self._invalid(line, f"{error} is not a JSON value", lead + source.find(str(error)) + 1)
        except DuplicateKey as error:
            self._problems.add(
                line,
                "duplicate_key",
                f"the key {shown(str(error))} stands twice in one object",
                "every key once",
                field=str(error),
            )
        else:
            if isinstance(value, dict):
                return value
            add_not_an_object(value, line, "the line", self._problems)
        return None

    def _invalid(self, line: int, why: str, column: int) -> None:
        self._problems.add(
            line, "invalid_json", f"not valid JSON: {why}", "one whole JSON object", column=column
        )


def add_not_an_object(value: object, line: int, where: str, problems: Problems) -> None:
    problems.add(
        line,
        "not_an_object",
        f"{where} holds {kind_of(value)}",
        'an object, such as {"text": "Where is my parcel?", "label": "track_order"}',
    )


def depth_of(source: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", source)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
