"""The reference names every command and every exit code."""

from pathlib import Path

import pytest
from typer.main import get_command

from finetrail.cli import app
from finetrail.cli.exits import Exit

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def _commands() -> list[str]:
    names = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        names += [f"{name} {each}" for each in inner] if inner else [name]
    return names


@pytest.mark.parametrize("command", _commands())
def test_the_reference_has_a_heading_for_every_command(command: str) -> None:
    headings = [line for line in REFERENCE.read_text().splitlines() if line.startswith("### ")]

    assert any(
        line == f"### `finetrail {command}`" or line.startswith(f"### `finetrail {command} ")
        for line in headings
    )


@pytest.mark.parametrize("code", list(Exit))
def test_the_reference_names_every_exit_code(code: Exit) -> None:
    assert f"\n| {int(code)} | " in REFERENCE.read_text()
