"""A gateway in memory, new for each test, with its keys loaded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.gateway.world import World


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "blobs")
    await made.issue_keys()
    running = asyncio.create_task(made.gateway.run())
    async with asyncio.timeout(5):
        await made.gateway.keyring.wait_for(made.events, 5)
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
