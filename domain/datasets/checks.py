"""Which columns are read, and what a row of a text and a label must hold in any format."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from domain.datasets.problems import Problems, is_name, shown
from domain.datasets.values import MAX_FIELD_CHARS, too_long_field

MAX_LABEL_CHARS = 200  # a label is a name
MAX_LABELS = 1000  # more is a column of values, not of classes
MAX_LABEL_BYTES = 18 * 1024  # of all names as JSON: one 64 KiB event of a version holds them thrice
UNIQUE_FROM_ROWS = 100  # a smaller file may be a test set with one row of each label
TEXT_NAMES = ("text", "message", "sentence", "utterance", "prompt", "input", "query", "question")
LABEL_NAMES = ("label", "intent", "category", "class", "target", "output")


@dataclass(frozen=True, slots=True)
class Row:
    line: int  # physical line where the row starts, from 1
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Columns:
    text: str
    label: str


def choose_columns(
    names: Sequence[str], text: str | None, label: str | None, line: int, problems: Problems
) -> Columns | None:
    """Find the two columns among ``names``, by the caller's choice or by their usual names.

    Names are compared without regard to case when none is spelled exactly so. Where only one of
    the two is told and there are just two columns, the other one is the other.
    """
    found_text = find_column(names, [text] if text else TEXT_NAMES)
    found_label = find_column(names, [label] if label else LABEL_NAMES)
    if len(names) == 2 and (found_text is None) != (found_label is None):
        known = found_text if found_label is None else found_label
        other = next((name for name in names if name != known and is_name(name)), None)
        found_text = found_text if text or found_text else other
        found_label = found_label if label or found_label else other
    listed = ", ".join(shown(name) for name in names[:50])
    for role, chosen, found in (("text", text, found_text), ("label", label, found_label)):
        if found is None:
            what = (
                f"there is no column {shown(chosen)}"
                if chosen
                else f"no column looks like the {role}"
            )
            problems.stop(
                line,
                "missing_column",
                f"{what}; the columns are {listed}",
                f"name the {role} column with {role}_column (CLI: --{role} COLUMN)"
                + ("" if chosen else f", or call it {' or '.join(_usual(role))} in the file")
                + "; a table of numbers and categories is of the kind tabular",
                field=chosen or role,
            )
    if found_text is None or found_label is None:
        return None
    if found_text == found_label:
        _same_column(found_text, line, problems)
        return None
    return Columns(found_text, found_label)


def choose_named(
    names: Sequence[str], text: str, label: str, line: int, problems: Problems
) -> Columns | None:
    """Find two columns that a kind of rows cannot do without."""
    found_text, found_label = find_column(names, [text]), find_column(names, [label])
    for wanted, found in ((text, found_text), (label, found_label)):
        if found is None:
            missing_column(names, wanted, f"{text} and {label}", line, problems)
    if found_text is None or found_label is None:
        return None
    if found_text == found_label:
        _same_column(found_text, line, problems)
        return None
    return Columns(found_text, found_label)


def missing_column(
    names: Sequence[str], wanted: str, columns: str, line: int, problems: Problems
) -> None:
    """Stop: what this kind of rows is read from is not there."""
    listed = ", ".join(shown(name) for name in names[:50])
    problems.stop(
        line,
        "missing_column",
        f"there is no column {shown(wanted)}; the columns are {listed}",
        f"rows with {columns}; other names are told with text_column and label_column"
        " (CLI: --text and --label)",
        field=wanted,
    )


def _same_column(name: str, line: int, problems: Problems) -> None:
    problems.stop(
        line,
        "same_column",
        f"text and label are both taken from {shown(name)}",
        "two different columns",
        field=name,
    )


def _usual(role: str) -> tuple[str, ...]:
    return TEXT_NAMES if role == "text" else LABEL_NAMES


def find_column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    for want in wanted:
        if want in names:
            return want
        alike = [name for name in names if name.casefold() == want.strip().casefold()]
        if len(alike) == 1:
            return alike[0]
    return None


class RowChecks:
    """Takes rows one by one, keeps count of the labels, and refuses what cannot be trained on."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._label_bytes = 0
        self.labels: dict[str, int] = {}

    @property
    def rows(self) -> int:
        return sum(self.labels.values())

    def accept(self, line: int, text: str, label: str, columns: Columns) -> Row | None:
        text, label = text.strip(), label.strip()
        wrong = self._text_is_wrong(line, text, columns.text)
        wrong = self._label_is_wrong(line, label, columns.label) or wrong
        if wrong:
            return None
        if label in self.labels:
            self.labels[label] += 1
        else:
            self._new_label(line, label, columns.label)
            if self._problems.stopped():
                return None
        return Row(line, text, label)

    def finish(self, columns: Columns) -> None:
        """Judge the labels as a whole."""
        if len(self.labels) == 1:
            self._problems.stop(
                1,
                "one_label",
                f"every row has the label {shown(next(iter(self.labels)))}",
                f"at least two different labels in column {shown(columns.label)}",
                field=columns.label,
            )
        elif self.rows >= UNIQUE_FROM_ROWS and len(self.labels) * 10 > self.rows * 9:
            self._problems.stop(
                1,
                "labels_hardly_repeat",
                f"{self.rows} rows have {len(self.labels)} different labels"
                f"{_numeric_hint(self.labels)}; is {shown(columns.label)} the right column?",
                "a column of classes, each of which stands in several rows",
                field=columns.label,
            )

    def _text_is_wrong(self, line: int, text: str, column: str) -> bool:
        if text and len(text) <= MAX_FIELD_CHARS:
            return False
        if text:
            too_long_field(self._problems, line, column, len(text))
        else:
            self._problems.add(line, "empty_text", "the text is empty", "some text", field=column)
        return True

    def _label_is_wrong(self, line: int, label: str, column: str) -> bool:
        if label in self.labels:
            return False
        if not label:
            code, message = "empty_label", "the label is empty"
        elif len(label) > MAX_LABEL_CHARS:
            code, message = "label_too_long", f"the label has {len(label):,} characters"
        elif "\n" in label or "\r" in label:
            code, message = "label_line_break", "the label goes over more than one line"
        else:
            return False
        expected = f"the name of a class, on one line, of at most {MAX_LABEL_CHARS} characters"
        self._problems.add(line, code, message, expected, field=column)
        return True

    def _new_label(self, line: int, label: str, column: str) -> None:
        self.labels[label] = 1
        self._label_bytes += len(json.dumps(label, ensure_ascii=False).encode()) + 1
        if len(self.labels) > MAX_LABELS:
            self._problems.stop(
                line,
                "too_many_labels",
                f"more than {MAX_LABELS:,} different labels in {self.rows + 1:,} rows"
                f"{_numeric_hint(self.labels)}; is {shown(column)} the right column?",
                f"at most {MAX_LABELS:,} classes, each of which stands in several rows",
                field=column,
            )
        elif self._label_bytes > MAX_LABEL_BYTES:
            self._problems.stop(
                line,
                "labels_too_large",
                f"the names of the {len(self.labels)} labels so far take more than"
                f" {MAX_LABEL_BYTES:,} bytes together; is {shown(column)} the right column?",
                "shorter names of classes",
                field=column,
            )


def _numeric_hint(labels: dict[str, int]) -> str:
    def is_number(label: str) -> bool:
        return label.replace(".", "", 1).removeprefix("-").isdecimal()

    return ", and they are numbers" if all(map(is_number, labels)) else ""
