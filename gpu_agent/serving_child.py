"""Predictions: one child process that keeps models warm, and a bounded queue before it."""

import asyncio
import errno
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic import ValidationError

from domain.work import Failed, PredictReply, PredictRequest
from gpu_agent.attempt_files import fetch_adapter, remove_folder, without_paths
from gpu_agent.child_process import ChildProcess, how_it_ended
from gpu_agent.ports import Blobs
from gpu_agent.protocol import (
    Device,
    ServingInput,
    ServingReady,
    ServingRequest,
    child_environment,
)
from gpu_agent.stderr import read_line

SERVING_FOLDER: Final = "serving"  # in the agent's work folder
MAX_WAITING: Final = 64  # more would only wait to be too late
DEADLINE_S: Final = 30.0  # of one request, from its arrival
START_S: Final = 120.0  # loading torch beside a training that has all cores
RESTART_PAUSE_S: Final = 0.5  # one that dies at once must not keep a core busy
EXIT_S: Final = 1.0  # between the end of its output and its own
KEPT_ADAPTERS: Final = 32  # folders of a few megabytes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """How to start the child; ``folder`` keeps the adapters, by version."""

    folder: Path
    models_folder: Path | None
    device: Device
    threads: int
    environment: Mapping[str, str]
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: PredictRequest
    reply: asyncio.Future[PredictReply] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Serving:
    """`answer` may be called at any time; `run` does the work until it is cancelled."""

    def __init__(self, config: ServingConfig, blobs: Blobs) -> None:
        self._config = config
        self._blobs = blobs
        self._waiting: deque[_Waiting] = deque()  # the first one is in the child's hands
        self._wanted = asyncio.Event()
        self._adapters: dict[UUID, Path] = {}  # the last used one last

    def warm_up(self) -> None:
        """Start the child now, so that the first request need not wait for it."""
        self._wanted.set()

    async def answer(self, request: PredictRequest) -> PredictReply:
        """Answer in the order of arrival; a refusal says whether trying again may help."""
        if len(self._waiting) >= MAX_WAITING:
            return _refused(request, "busy", f"{MAX_WAITING} requests are waiting already")
        waiting = _Waiting(request)
        self._waiting.append(waiting)
        self._wanted.set()
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await waiting.reply
        except TimeoutError:
            return _refused(request, "deadline", f"there was no answer within {DEADLINE_S:.0f} s")

    async def run(self) -> None:
        """Keep a child from the first wish for one; requests that it dies of are refused."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                async with self._started() as child:
                    await self._serve(child)
            except ServingDied as death:
                _log.warning("%s", death)
                if self._waiting:
                    first = self._waiting.popleft()
                    _settle(first, _refused(first.request, "serving_restarted", str(death)))
                if self._waiting or death.was_ready:
                    self._wanted.set()
                await asyncio.sleep(RESTART_PAUSE_S)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator["_ServingChild"]:
        config = self._config
        environment = {**config.environment, **child_environment(config.threads)}
        try:
            process = await ChildProcess.start(config.command, environment)
        except OSError as error:
            raise ServingDied(f"the serving process cannot be started: {error}") from error
        async with process:
            child = _ServingChild(process, self._wanted.set)
            order = ServingInput(
                threads=config.threads, device=config.device, models_folder=config.models_folder
            )
            try:
                await child.get_ready(order)
                yield child
            finally:
                await child.close()

    async def _serve(self, child: "_ServingChild") -> None:
        while True:
            while self._waiting:
                first = self._waiting[0]
                if not first.reply.done():  # its asker may have given up
                    _settle(first, await self._answered(child, first.request))
                self._waiting.popleft()
            await child.check()
            await self._wanted.wait()
            self._wanted.clear()

    async def _answered(self, child: "_ServingChild", request: PredictRequest) -> PredictReply:
        try:
            folder = await self._adapter(request)
        except (OSError, ValueError) as error:
            lost = not isinstance(error, OSError) or error.errno in {errno.ENOENT, errno.EIO}
            return _refused(request, "adapter_unreadable", without_paths(error), retryable=not lost)
        return await child.ask(
            ServingRequest.model_validate({**request.model_dump(), "adapter_folder": folder})
        )

    async def _adapter(self, request: PredictRequest) -> Path:
        folder = self._config.folder / str(request.version_id)
        await fetch_adapter(self._blobs, request.adapter, folder)
        self._adapters.pop(request.version_id, None)
        self._adapters[request.version_id] = folder
        while len(self._adapters) > KEPT_ADAPTERS:
            await remove_folder(self._adapters.pop(next(iter(self._adapters))))
        return folder


class ServingDied(Exception):
    """The child ended, or does not keep to the protocol, before or in the middle of a request."""

    def __init__(self, message: str, *, was_ready: bool = False) -> None:
        super().__init__(message)
        self.was_ready = was_ready


class _ServingChild:
    """One question, one answer, over the pipes of a child."""

    def __init__(self, process: ChildProcess, on_output: Callable[[], None]) -> None:
        self._process = process
        self._on_output = on_output
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._tasks = (
            asyncio.create_task(self._read()),
            asyncio.create_task(_log_errors(process)),
        )
        self._ready = False

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def get_ready(self, order: ServingInput) -> None:
        self._process.tell(order.model_dump_json().encode())
        line = await self._line(START_S)
        try:
            ServingReady.model_validate_json(line)
        except ValidationError:
            raise ServingDied(f"serving begins with {line[:200]!r}, not with ready") from None
        self._ready = True
        _log.info("serving is ready in process %d", self._process.pid)

    async def ask(self, request: ServingRequest) -> PredictReply:
        self._process.tell(request.model_dump_json().encode())
        line = await self._line(DEADLINE_S)
        try:
            reply = PredictReply.model_validate_json(line)
        except ValidationError:
            reply = None
        if reply is None or reply.request_id != request.request_id:
            raise ServingDied(f"serving answers {line[:200]!r}", was_ready=True)
        return reply

    async def check(self) -> None:
        """Raise `ServingDied` if the child has ended while nobody asked anything."""
        if not self._lines.empty():
            await self._line(0)

    async def _line(self, within_s: float) -> bytes:
        try:
            async with asyncio.timeout(within_s or None):
                line = await self._lines.get()
        except TimeoutError:
            message = f"the serving process is silent for {within_s:.0f} s and is killed"
            raise ServingDied(message, was_ready=self._ready) from None
        if line is None:
            ended = how_it_ended(await self._process.ended(EXIT_S))
            raise ServingDied(f"the serving process {ended}", was_ready=self._ready)
        return line

    async def _read(self) -> None:
        async for line in self._process.lines():
            self._lines.put_nowait(line)
        self._lines.put_nowait(None)
        self._on_output()


async def _log_errors(process: ChildProcess) -> None:
    async for raw in process.errors():
        if (line := read_line(raw)) is not None:
            level, text = line
            _log.log(logging.getLevelNamesMapping()[level], "serving: %s", text)


def _settle(waiting: _Waiting, reply: PredictReply) -> None:
    if not waiting.reply.done():
        waiting.reply.set_result(reply)


def _refused(
    request: PredictRequest, code: str, message: str, *, retryable: bool = True
) -> PredictReply:
    return PredictReply(
        request_id=request.request_id,
        error=Failed(code=code, message=message, retryable=retryable),
    )
