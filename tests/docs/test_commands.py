"""Every command that the documentation names exists, with the options that it is given."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from finetrail.cli import app
from tests.docs.blocks import ROOT, blocks, pages

LINKS = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = re.compile(r"&&|\|\|?|;|<|>|\$\(|\)|\n")


def command_lines() -> list[tuple[str, list[str]]]:
    found = []
    for page in pages():
        for block in blocks(page):
            text = block.text.replace("\\\n", " ")
            lines = [part.strip() for part in SHELL.split(text)] if block.language == "sh" else []
            found += [
                (block.place, shlex.split(line, comments=True))
                for line in lines
                if line.startswith("finetrail ")
            ]
    return found


@pytest.mark.parametrize(("place", "words"), command_lines(), ids=lambda value: str(value)[:80])
def test_a_command_in_the_documentation_exists_with_its_options(
    place: str, words: list[str]
) -> None:
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    known |= {"--help"}

    alone = getattr(command, "invoke_without_command", False)
    assert alone or not getattr(command, "commands", {}), f"{place}: {words} names a group only"
    given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
    assert given <= known, f"{place}: {command.name} knows no {given - known}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_shell_as_they_stand(page: Path) -> None:
    for block in blocks(page):
        if block.language == "sh" and not block.skipped:
            checked = subprocess.run(
                ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
            )
            assert checked.stderr == "", block.place
            assert "…" not in block.text, f"{block.place}: nobody can type …"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in LINKS.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        place = (page.parent / target).resolve()
        assert place.exists(), f"{page.name} links to {target}"
        if anchor and place.suffix == ".md":
            assert anchor in _anchors(place), f"{page.name} links to {target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
