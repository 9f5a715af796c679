"""Walks through the documentation on a clean clone, and runs every command in it.

    python -m tests.docs.walk [PAGE.md ...]

The README comes first, then every page in its order: the tutorial, which starts a stack that the
others go on with, the how-tos, the reference. Every page is one shell, as a reader's terminal would
be. The gateway's port must be free. WALK_VENV names an environment to use in place of a set-up.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.docs.blocks import ROOT, Block, blocks, pages
from tests.docs.script import END_S, script

PORT = 8420  # the gateway's default, which the pages name
KEPT = ("PATH", "LANG", "TORCH_INDEX", "TMPDIR", "SSL_CERT_FILE")


def main() -> int:
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, _stop)
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or list(pages())
    found = {page: list(blocks(page)) for page in chosen}  # a mistake in a comment shows at once
    if not _free(PORT):
        print(f"port {PORT} is in use: stop what listens there, and walk again")
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="finetrail-docs-") as folder:
        clone = _clone(Path(folder))
        try:
            failed = [page for page in chosen if not _walk(page, found[page], clone, Path(folder))]
        finally:
            _end(Path(folder))
    for page in failed:
        print(f"FAILED {page.relative_to(ROOT)}")
    print(_summary(found, failed, time.monotonic() - began))
    return 1 if failed else 0


def _stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _clone(folder: Path) -> Path:
    clone = folder / "finetrail"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    if reused := os.environ.get("WALK_VENV"):
        (clone / ".venv").symlink_to(reused)
        # Older than the environment, or make would install the clone into it.
        for name in ("pyproject.toml", "constraints.txt"):
            os.utime(clone / name, (0, 0))
    return clone


def _walk(page: Path, found: list[Block], clone: Path, folder: Path) -> bool:
    for block in found:
        if block.skipped:
            print(f"skipped  {block.place}: {block.skipped}", flush=True)
    began = time.monotonic()
    # A session of its own: were the walk ended, what the page runs has to end as well.
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script(found, clone, folder)],
        cwd=clone,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = shell.wait()
    except BaseException:
        os.killpg(shell.pid, signal.SIGINT)
        shell.wait()
        raise
    word = "walked " if status == 0 else "FAILED "
    count = sum(block.commands for block in found if not block.skipped)
    print(f"{word}  {page.name}: {count} commands in {time.monotonic() - began:.0f} s", flush=True)
    return status == 0


def _environment(home: Path) -> dict[str, str]:
    """A new account on this machine, but with where this one's pip finds packages."""
    kept = {name: text for name, text in os.environ.items() if name in KEPT or name[:4] == "PIP_"}
    configured = Path.home() / ".config" / "pip" / "pip.conf"
    if configured.exists():
        kept.setdefault("PIP_CONFIG_FILE", str(configured))
    return kept | {"HOME": str(home), "NO_COLOR": "1"}


def _summary(found: dict[Path, list[Block]], failed: list[Path], seconds: float) -> str:
    every = [block for page in found for block in found[page]]
    run = sum(block.commands for block in every if not block.skipped)
    reasons = Counter[str]()
    for block in every:
        if block.skipped:
            reasons[block.skipped] += block.commands
    skipped = "; ".join(f"{count} because {reason}" for reason, count in reasons.items())
    return (
        f"{len(found) - len(failed)} of {len(found)} pages walked in {seconds / 60:.1f} minutes: "
        f"{run} commands run, {reasons.total()} skipped{f' ({skipped})' if skipped else ''}"
    )


def _end(folder: Path) -> None:
    """Stop what still runs in the terminals as Ctrl-C would, the latest first."""
    running = folder / "running"
    for line in reversed(running.read_text().splitlines() if running.exists() else []):
        group = int(line.partition("\t")[0])
        ended = folder / f"ended-{group}"
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if ended.exists():
                break
            with suppress(ProcessLookupError):
                os.killpg(group, sent)
            deadline = time.monotonic() + END_S
            while time.monotonic() < deadline and not ended.exists():
                time.sleep(0.1)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


if __name__ == "__main__":
    sys.exit(main())
