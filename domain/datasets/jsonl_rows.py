"""JSON Lines to rows: one object a line, with a string text and a plain label."""

import json
import re
from collections.abc import Iterator
from typing import Any, Never

from domain.datasets.checks import Columns, Row, RowChecks, choose_columns
from domain.datasets.lines import NOT_TEXT, Block, add_line_too_long, add_not_text
from domain.datasets.problems import Problems, shown

MAX_DEPTH = 64  # of nesting; real rows have one or two levels, thousands would exhaust the stack
_JSON_SPACE = " \t\r\n"
_STRING = re.compile(r'"(?:[^"\\]+|\\.)*"?', re.DOTALL)  # or what is left of one


class _Number(str):
    """A number as it was spelled, so that 007 cannot become 7 and no digit is lost."""

    __slots__ = ()


class _DuplicateKey(Exception):
    pass


class _NotJson(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return result


def _refuse_constant(name: str) -> Never:
    raise _NotJson(name)


_decoder = json.JSONDecoder(
    object_pairs_hook=_no_duplicates,
    parse_int=_Number,
    parse_float=_Number,
    parse_constant=_refuse_constant,
)


class JsonlRows:
    """Reads blocks of lines; every line stands alone."""

    delimiter = None

    def __init__(
        self,
        text_column: str | None,
        label_column: str | None,
        problems: Problems,
        checks: RowChecks,
    ) -> None:
        self._chosen = (text_column, label_column)
        self._problems = problems
        self._checks = checks
        self._begun = False
        self.columns: Columns | None = None

    def rows(self, block: Block) -> Iterator[Row]:
        if block.too_long:
            add_line_too_long(self._problems, block.line)
        for index, text in enumerate(block.lines):
            if self._problems.stopped():
                return
            if not text.strip():
                self._checks.blank_lines += 1
            elif not block.clean and NOT_TEXT.search(text):
                add_not_text(self._problems, block.lines, index, block.line, block.offset)
            elif row := self._row(text, block.line + index):
                yield row

    def finish(self) -> Iterator[Row]:
        yield from ()

    def _row(self, source: str, line: int) -> Row | None:
        if not self._begun:
            self._begun = True
            self._refuse_other_json(source.strip(), line)
            if self._problems.stopped():
                return None
        parsed = self._parse(source, line)
        if parsed is None:
            return None
        if self.columns is None:
            self.columns = choose_columns(list(parsed), *self._chosen, line, self._problems)
        if self.columns is None:
            return None
        text = self._text(parsed, self.columns.text, line)
        label = self._label(parsed, self.columns.label, line)
        if text is None or label is None:
            return None
        return self._checks.accept(line, text, label, self.columns)

    def _refuse_other_json(self, first_line: str, line: int) -> None:
        if first_line.startswith("["):
            self._problems.stop(
                line,
                "json_array",
                "the file is a JSON array, not JSON Lines",
                "one object a line, no brackets around and no commas between them;"
                " convert it with: jq -c '.[]' data.json > data.jsonl",
            )
        elif first_line == "{":
            self._problems.stop(
                line,
                "json_over_lines",
                "an object goes over more than one line",
                "each object on one line; convert it with: jq -c . data.json > data.jsonl",
            )

    def _parse(self, source: str, line: int) -> dict[str, Any] | None:
        lead = len(source) - len(source.lstrip(_JSON_SPACE))
        source = source.strip(_JSON_SPACE)
        if source.count("[") + source.count("{") > MAX_DEPTH and _depth(source) > MAX_DEPTH:
            self._problems.add(
                line,
                "too_deep",
                f"values are nested more than {MAX_DEPTH} levels deep",
                "a flat object with a text and a label",
            )
            return None
        try:
            value = _decoder.decode(source)
        except json.JSONDecodeError as error:
            self._invalid(line, error.msg, lead + error.pos + 1)
        except _NotJson as error:
            self._invalid(line, f"{error} is not a JSON value", lead + source.find(str(error)) + 1)
        except _DuplicateKey as error:
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
            self._problems.add(
                line,
                "not_an_object",
                f"the line holds {_kind(value)}",
                'an object, such as {"text": "Where is my parcel?", "label": "track_order"}',
            )
        return None

    def _invalid(self, line: int, why: str, column: int) -> None:
        self._problems.add(
            line, "invalid_json", f"not valid JSON: {why}", "one whole JSON object", column=column
        )

    def _text(self, row: dict[str, Any], key: str, line: int) -> str | None:
        value = self._present(row, key, line, "a string")
        if value is None:
            return None
        if type(value) is not str:
            self._wrong_type(line, key, value, "a string in double quotes")
            return None
        return self._encodable(value, key, line)

    def _label(self, row: dict[str, Any], key: str, line: int) -> str | None:
        expected = "a string, an integer, true or false"
        value = self._present(row, key, line, expected)
        if value is None:
            return None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str) and not (isinstance(value, _Number) and _is_fraction(value)):
            return self._encodable(str(value), key, line)
        self._wrong_type(line, key, value, expected)
        return None

    def _present(self, row: dict[str, Any], key: str, line: int, expected: str) -> object:
        if key not in row:
            keys = ", ".join(map(shown, list(row)[:20])) or "none"
            self._problems.add(
                line,
                "missing_key",
                f"the key {shown(key)} is missing; the keys are {keys}",
                f"the key {shown(key)} with {expected}",
                field=key,
            )
            return None
        if row[key] is None:
            self._wrong_type(line, key, None, expected)
        value: object = row[key]
        return value

    def _wrong_type(self, line: int, key: str, value: object, expected: str) -> None:
        self._problems.add(line, "wrong_type", f"the value is {_kind(value)}", expected, field=key)

    def _encodable(self, value: str, key: str, line: int) -> str | None:
        if (value.isascii() and "\0" not in value) or not (bad := NOT_TEXT.search(value)):
            return value
        self._problems.add(
            line,
            "invalid_character",
            f"the value holds the escape \\u{ord(bad[0]):04x}, which is no character of a text",
            "characters only; a surrogate comes in pairs and NUL cannot be stored",
            field=key,
        )
        return None


def _is_fraction(number: str) -> bool:
    return not number.removeprefix("-").isdecimal()


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case _Number():
            return f"the number {shown(value)[1:-1]}"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _depth(source: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", source)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
