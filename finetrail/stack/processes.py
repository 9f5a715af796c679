"""One child process that is started, watched, started again when it dies, and ended for good."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetrail.stack.errors import StackError
from finetrail.stack.postgres_programs import Account

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
HEALTHY_S = 30.0  # one that lived this long and dies is a new accident, not the old one
POLL_S = 0.02  # NATS is ready after some 0.1 s
MAX_LOG_BYTES = 10 * 1024 * 1024
LOOK_AT_LOG_S = 10.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run. ``environment`` is all that the child gets; secrets never stand in a command."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    folder: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s: float = 15.0
    account: Account | None = None
    inherited: tuple[int, ...] = field(default=())  # file descriptors


class SupervisedProcess:
    """Keeps one process alive from `start` to `stop`, in a session of its own.

    A session of its own keeps a terminal's Ctrl-C away from it (the supervisor ends its children
    in order) and lets it outlive a supervisor that is killed.
    """

    def __init__(self, spec: ProcessSpec, report: Report, spawned: Callable[[], None]) -> None:
        self.spec = spec
        self._report = report
        self._spawned = spawned
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._since = 0.0

    @property
    def pid(self) -> int | None:
        """Pid of the process that runs now."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def start(self, ready: Callable[[], Awaitable[bool]], within_s: float) -> None:
        """Start it and wait until it is ready; from then on it is kept alive.

        Raises:
            StackError: It ended, or was not ready in time. The last lines of its log say why.
        """
        self._rotate()
        process = await self._spawn()
        deadline = time.monotonic() + within_s
        while process.returncode is None and not await ready():
            if time.monotonic() > deadline:
                await self.stop()
                raise self._failure(f"was not ready after {within_s:.0f} s")
            await asyncio.sleep(POLL_S)
        if process.returncode is not None:
            raise self._failure(f"ended at once ({describe(process.returncode)})")
        self._watch = asyncio.create_task(self._keep_alive(process), name=self.spec.name)

    async def stop(self) -> None:
        """End it: its stop signal, a bounded wait, then SIGKILL to its whole process group."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        watched = self._watch or process.wait()
        ended = asyncio.ensure_future(watched)
        if process.returncode is None:
            process.send_signal(self.spec.stop_signal)
        done, _ = await asyncio.wait({ended}, timeout=self.spec.stop_s)
        if not done:
            self._report(f"{self.spec.name} did not end in {self.spec.stop_s:.0f} s; killing it")
            self._kill()
            await asyncio.wait({ended})

    def reload(self) -> None:
        """Have it read its configuration again; one that is just being started does so anyway."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    def _kill(self) -> None:
        if self._process and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _keep_alive(self, process: asyncio.subprocess.Process) -> None:
        delay = FIRST_DELAY_S
        while True:
            code = await self._end_of(process)
            if time.monotonic() - self._since > HEALTHY_S:
                delay = FIRST_DELAY_S
            again: asyncio.subprocess.Process | None = None
            while again is None:
                if self._stopping.is_set():
                    return
                self._report(
                    f"{self.spec.name} ended ({describe(code)}); starting it again in {delay:.1f} s, "
                    f"its log is {self.spec.log}"
                )
                if await self._stops_within(delay):
                    return
                delay = min(2 * delay, LONGEST_DELAY_S)
                again = await self._spawn_or_report()
            process = again

    async def _end_of(self, process: asyncio.subprocess.Process) -> int:
        """Wait for it; its log must not fill the disk meanwhile, however long that is."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AT_LOG_S):
                    return await process.wait()
            except TimeoutError:
                await asyncio.to_thread(self._rotate)

    def _rotate(self) -> None:
        try:
            rotate(self.spec.log)
        except OSError as error:
            self._report(f"{self.spec.log} has grown large and cannot be put aside: {error}")

    async def _stops_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _spawn_or_report(self) -> asyncio.subprocess.Process | None:
        try:
            return await self._spawn()
        except (OSError, StackError) as error:  # a full disk or a missing program may be repaired
            self._report(f"{self.spec.name} cannot be started: {error}")
            return None

    async def _spawn(self) -> asyncio.subprocess.Process:
        spec = self.spec
        self._since = time.monotonic()
        with spec.log.open("ab") as log:
            try:
                process = await asyncio.create_subprocess_exec(
                    *spec.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=spec.folder,
                    env=spec.environment,
                    pass_fds=spec.inherited,
                    user=spec.account.uid if spec.account else None,
                    group=spec.account.gid if spec.account else None,
                    extra_groups=[] if spec.account else None,
                )
            except FileNotFoundError as error:
                raise StackError(f"The program {error.filename} is missing.") from error
        self._process = process
        if self._stopping.is_set():  # asked to stop while this was starting
            process.send_signal(spec.stop_signal)
        self._spawned()
        return process

    def _failure(self, what: str) -> StackError:
        return StackError(
            f"{self.spec.name} {what}.", f"Its log {self.spec.log} ends:\n{self._tail()}"
        )

    def _tail(self) -> str:
        with self.spec.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-8:])


def describe(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    return f"killed by {signal.Signals(-code).name}"


def rotate(log: Path) -> None:
    """Keep one earlier log once this one has grown large.

    It is copied and cut, because a process that runs holds it open; it appends, so it goes on at the
    beginning. What it says between the two is lost.
    """
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
