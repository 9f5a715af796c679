"""Texts and rows of tables, asked of a model a batch at a time."""

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from finetrail.cli.exits import UsageProblem

if TYPE_CHECKING:  # loaded by the command that needs it, so that `--help` is quick
    from finetrail.client import Client, Prediction

BATCH: Final = 32  # texts or rows a request, so that answers come while a long file is read
Value = int | float | str | None
Row = dict[str, Value]
T = TypeVar("T")


def ask_texts(
    client: "Client", name: str, version: int | None, texts: Iterable[str]
) -> Iterator[list[tuple[str, "Prediction"]]]:
    """Each text with its prediction, a batch at a time."""
    for batch in _batches(texts):
        yield list(zip(batch, client.predict(name, batch, version=version), strict=True))


def ask_rows(
    client: "Client", name: str, version: int | None, rows: Iterable[Row]
) -> Iterator[list[tuple[str, "Prediction"]]]:
    """Each row, as it reads, with its prediction, a batch at a time."""
    for batch in _batches(rows):
        shown = [", ".join(f"{name}={value}" for name, value in row.items()) for row in batch]
        yield list(zip(shown, client.predict_rows(name, batch, version=version), strict=True))


def rows_of(lines: Iterable[str], file: Path | None) -> Iterator[Row]:
    """Rows as they were typed, then those of a CSV file with a header.

    Raises:
        UsageProblem: one of them cannot be read.
    """
    for line in lines:
        yield _typed(line)
    if file is not None:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for row in csv.DictReader(opened):
                if None in row or None in row.values():
                    raise UsageProblem(f"{file}: a row has other columns than the header: {row}")
                yield {name.strip(): value_of(text) for name, text in row.items()}


def value_of(text: str) -> Value:
    """A number where the text is spelled as one, nothing where it is empty, else the text."""
    text = text.strip()
    if not text:
        return None
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if text.strip("+-.eE0123456789") == "":
            return number
    return text


def _typed(line: str) -> Row:
    row: Row = {}
    for cell in next(csv.reader([line], skipinitialspace=True), []):
        name, equals, text = cell.partition("=")
        if not equals or not name.strip():
            raise UsageProblem(f"--row takes COLUMN=VALUE,COLUMN=VALUE, not {line!r}")
        row[name.strip()] = value_of(text)
    return row


def _batches(things: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(things)
    while batch := list(islice(waiting, BATCH)):
        yield batch
