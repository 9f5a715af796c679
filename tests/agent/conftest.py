"""An agent on a real server, with stand-in children and a core that decides by the real rules."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from adapters.local_blobs import LocalBlobs
from domain.blobs import BlobRef
from finetrail.agent import run_agent
from finetrail.settings import AgentSettings, NatsSettings, Settings
from tests.agent.core import AGENT, Core, running_core
from tests.infra import NatsServer, nats_server

TRAINING = (sys.executable, "-m", "tests.agent.stand_in")
SERVING = (sys.executable, "-m", "tests.agent.stand_in_serving")

RunAgent = Callable[[], AbstractAsyncContextManager[asyncio.Event]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path / "nats", agents=[str(AGENT)]) as started:
        yield started


@pytest.fixture
async def core(server: NatsServer) -> AsyncIterator[Core]:
    async with running_core(server.url) as core:
        yield core


@pytest.fixture
def settings(server: NatsServer, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        nats=NatsSettings(url=server.url),
        agent=AgentSettings(id=str(AGENT), name="tester", device="cpu", threads=1),
    )


@pytest.fixture
def blobs(settings: Settings) -> LocalBlobs:
    return LocalBlobs(settings.blobs_folder)


@pytest.fixture
async def rows(blobs: LocalBlobs) -> BlobRef:
    async with blobs.writer() as writer:
        await writer.write(b"text,label\nyes,a\nno,b\n")
        return await writer.commit()


@pytest.fixture
def pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-ins write their process ids."""
    path = tmp_path / "pids"
    monkeypatch.setenv("STAND_IN_PIDS", str(path))
    return path


@pytest.fixture
def run(settings: Settings) -> RunAgent:
    @asynccontextmanager
    async def running() -> AsyncIterator[asyncio.Event]:
        stop = asyncio.Event()
        task = asyncio.create_task(run_agent(settings, stop, training=TRAINING, serving=SERVING))
        task.add_done_callback(lambda _: stop.set())
        try:
            yield stop
        finally:
            stop.set()
            await task

    return running
