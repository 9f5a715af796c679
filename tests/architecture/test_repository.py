"""House rules that no linter knows."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("domain", "handlers", "projections", "gateway", "gpu_agent", "adapters", "finetrail")


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node


def test_every_module_opens_with_a_line_that_says_what_it_is_for() -> None:
    silent = [str(p) for p in sources() if not ast.get_docstring(ast.parse(p.read_text()))]

    assert silent == []


def test_nothing_reads_or_writes_pickles() -> None:
    banned = {"pickle", "joblib", "dill", "shelve", "marshal"}
    found = [
        f"{path}: {name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(a.name for a in node.names)]
        if name.split(".")[0] in banned
    ]
    loads = [
        f"{path}:{call.lineno}"
        for path in sources()
        for call in calls(path)
        if ast.unparse(call.func) in {"torch.load", "torch.save"}
    ]

    assert found + loads == []


def test_no_shell_is_ever_started_and_no_foreign_code_trusted() -> None:
    found = []
    for path in sources():
        for call in calls(path):
            if ast.unparse(call.func) in {"os.system", "os.popen", "eval", "exec"}:
                found.append(f"{path}:{call.lineno}")
            for keyword in call.keywords:
                value = keyword.value
                on = isinstance(value, ast.Constant) and value.value is True
                if keyword.arg in {"shell", "trust_remote_code"} and on:
                    found.append(f"{path}:{call.lineno}")

    assert found == []


def test_every_refusal_is_explained_to_the_people_who_meet_it() -> None:
    explained = (ROOT / "docs/reference/problems.md").read_text()
    codes = {
        match
        for path in sources()
        if path.parts[len(ROOT.parts)] in {"domain", "handlers"}
        for match in re.findall(
            r'^    code(?:: ClassVar\[str\])? = "(\w+)"', path.read_text(), re.MULTILINE
        )
    }

    assert {code for code in codes if f"`{code}`" not in explained} == set()
    assert len(codes) > 8


def test_every_failure_of_a_job_is_explained_to_the_people_who_meet_it() -> None:
    explained = (ROOT / "docs/reference/job-failures.md").read_text()
    not_of_jobs = {"work_failed", "bad_request", "context_too_long"}  # never said; of a request
    codes = {
        match
        for path in sources()
        if path.parts[len(ROOT.parts)] == "gpu_agent"
        for match in re.findall(r'^    code = "(\w+)"', path.read_text(), re.MULTILINE)
    }

    assert {code for code in codes - not_of_jobs if f"`{code}`" not in explained} == set()
    assert len(codes) > 6


def test_decisions_are_listed_and_numbered_without_gaps() -> None:
    folder = ROOT / "docs/adr"
    records = sorted(p.name for p in folder.glob("0*.md"))
    index = (folder / "README.md").read_text()

    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    assert [name for name in records if f"]({name})" not in index] == []
    for name in records:
        text = (folder / name).read_text()
        assert "## Context" in text, name
        assert "## Decision" in text, name
        assert "## Consequences" in text, name
        assert "## Rejected" in text, name


def test_every_relative_link_in_the_documentation_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert dead == []


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("finetrail.gateway", "torch"),
        ("finetrail.handlers", "torch"),
        ("finetrail.projections", "torch"),
        ("finetrail.handlers", "sqlalchemy"),
        ("finetrail.agent", "sqlalchemy"),
        ("finetrail.agent", "litestar"),
        ("finetrail.agent", "torch"),
        ("finetrail.cli", "torch"),
        ("finetrail.client", "litestar"),
    ],
)
def test_a_process_starts_without_what_it_does_not_need(module: str, absent: str) -> None:
    program = f"import sys; sys.modules[{absent!r}] = None; import {module}"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-1500:]
