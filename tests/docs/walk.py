"""Walks through the tutorial and the how-tos on a clean clone, and runs every command in them.

    python -m tests.docs.walk [PAGE.md ...]

Pages are run in the order of the README: first the tutorial, which sets everything up and starts a
stack that the how-tos go on with. Every page is one shell, as a reader's terminal would be. The
gateway's port must be free.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.docs.blocks import PAGES, ROOT, Block, blocks

PORT = 8420  # the gateway's default, which the pages name
READY_S = 300
KEPT = ("PATH", "LANG", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "TORCH_INDEX", "TMPDIR")


def main() -> int:
    pages = [Path(name).resolve() for name in sys.argv[1:]] or list(PAGES)
    if not _free(PORT):
        print(f"port {PORT} is in use: stop what listens there, and walk again")
        return 2
    with tempfile.TemporaryDirectory(prefix="finetrail-docs-") as folder:
        clone = Path(folder) / "finetrail"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        if reused := os.environ.get("WALK_VENV"):  # saves the set-up while a page is being written
            (clone / ".venv").symlink_to(reused)
        try:
            failed = [page for page in pages if not _walk(page, clone, Path(folder))]
        finally:
            _end(Path(folder) / "running")
    for page in failed:
        print(f"FAILED {page.name}")
    return 1 if failed else 0


def _walk(page: Path, clone: Path, folder: Path) -> bool:
    found = list(blocks(page))
    skipped = [block for block in found if block.skipped]
    for block in skipped:
        print(f"skipped  {block.place}: {block.skipped}")
    script = "\n".join(_commands(block, folder) for block in found if not block.skipped)
    began = time.monotonic()
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _activated(clone) + script],
        cwd=clone,
        env={**environment, "HOME": str(folder), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    word = "walked " if ran.returncode == 0 else "FAILED "
    count = len(found) - len(skipped)
    print(f"{word}  {page.name}: {count} blocks in {time.monotonic() - began:.0f} s", flush=True)
    return ran.returncode == 0


def _activated(clone: Path) -> str:
    """What the tutorial has the reader do once: later pages find the environment active."""
    return f"if [ -f {clone}/.venv/bin/activate ]; then . {clone}/.venv/bin/activate; fi\n"


def _commands(block: Block, folder: Path) -> str:
    said = f"echo {shlex.quote(f'--- {block.place}')}\n"
    text = block.text
    if block.language == "python":
        text = f"python - <<'PYTHON'\n{block.text}PYTHON\n"
    if block.fails:
        return f"{said}if ( {text} ); then echo 'this was meant to fail'; exit 1; fi\n"
    if block.until:
        output = shlex.quote(str(folder / f"{block.page.stem}-{block.line}.log"))
        wanted = shlex.quote(block.until)
        return (
            f"{said}setsid bash -euo pipefail -c {shlex.quote(text)} > {output} 2>&1 &\n"
            f"echo $! >> {shlex.quote(str(folder / 'running'))}\n"
            f"for _ in $(seq {READY_S}); do grep -q {wanted} {output} && break; sleep 1; done\n"
            f"cat {output}; grep -q {wanted} {output}\n"
        )
    return f"{said}{text}"


def _end(running: Path) -> None:
    """Stop what was started in the background as Ctrl-C would, the latest first."""
    if not running.exists():
        return
    for line in reversed(running.read_text().split()):
        group = int(line)
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(group, sent)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and _alive(group):
                time.sleep(0.1)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


if __name__ == "__main__":
    sys.exit(main())
