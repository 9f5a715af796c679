"""One cell of a table: as a number, as a category, or as missing, and whether it had to be cleaned."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from domain.datasets.values import Number

# How people write that there is no number. In a column of categories only an empty cell is missing:
# "none" or "?" may be a category there.
NO_NUMBER: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,\d+", re.ASCII)


def cell_text(value: object) -> str:
    """Spell what a CSV field, a JSON value or a database may hold; nothing is an empty cell."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case _:
            return str(value)


def is_cell(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | Number)


def read_number(text: str, *, decimal_comma: bool) -> float | None:
    """Read a finite number, or None; a comma is only read where none parts the fields of a row."""
    if _NUMBER.fullmatch(text):
        number = float(text)
    elif decimal_comma and _DECIMAL_COMMA.fullmatch(text):
        number = float(text.replace(",", "."))
    else:
        return None
    return number if math.isfinite(number) else None


def category_key(text: str) -> str:
    """What spellings of one category have in common: blanks around it and case say nothing."""
    return text.strip().casefold()


def commonest(spellings: Mapping[str, int]) -> str:
    """The spelling that stands most often; of equals the first by code point."""
    return min(spellings, key=lambda spelling: (-spellings[spelling], spelling))


class Spellings:
    """Counts the spellings of the categories of one column, as long as there are not too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: dict[str, Counter[str]] = {}
        self.too_many = False

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, text: str) -> None:
        if self.too_many:
            return
        spelling = text.strip()
        counts = self._by_key.setdefault(category_key(text), Counter())
        counts[spelling] += 1
        self.too_many = len(self._by_key) > self._most

    def names(self) -> dict[str, str]:
        """The name of every category, by its key."""
        return {key: commonest(counts) for key, counts in self._by_key.items()}

    def rows(self) -> dict[str, int]:
        """How often each key stands."""
        return {key: counts.total() for key, counts in self._by_key.items()}
