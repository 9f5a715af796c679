"""Finds the commands in a page: fenced blocks of `sh` and `python`, and what the walk is told about them.

A comment on the line before a block speaks to the walk alone; readers do not see it. It may say, with
`; ` between them:

    skip, because REASON          is not run
    background until "TEXT"       goes on running in a terminal of its own; TEXT says that it is ready
    shows "TEXT"                  prints TEXT, which stands on one line
    with "THIS" for "THAT"        THIS is run where the reader types something of their own
    fails                         is meant to end with an error

Two comments stand alone:

    interrupt "COMMAND"           Ctrl-C where the block runs whose last line is COMMAND; it ends with 0
    set the stage, COMMAND        what has to have happened before the page makes sense
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(
    r"(?:<!-- walk: (?P<alone>(?:interrupt|set the stage)[^\n]*?) -->\n)"
    r"|(?:<!-- walk: (?P<told>[^\n]*?) -->\n)?```(?P<language>sh|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SKIP = re.compile(r"skip, because (.+)")
BACKGROUND = re.compile(r'background until "(.+)"')
SHOWS = re.compile(r'shows "(.+)"')
WITH = re.compile(r'with "(.+)" for "(.+)"')
INTERRUPT = re.compile(r'interrupt "(.+)"')
STAGE = re.compile(r"set the stage, (.+)")
HEREDOC = re.compile(r"<<'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int  # of its first command
    language: Literal["sh", "python"]
    text: str  # as it is run
    skipped: str = ""  # the reason
    until: str = ""  # what a block that goes on running says when it is ready
    shows: tuple[str, ...] = ()
    fails: bool = False
    interrupts: str = ""  # the last line of the block that Ctrl-C ends; there is no text then
    typed: bool = True  # by the reader; the stage is set without them

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def last_line(self) -> str:
        return self.text.rstrip().splitlines()[-1].partition("  #")[0].strip()

    @property
    def commands(self) -> int:
        """How many commands a reader types; a program is one."""
        if self.language == "python" or not self.typed:
            return int(self.typed)
        lines = HEREDOC.sub("", self.text).replace("\\\n", " ").splitlines()
        return sum(bool(line.strip()) and not line.startswith("#") for line in lines)


def pages() -> tuple[Path, ...]:
    """The README and every page with commands in its list of what to read on, in that order."""
    read_on = README.read_text(encoding="utf-8").partition("## Read on")[2]
    links = re.findall(r"\]\((docs/[^)#]+\.md)[)#]", read_on)
    linked = (ROOT / link for link in dict.fromkeys(links))
    return (README, *(page for page in linked if any(blocks(page))))


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order.

    Raises:
        ValueError: The walk is told something that it does not know, or where it does not look.
    """
    content = page.read_text(encoding="utf-8")
    heard = 0
    for found in BLOCK.finditer(content):
        line = content.count("\n", 0, found.start("text")) + 1
        heard += bool(found["alone"] or found["told"])
        if found["alone"]:
            yield _alone(page, content.count("\n", 0, found.start()) + 1, found["alone"])
        else:
            language: Literal["sh", "python"] = "sh" if found["language"] == "sh" else "python"
            yield _told(page, line, language, found["text"], found["told"] or "")
    if heard != content.count("<!-- walk:"):
        raise ValueError(f"{page.name}: a comment to the walk does not stand before a block")


def _alone(page: Path, line: int, told: str) -> Block:
    if stage := STAGE.fullmatch(told):
        return Block(page, line, "sh", f"{stage[1]}\n", typed=False)
    if interrupt := INTERRUPT.fullmatch(told):
        return Block(page, line, "sh", "", interrupts=interrupt[1], typed=False)
    raise ValueError(f"{page.name}:{line}: the walk does not know {told!r}")


def _told(page: Path, line: int, language: Literal["sh", "python"], text: str, told: str) -> Block:
    skipped, until, fails = "", "", False
    shows: tuple[str, ...] = ()
    for each in told.split("; ") if told else ():
        if found := SKIP.fullmatch(each):
            skipped = found[1]
        elif found := BACKGROUND.fullmatch(each):
            until = found[1]
        elif found := SHOWS.fullmatch(each):
            shows += (found[1],)
        elif found := WITH.fullmatch(each):
            if found[2] not in text:
                raise ValueError(f"{page.name}:{line}: there is no {found[2]!r} to replace")
            text = text.replace(found[2], found[1])
        elif each == "fails":
            fails = True
        else:
            raise ValueError(f"{page.name}:{line}: the walk does not know {each!r}")
    return Block(page, line, language, text, skipped, until, shows, fails)
