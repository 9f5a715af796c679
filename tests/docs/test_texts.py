"""What the documentation quotes is what the code says: error texts, settings and their defaults."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from finetrail.client import Client
from finetrail.settings import Settings
from tests.docs.blocks import ROOT

PACKAGES = ("domain", "handlers", "projections", "gateway", "gpu_agent", "adapters", "finetrail")
GAP = "…"


@functools.cache
def said() -> frozenset[str]:
    """Every text in the code, with a gap for each value that is put in."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = (_constant(part) for part in node.values)
                    found.add("".join(parts))
    return frozenset(found)


def _constant(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else GAP


def quoted() -> Iterator[tuple[str, str]]:
    """Page and text of each quotation: a code span in a first column that is headed so."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        quotes = False
        for line in page.read_text(encoding="utf-8").splitlines():
            if not line.startswith("|"):
                quotes = False
            elif line.startswith("| what it says |"):
                quotes = True
            elif quotes:
                first = line.split("|")[1]
                yield from ((page.name, text) for text in re.findall(r"`([^`]+)`", first))


@pytest.mark.parametrize(("page", "text"), list(quoted()), ids=lambda value: str(value)[:60])
def test_an_error_that_the_documentation_quotes_is_one_that_the_code_says(
    page: str, text: str
) -> None:
    wanted = re.compile(".*".join(map(re.escape, text.split(GAP))), re.DOTALL)

    assert any(wanted.search(each) for each in said()), f"{page}: nothing says {text!r}"


def test_errors_are_quoted_at_all() -> None:
    assert len(list(quoted())) > 20


def settings(section: type[BaseModel], prefix: str = "FINETRAIL_") -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        inner = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if inner:
            yield from settings(inner[0], f"{prefix}{name.upper()}__")
        else:
            yield prefix + name.upper(), field.default


@pytest.mark.parametrize(("name", "default"), list(settings(Settings)), ids=str)
def test_the_reference_has_every_setting_with_its_default(name: str, default: object) -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")

    assert f"`{name}`" in page
    if row := re.search(rf"^\| `{name}` \| (.+?) \|", page, re.MULTILINE):
        none = default in (None, "", PydanticUndefined)
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert row[1] == ("–" if none else f"`{shown}`")


def test_the_reference_has_no_setting_that_there_is_not() -> None:
    page = Path(ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    named = set(re.findall(r"FINETRAIL_\w+[A-Z]", page))

    other = {"FINETRAIL_CONFIG", "FINETRAIL_URL", "FINETRAIL_API_KEY"}
    assert named - other == {name for name, _ in settings(Settings)}


def test_the_reference_has_every_call_of_the_python_client() -> None:
    page = (ROOT / "docs" / "reference" / "python-client.md").read_text(encoding="utf-8")
    calls = {name for name in dir(Client) if not name.startswith("_")} - {"close", "url"}

    assert {call for call in calls if f"`{call}(" not in page} == set()
    assert len(calls) > 30
