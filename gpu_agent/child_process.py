"""A child process in a session of its own: lines in, lines out, and an end that leaves nobody behind."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import gpu_agent

LONGEST_FACT: Final = 16 * 1024 * 1024  # bytes; an evaluation's 20 examples may hold long texts
LONGEST_NOISE: Final = 16 * 1024  # bytes of one line that some library prints
BLOCK: Final = 64 * 1024  # a pipe's buffer
DRAIN_S: Final = 5.0  # what a killed process has left in its pipes is read in milliseconds

# Where this package was imported from: there `-m gpu_agent.child` is found, whatever folder the
# agent was started in, and nothing that lies in that folder can take its place.
CODE: Final = Path(gpu_agent.__file__).parent.parent


class ChildProcess:
    """Started by `start`; used as a context manager, it is gone at the end with all it started."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._over = False

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Raises `OSError` where the program cannot be started."""
        return cls(
            await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=CODE,
                env=environment,
                start_new_session=True,  # Ctrl-C is the agent's to handle, and a group can be killed
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *why: object) -> None:
        self.kill()
        with suppress(TimeoutError):  # a grandchild in a session of its own may hold the pipes
            async with asyncio.timeout(DRAIN_S):
                await self._process.communicate()  # asyncio sees the end of a drained process only

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def tell(self, line: bytes) -> None:
        """Write one line to its standard input; a child that is gone hears nothing."""
        assert self._process.stdin is not None  # noqa: S101 - it was started with a pipe
        with suppress(ConnectionError):
            self._process.stdin.write(line + b"\n")

    def lines(self) -> AsyncIterator[bytes]:
        """Lines of its standard output, until the end."""
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        return _lines(self._process.stdout, LONGEST_FACT)

    def errors(self) -> AsyncIterator[bytes]:
        """Lines of its standard error, long ones cut, until the end."""
        assert self._process.stderr is not None  # noqa: S101 - it was started with a pipe
        return _lines(self._process.stderr, LONGEST_NOISE)

    def kill(self) -> None:
        """End the process and its group; once it is reaped this is done, for its id may go to others."""
        if self._over:
            return
        self._over = not self.running
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self, within_s: float) -> int:
        """Wait for the end, and after a while bring it about.

        Returns the exit status, or the negative number of the signal that ended it. Its output must
        be read to the end meanwhile.
        """
        for patience_s in (within_s, DRAIN_S):
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    status = await self._process.wait()
                    self.kill()  # what it has left in its group
                    return status
            self.kill()
        return -signal.SIGKILL


async def _lines(stream: asyncio.StreamReader, longest: int) -> AsyncIterator[bytes]:
    """Unlike the stream's own lines, one that is too long is cut and not an error."""
    line = bytearray()
    while block := await stream.read(BLOCK):
        *whole, rest = block.split(b"\n")
        for part in whole:
            line += part[: longest - len(line)]
            yield bytes(line)
            line.clear()
        line += rest[: longest - len(line)]
    if line:
        yield bytes(line)


def how_it_ended(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was killed by signal 9 (out of memory?)"
    if status < 0:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    return f"ended with exit status {status} and without a result"
