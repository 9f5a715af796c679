"""Markdown in which nothing that a user named can become markup."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def code(value: object) -> str:
    """As code, on one line, and without what would end the cell or the code."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return "`" + text.replace("`", "ʼ").replace("|", "¦") + "`"
