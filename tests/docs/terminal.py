"""A terminal of its own for a block that goes on running: `terminal.py FOLDER COMMAND LOG SCRIPT`.

FOLDER/running gets a line with the process group and COMMAND. When the block ends, its exit status
is in FOLDER/ended-GROUP: the shell that started it may be gone by then.
"""

import signal
import subprocess
import sys
from pathlib import Path


def main(folder: Path, command: str, log: Path, script: str) -> None:
    # A shell starts what is in its background with SIGINT ignored, and so would be its children.
    signal.signal(signal.SIGINT, lambda *_: None)
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with (folder / "running").open("a") as running:
        running.write(f"{shell.pid}\t{command}\n")
    status = shell.wait()
    (folder / f"ended-{shell.pid}").write_text(f"{status}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
