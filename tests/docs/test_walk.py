"""The walk through the documentation fails where a page does not say what is so."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks, pages
from tests.docs.script import script


def page(text: str, folder: Path) -> list[Block]:
    file = folder / "page.md"
    file.write_text(text)
    # A page lies in the repository; this one's place is told in relation to it.
    return [replace(each, page=ROOT / "page.md") for each in blocks(file)]


def walked(text: str, folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script(page(text, folder), folder, folder)],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nno-such-command\n```\n",
        "```sh\nfalse\ntrue\n```\n",
        "```sh\nfalse | true\n```\n",
        "```python\nraise SystemExit(3)\n```\n",
        '<!-- walk: shows "two" -->\n```sh\necho one\n```\n',
        "<!-- walk: fails -->\n```sh\ntrue\n```\n",
        '<!-- walk: background until "ready" -->\n```sh\necho something else\n```\n',
        '<!-- walk: interrupt "sleep 1" -->\n',
        "<!-- walk: set the stage, false -->\n",
    ],
)
def test_a_page_that_does_not_work_fails(text: str, tmp_path: Path) -> None:
    status, _ = walked(text, tmp_path)

    assert status != 0


def test_a_page_that_works_passes_and_what_one_block_sets_the_next_one_has(tmp_path: Path) -> None:
    text = """
<!-- walk: shows "two"; shows "one" -->
```sh
name=one
echo two $name
```
<!-- walk: with "$name" for "NAME"; shows "it is one" -->
```sh
echo it is NAME
```
<!-- walk: fails -->
```sh
false
true
```
<!-- walk: skip, because there is no such program -->
```sh
no-such-program
```
<!-- walk: set the stage, touch stage -->
```sh
test -e stage
```
"""
    status, said = walked(text, tmp_path)

    assert status == 0, said


def test_what_a_failing_block_has_said_is_seen(tmp_path: Path) -> None:
    text = '<!-- walk: shows "never" -->\n```sh\necho the reason\nfalse\n```\n'

    assert "the reason" in walked(text, tmp_path)[1]


WAITING = (
    "trap 'echo interrupted > ended; exit 0' INT; echo started; while :; do read -rt 0.1 || :; done"
)
STUBBORN = "trap 'exit 3' INT; echo started; while :; do read -rt 0.1 || :; done"


@pytest.mark.parametrize(("command", "status"), [(WAITING, 0), (STUBBORN, 1)])
def test_what_runs_in_a_terminal_of_its_own_has_to_end_well_at_ctrl_c(
    command: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "pipe.sh").write_text(f"exec < <(sleep 100)\n{command}\n")
    text = """
<!-- walk: background until "started" -->
```sh
# In the first terminal:
exec bash pipe.sh
```
<!-- walk: interrupt "exec bash pipe.sh" -->
"""
    code, said = walked(text, tmp_path)

    assert code == status, said
    assert (tmp_path / "ended").exists() == (status == 0)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- walk: skips -->\n```sh\ntrue\n```\n",
        '<!-- walk: fails; show "this" -->\n```sh\ntrue\n```\n',
        "<!-- walk: fails -->\n\n```sh\nfalse\n```\n",
        '<!-- walk: with "this" for "that" -->\n```sh\ntrue\n```\n',
        "<!-- walk: interrupt finetrail up -->\n",
    ],
)
def test_a_comment_that_the_walk_would_not_heed_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"page\.md"):
        page(text, tmp_path)


def test_commands_are_counted_as_a_reader_types_them(tmp_path: Path) -> None:
    text = """
```sh
# not one
one \\
  goes on
two <<'END'
three
END

four && five
```
```python
print(1)
print(2)
```
<!-- walk: set the stage, true -->
"""
    assert [block.commands for block in page(text, tmp_path)] == [3, 1, 0]


def test_every_page_with_commands_is_walked() -> None:
    every = {ROOT / "README.md", *(ROOT / "docs").rglob("*.md")}

    assert {each for each in every if any(blocks(each))} == set(pages())


def test_a_skipped_block_says_what_is_missing_for_it() -> None:
    for each in pages():
        for block in blocks(each):
            assert not block.skipped or block.skipped.startswith("it needs "), (
                f"{block.place}: {shlex.quote(block.skipped)}"
            )
