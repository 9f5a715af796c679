"""Tells what each column of a table is for, by its name and by what stands in it, and says why."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from domain.datasets.cells import NO_NUMBER, Spellings, read_number
from domain.datasets.digests import text_digest
from domain.datasets.tables import MAX_CATEGORIES, MAX_CATEGORY_CHARS, ColumnRole

TARGET_NAMES: Final = ("target", "label", "class", "outcome", "diagnosis")
NUMERIC_SHARE: Final = 0.9  # of the cells that are not empty; the rest is reported as unreadable
IDENTIFIER_SHARE: Final = 0.5  # of different values; a number of something repeats more often
LEAST_IDENTIFIERS: Final = 10  # different ones; fewer are a code, such as that of a site
JUDGED_ROWS: Final = 100_000  # identifiers are told by the first ones, so that memory is bounded
_IDENTIFIERS: Final = frozenset({"id", "uuid", "guid"})
_NUMBERS: Final = frozenset({"no", "nr", "number"})  # of a patient, or of rooms
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(slots=True)
class ColumnFacts:
    """What stands in one column."""

    name: str
    filled: int = 0  # cells with something in them
    valued: int = 0  # of these, cells that do not only say that there is no number
    numbers: int = 0
    fractions: int = 0
    rows: int = 0
    longest: int = 0  # characters
    spellings: Spellings = field(default_factory=lambda: Spellings(MAX_CATEGORIES))
    _seen: set[bytes] = field(default_factory=set)
    _identifies: bool = False
    _counts: bool = False

    def __post_init__(self) -> None:
        words = [word.lower() for word in _WORD.findall(self.name)]
        ends = {words[0], words[-1]} if words else set()
        self._identifies, self._counts = bool(ends & _IDENTIFIERS), bool(ends & _NUMBERS)

    @property
    def judged(self) -> int:
        return min(self.rows, JUDGED_ROWS)

    @property
    def different(self) -> int:
        """Different values of the judged rows."""
        return len(self._seen)

    @property
    def is_identifier(self) -> bool:
        """Called like one, of many values, and no measurement."""
        many = self.different >= IDENTIFIER_SHARE * self.judged
        if self._identifies:
            many = many or self.different >= LEAST_IDENTIFIERS
        return (self._identifies or self._counts) and many and not self.fractions

    def add(self, text: str, *, decimal_comma: bool) -> None:
        self.rows += 1
        stripped = text.strip()
        if not stripped:
            return
        self.filled += 1
        self.longest = max(self.longest, len(stripped))
        if stripped.casefold() not in NO_NUMBER:
            self.valued += 1
            number = read_number(stripped, decimal_comma=decimal_comma)
            self.numbers += number is not None
            self.fractions += number is not None and not number.is_integer()
        self.spellings.add(text)
        if (self._identifies or self._counts) and self.rows <= JUDGED_ROWS:
            self._seen.add(text_digest(stripped))


def role_of(facts: ColumnFacts) -> tuple[ColumnRole, str]:
    """Tell the role of a column that nobody chose, and the rule that told it."""
    if not facts.filled:
        return "ignored", "nothing stands in it"
    if facts.is_identifier:
        return identifier_role(facts)
    if not facts.spellings.too_many and len(facts.spellings) == 1:
        return "ignored", "it holds one value only"
    if facts.valued and facts.numbers >= NUMERIC_SHARE * facts.valued:
        share = f"{facts.numbers} of {facts.valued}" if facts.numbers < facts.valued else "all"
        return "numeric", f"{share} of its values are numbers"
    if facts.spellings.too_many:
        return "ignored", f"more than {MAX_CATEGORIES} different texts are no categories"
    if facts.longest > MAX_CATEGORY_CHARS:
        return "ignored", f"texts of more than {MAX_CATEGORY_CHARS} characters are no categories"
    return "categorical", f"it holds {len(facts.spellings)} categories"


def identifier_role(facts: ColumnFacts) -> tuple[ColumnRole, str]:
    if facts.different < min(facts.filled, facts.judged):
        return "group", "an identifier by its name; rows with the same one stay together"
    return "ignored", "an identifier by its name, another one in every row"


def target_of(names: Sequence[str]) -> tuple[str, str]:
    """Tell the target that nobody named: by its usual names, else the last column."""
    for usual in TARGET_NAMES:
        alike = [name for name in names if name.casefold() == usual]
        if len(alike) == 1:
            return alike[0], "its name is usual for a target"
    return names[-1], "it is the last column"
