"""Who owns a data directory: the lock of a running stack, and what an earlier one left running.

Every child carries `FINETRAIL_STACK=<stack id>:<data directory>` in its environment, and so does
whatever it starts. PostgreSQL's own children overwrite theirs; they are told by their program and
their working directory, the cluster. Both are asked again through a pid file descriptor at the
moment of the signal, so that a pid that has gone to another process is never touched, nor is
anything that merely stands in a copied data directory's list.
"""

import asyncio
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from finetrail.stack.errors import StackError
from finetrail.stack.processes import Report
from finetrail.stack.state import StackPaths, write_private

MARKER = "FINETRAIL_STACK"
PATIENCE_S = 15.0  # an agent writes its training checkpoint, PostgreSQL its buffers
POLL_S = 0.05


@contextmanager
def locked(paths: StackPaths) -> Iterator[None]:
    """Hold the data directory; the kernel lets go when this process dies, however it dies.

    Raises:
        StackError: Another stack runs on it.
    """
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"A stack already runs on {paths.root}: process {file.read().strip() or 'unknown'} "
                "holds it.",
                "Use that one, end it, or choose another FINETRAIL_DATA_DIR.",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_holder(paths: StackPaths) -> int | None:
    """Pid of the supervisor that holds this data directory now."""
    try:
        with paths.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0) or None
    except FileNotFoundError:
        pass
    return None


@dataclass(frozen=True, slots=True)
class StackProcesses:
    """The processes of one stack, found in /proc."""

    marker: str
    cluster: Path

    def running(self) -> list[int]:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return sorted(pid for pid in pids if pid != os.getpid() and self.owns(pid))

    def owns(self, pid: int) -> bool:
        """Whether this pid is a living process of this stack; one that only waits to be reaped is not."""
        process = Path(f"/proc/{pid}")
        try:
            if f"{MARKER}={self.marker}".encode() in (process / "environ").read_bytes().split(
                b"\0"
            ):
                return True
            program, folder = (process / "exe").readlink(), (process / "cwd").readlink()
        except OSError:
            return False
        return program.name == "postgres" and folder == self.cluster

    def send(self, pid: int, sent: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if self.owns(pid):
                    signal.pidfd_send_signal(descriptor, sent)
            finally:
                os.close(descriptor)


async def end_leftovers(
    processes: StackProcesses, recorded: Mapping[str, int], report: Report
) -> None:
    """End what an earlier supervisor left: in order and gently what it recorded, then the rest."""
    for name, pid in reversed(list(recorded.items())):
        if processes.owns(pid):
            report(f"ending {name} (process {pid}), which an earlier stack left running")
            # SIGTERM makes PostgreSQL wait for its clients to go; SIGINT is its fast shutdown.
            processes.send(pid, signal.SIGINT if name == "postgres" else signal.SIGTERM)
            await _gone(processes, pid)
    deadline = time.monotonic() + PATIENCE_S
    while left := processes.running():
        for pid in left:
            processes.send(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise StackError(f"Processes {left} of an earlier stack cannot be killed.")
        await asyncio.sleep(POLL_S)


async def _gone(processes: StackProcesses, pid: int) -> None:
    for _ in range(round(PATIENCE_S / POLL_S)):
        if not processes.owns(pid):
            return
        await asyncio.sleep(POLL_S)


def record(paths: StackPaths, pids: Mapping[str, int]) -> None:
    """Write down who runs, in the order of their start."""
    write_private(paths.processes, json.dumps(dict(pids)))


def recorded(paths: StackPaths) -> dict[str, int]:
    try:
        read: object = json.loads(paths.processes.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(read, dict):
        return {}
    return {str(name): pid for name, pid in read.items() if isinstance(pid, int)}
