"""Log lines of jobs are kept by real handlers: each once, through purges and restarts."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from nats.aio.client import Client

from adapters.claimed_telemetry import ClaimedFeed
from adapters.local_blobs import LocalBlobs
from adapters.nats_feed import NatsFeed
from domain.telemetry import LogEmitted, LogLine
from finetrail.blob_references import referenced
from finetrail.handlers import run_handlers
from finetrail.settings import LogSettings, NatsSettings, NatsUser, Settings
from gateway.log_archive import JobArchive, LogArchive
from gateway.logs import log_topic, read_page
from tests.infra import NO_POSTGRES, NatsServer, nats_server

pytestmark = [pytest.mark.infra, pytest.mark.timeout(60)]
JOB, OTHER = UUID(int=1), UUID(int=2)
W = "default"


@dataclass
class Kept:
    settings: Settings
    server: NatsServer
    nc: Client
    blobs: LocalBlobs

    async def say(self, job: UUID, *texts: str) -> int:
        now = datetime.now(UTC)
        lines = LogEmitted(lines=tuple(LogLine(time=now, message=text) for text in texts))
        return await NatsFeed(self.nc).emit(W, job, lines, message_id=uuid4())

    async def chunks(self) -> list[dict[str, Any]]:
        page, _ = await NatsFeed(self.nc).page("EVENTS", "events.*.job_log.*", 0, 500)
        return [json.loads(message.data) for message in page]

    async def lines(self, job: UUID) -> list[tuple[int, str]]:
        feed = ClaimedFeed(self.nc)
        archive = JobArchive(LogArchive(feed, self.blobs, W), job)
        page = await read_page(
            feed, archive, log_topic(W, job), after=None, limit=1000, level="DEBUG"
        )
        return [(item.sequence, item.message) for item in page.items]

    async def archived(self, through: int) -> None:
        """Wait until everything up to a sequence is in a chunk."""
        async with asyncio.timeout(20):
            while max((each["last"] for each in await self.chunks()), default=0) < through:
                await asyncio.sleep(0.02)

    async def purge(self) -> None:
        await self.nc.request("$JS.API.STREAM.PURGE.TELEMETRY", b"", timeout=5)

    @asynccontextmanager
    async def handlers(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        running = asyncio.create_task(run_handlers(self.settings, stop))
        try:
            yield
        finally:
            stop.set()
            await running


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with nats_server(tmp_path / "nats", secured=True) as server:
        settings = Settings(
            data_dir=tmp_path / "data",
            nats=NatsSettings(url=server.url, handlers=NatsUser(password="handlers")),
            postgres=NO_POSTGRES,
            logs=LogSettings(archive_seconds=0.2),
        )
        nc = await server.connect("admin")
        yield Kept(settings, server, nc, LocalBlobs(settings.blobs_folder))
        await nc.close()


async def test_lines_outlive_the_stream_they_were_said_in(kept: Kept) -> None:
    async with kept.handlers():
        last = 0
        for number in range(30):
            await kept.say(JOB, f"{number} a", f"{number} b")
            last = await kept.say(OTHER, f"other {number}")
        await kept.archived(last)
        before = await kept.lines(JOB)
        await kept.purge()
        assert await kept.lines(JOB) == before
        await kept.say(JOB, "after the purge")

        lines = await kept.lines(JOB)

    assert [text for _, text in lines] == [
        *(f"{number} {half}" for number in range(30) for half in "ab"),
        "after the purge",
    ]
    assert [text for _, text in await kept.lines(OTHER)] == [f"other {n}" for n in range(30)]


async def test_every_line_is_archived_once_though_handlers_come_and_go(kept: Kept) -> None:
    for round_ in range(2):
        async with kept.handlers():
            last = 0
            for number in range(10):
                last = await kept.say(JOB, f"{round_} {number}")
            await kept.archived(last)
        await kept.say(JOB, f"{round_} while they were away")
    async with kept.handlers(), kept.handlers():  # two processes at once
        await kept.archived(await kept.say(JOB, "the last"))

    chunks = await kept.chunks()
    assert all(one["last"] < other["first"] for one, other in pairwise(chunks))
    assert sum(each["lines"] for each in chunks) == 23
    await kept.purge()
    assert len(await kept.lines(JOB)) == 23
    spared = {reference.blob.sha256 async for reference in referenced(kept.nc)}
    assert {each["chunk"]["sha256"] for each in chunks} <= spared, "collecting spares them"
