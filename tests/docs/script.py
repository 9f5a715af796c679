"""Writes a page as one shell script: what a reader would type, and a look at what comes of it."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.docs.blocks import ROOT, Block

READY_S = 300
END_S = 60
# `shown` is where the output of the block goes that is looked at: it is wanted when the block fails.
PRELUDE = f"""
ready() {{ # LOG TEXT PROCESS
  for _ in $(seq {READY_S}); do
    if grep -qF -- "$2" "$1" 2>/dev/null; then return 0; fi
    if ! kill -0 "$3" 2>/dev/null; then break; fi
    sleep 1
  done
  if grep -qF -- "$2" "$1" 2>/dev/null; then return 0; fi
  cat "$1" || true
  echo "it never said: $2"
  return 1
}}
interrupt() {{ # FOLDER COMMAND
  group=$(awk -F'\\t' -v said="$2" '$2 == said {{ found = $1 }} END {{ print found }}' "$1/running")
  if [ -z "$group" ] || [ -e "$1/ended-$group" ]; then echo "$2 is not running"; return 1; fi
  kill -INT -- "-$group"
  for _ in $(seq {END_S}); do
    if [ -e "$1/ended-$group" ]; then break; fi
    sleep 1
  done
  status=$(cat "$1/ended-$group" || true)
  if [ "$status" = 0 ]; then return 0; fi
  # make passes Ctrl-C on and then dies of it, however well its command has ended
  if [ "$status" = -2 ] && [ "${{2%% *}}" = make ]; then return 0; fi
  echo "$2 did not end well: $status"
  return 1
}}
shows() {{ # LOG TEXT
  if ! grep -qF -- "$2" "$1"; then echo "it does not show: $2"; return 1; fi
}}
shown=
trap 'if [ -n "$shown" ]; then cat "$shown"; fi' EXIT
"""


def script(found: Sequence[Block], clone: Path, folder: Path) -> str:
    """The script of a page's blocks; ``folder`` is where it keeps what it needs to remember."""
    activate = clone / ".venv" / "bin" / "activate"  # which the tutorial has the reader do once
    parts = [PRELUDE, f"if [ -f {activate} ]; then . {activate}; fi\n"]
    return "".join(parts + [_commands(block, folder) for block in found if not block.skipped])


def _commands(block: Block, folder: Path) -> str:
    quoted = shlex.quote
    said = f"echo {quoted(f'--- {block.place}')}\n"
    text = block.text
    if block.language == "python":
        text = f"python - <<'PYTHON'\n{block.text}PYTHON\n"
    if not block.typed:
        text = f"PYTHONPATH={ROOT} {text}"
    if block.interrupts:
        return f"{said}interrupt {folder} {quoted(block.interrupts)}\n"
    log = quoted(str(folder / f"{block.page.stem}-{block.line}.log"))
    if block.until:
        terminal = f"{sys.executable} {ROOT / 'tests' / 'docs' / 'terminal.py'}"
        return (
            f"{said}{terminal} {folder} {quoted(block.last_line)} {log} {quoted(text)} &\nterminal=$!\n"
            + "".join(
                f"ready {log} {quoted(each)} $terminal\n" for each in (block.until, *block.shows)
            )
        )
    if block.fails:
        failed = "echo 'this was meant to fail'; exit 1"
        text = f"set +e\n( set -e\n{text})\nif [ $? = 0 ]; then {failed}; fi\nset -e\n"
    if block.shows:
        looks = "".join(f"shows {log} {quoted(each)}\n" for each in block.shows)
        return f"{said}shown={log}\n{{\n{text}}} > {log} 2>&1\ncat {log}\nshown=\n{looks}"
    return f"{said}{text}"
