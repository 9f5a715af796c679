"""Finds the commands in a page: fenced blocks of `sh` and `python`, and what the walk is told about them.

A comment on the line before a block speaks to the walk alone; readers do not see it:

    <!-- walk: skip, because REASON -->         is not run
    <!-- walk: background until "TEXT" -->      goes on running; the walk waits for TEXT in its output
    <!-- walk: fails -->                        is meant to end with an error
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "docs" / "tutorial" / "first-model.md",
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
)
BLOCK = re.compile(
    r"^(?:<!-- walk: (?P<told>[^\n]*?) -->\n)?```(?P<language>sh|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SKIP = re.compile(r"skip, because (.+)")
BACKGROUND = re.compile(r'background until "(.+)"')


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int  # of its first command
    language: Literal["sh", "python"]
    text: str
    skipped: str = ""  # the reason
    until: str = ""  # what a block that goes on running says when it is ready
    fails: bool = False

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order.

    Raises:
        ValueError: the walk is told something that it does not know.
    """
    content = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(content):
        told = found["told"] or ""
        skip, background = SKIP.fullmatch(told), BACKGROUND.fullmatch(told)
        if told and not (skip or background or told == "fails"):
            raise ValueError(f"{page.name}: the walk does not know {told!r}")
        yield Block(
            page=page,
            line=content.count("\n", 0, found.start("text")) + 1,
            language="sh" if found["language"] == "sh" else "python",
            text=found["text"],
            skipped=skip[1] if skip else "",
            until=background[1] if background else "",
            fails=told == "fails",
        )
