"""An agent as a process of its own: killed, it leaves nothing that runs, and its successor nothing that lies about."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domain.blobs import BlobRef
from finetrail.settings import Settings, as_environment
from tests.agent.core import Core, alive, pids, spec_of, until

pytestmark = pytest.mark.infra

PROGRAM = """
import asyncio, signal
from finetrail.agent import run_agent
from finetrail.settings import Settings
from tests.agent.conftest import SERVING, TRAINING

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_agent(Settings(), stop, training=TRAINING, serving=SERVING)

asyncio.run(main())
"""


@asynccontextmanager
async def agent_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, **as_environment(settings)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_agent_leaves_no_process_and_its_successor_clears_its_folder(
    core: Core, settings: Settings, rows: BlobRef, pid_file: Path
) -> None:
    job_id = core.submit(spec_of("stubborn", rows))
    folder = settings.agent_work_dir / str(job_id)

    async with agent_process(settings) as agent:
        await core.assign(job_id)
        await until(lambda: "JobStarted" in core.types(job_id))
        (child,) = pids(pid_file)
        agent.send_signal(signal.SIGKILL)
        await agent.wait()
        await until(lambda: not alive(child))
        assert folder.is_dir()
    async with agent_process(settings) as successor:
        await until(lambda: not folder.exists())
        successor.terminate()
        assert await successor.wait() == 0


async def test_a_terminated_agent_gives_back_its_work_and_ends_its_serving_child(
    core: Core, settings: Settings, rows: BlobRef, pid_file: Path
) -> None:
    done = core.submit(spec_of("happy", rows))
    job_id = core.submit(spec_of("patient", rows))

    async with agent_process(settings) as agent:
        await core.assign(done)
        await until(lambda: len(pids(pid_file)) == 2, "the serving child is warm")
        await core.assign(job_id)
        await until(lambda: "JobStarted" in core.types(job_id))
        agent.terminate()
        status = await agent.wait()

    assert status == 0
    assert core.last(job_id).reason == "agent stopped"
    assert not any(alive(pid) for pid in pids(pid_file))
