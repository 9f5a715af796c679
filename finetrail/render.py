"""How results look: tables and JSON, with colour on a terminal and plain lines anywhere else."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TextIO

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

GAP = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings; without headings the first column names the second."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    title: str = ""
    empty: str = ""  # said in place of a table without rows
    note: str = ""  # said below it


def facts(pairs: Sequence[tuple[str, str]], title: str = "") -> Table:
    """A table of names and values; a name without a value is left out."""
    return Table((), [(name, value) for name, value in pairs if value], title)


def write_table(table: Table, file: TextIO | None = None) -> None:
    """Write it for a person, or one row a line where a program may be reading."""
    stream = file or sys.stdout
    if not table.rows and table.empty:
        stream.write(table.empty + "\n")
    elif stream.isatty():
        _write_rich(table, stream)
    else:
        stream.writelines(line + "\n" for line in plain_lines(table))
    if table.note:
        stream.write(table.note + "\n")


def plain_lines(table: Table) -> list[str]:
    """Columns padded with blanks; never cut off, no control characters."""
    cleaned = [tuple(clean(cell) for cell in row) for row in table.rows]
    shown = [table.headings, *cleaned] if table.headings else cleaned
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
    return [table.title, *lines] if table.title else lines


def _write_rich(table: Table, stream: TextIO) -> None:
    rich = RichTable(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
        show_header=bool(table.headings),
        title=table.title or None,
        title_justify="left",
        title_style="bold",
    )
    columns = table.headings or ("", "")
    for at, heading in enumerate(columns):
        naming = not table.headings and at == 0
        rich.add_column(heading, style="dim" if naming else "", overflow="fold")
    for row in table.rows:
        rich.add_row(*(Text(clean(cell)) for cell in row))
    Console(file=stream, highlight=False).print(rich)


def write_marked(parts: Sequence[tuple[str, bool]], file: TextIO | None = None) -> None:
    """Write a text of which some parts stand out: by colour on a terminal, in brackets elsewhere."""
    stream = file or sys.stdout
    shown = [(_clean_lines(text), marked) for text, marked in parts]
    if stream.isatty():
        text = Text.assemble(*((part, "bold green" if marked else "dim") for part, marked in shown))
        Console(file=stream, highlight=False).print(text)
    else:
        stream.write("".join(f"⟦{part}⟧" if marked else part for part, marked in shown) + "\n")


def _clean_lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))


def write_json(value: object, file: TextIO | None = None) -> None:
    """One JSON value on one line."""
    stream = file or sys.stdout
    stream.write(json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")) + "\n")
    stream.flush()


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def clean(text: str) -> str:
    """Text from elsewhere, made safe to print: a log line must not steer the terminal."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def size(count: int) -> str:
    amount, unit = float(count), "B"
    for bigger in ("KB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, bigger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def seconds(span: float | None) -> str:
    if span is None:
        return ""
    if span < 60:
        return f"{span:.1f} s"
    minutes, rest = divmod(round(span), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def points(delta: float | None) -> str:
    """A difference of two shares, in percentage points."""
    return "" if delta is None else f"{100 * delta:+.1f}"


def change(delta: float | None, digits: int = 3) -> str:
    return "" if delta is None else f"{delta:+.{digits}f}"


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def moment(time: datetime | None) -> str:
    """Local time of day and date, as in `2026-11-20 18:04:05`."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""
