"""One life of the serving child, as the agent sees it: lines in and out, and an eye on its silence."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from pydantic import ValidationError

from domain.inference import Begun, End, Piece, Refused
from gpu_agent.child_process import ChildProcess, how_it_ended
from gpu_agent.protocol import (
    Predicted,
    ServingInput,
    ServingReady,
    Warmed,
    Working,
    child_environment,
    serving_reply,
)
from gpu_agent.stderr import read_line

START_S: Final = 120.0  # loading torch beside a training that has all cores
SILENT_S: Final = 30.0  # it gives a sign of life every few seconds, between two tokens
EXIT_S: Final = 1.0  # between the end of its output and its own

Said = ServingReady | Predicted | Warmed | Working | Begun | Piece | End | Refused

_log = logging.getLogger(__name__)


class ServingDied(Exception):
    """The child ended, fell silent, or does not keep to the protocol."""

    def __init__(self, message: str, *, was_ready: bool = False) -> None:
        super().__init__(message)
        self.was_ready = was_ready


class ServingProcess:
    """A child that is ready; every method but `tell` raises `ServingDied`."""

    def __init__(self, process: ChildProcess) -> None:
        self._process = process
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._patience_s = START_S
        self._ready = False

    @classmethod
    @asynccontextmanager
    async def start(
        cls, command: tuple[str, ...], environment: Mapping[str, str], order: ServingInput
    ) -> AsyncIterator["ServingProcess"]:
        """Start a child and wait until it is ready; it is gone at the end."""
        environment = {**environment, **child_environment(order.threads, base_model=None)}
        try:
            process = await ChildProcess.start(command, environment)
        except OSError as error:
            raise ServingDied(f"the serving process cannot be started: {error}") from error
        async with process:
            child = cls(process)
            tasks = (asyncio.create_task(child._read()), asyncio.create_task(_log_errors(process)))
            try:
                child.tell(order.model_dump_json().encode())
                await child._get_ready()
                yield child
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def tell(self, line: bytes) -> None:
        self._process.tell(line)

    async def reply(self) -> Predicted | Warmed | Begun | Piece | End | Refused:
        """Wait for the next thing it says that is more than a sign of life."""
        while True:
            said = await self._said()
            if not isinstance(said, ServingReady | Working):
                return said

    async def _get_ready(self) -> None:
        while not isinstance(said := await self._said(), ServingReady):
            if not isinstance(said, Working):
                raise self._died(f"serving begins with {said.kind!r}, not with ready")
        self._ready = True
        _log.info("serving is ready in process %d", self._process.pid)

    async def _said(self) -> Said:
        line = await self._line()
        try:
            said = serving_reply.validate_json(line)
        except ValidationError:
            raise self._died(f"serving says {line[:200]!r}") from None
        allowed_s = said.silence_s if isinstance(said, Working) else None
        self._patience_s = allowed_s or SILENT_S
        return said

    async def _line(self) -> bytes:
        try:
            async with asyncio.timeout(self._patience_s):
                line = await self._lines.get()
        except TimeoutError:
            silence = f"is silent for {self._patience_s:.0f} s and is killed"
            raise self._died(f"the serving process {silence}") from None
        if line is None:
            ended = how_it_ended(await self._process.ended(EXIT_S))
            raise self._died(f"the serving process {ended}")
        return line

    def _died(self, message: str) -> ServingDied:
        return ServingDied(message, was_ready=self._ready)

    async def _read(self) -> None:
        async for line in self._process.lines():
            self._lines.put_nowait(line)
        self._lines.put_nowait(None)


async def _log_errors(process: ChildProcess) -> None:
    async for raw in process.errors():
        if (line := read_line(raw)) is not None:
            level, text = line
            _log.log(logging.getLevelNamesMapping()[level], "serving: %s", text)
