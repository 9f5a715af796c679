"""A log on a real server with permissions, and the process that feeds it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from nats.aio.client import Client

from adapters.jetstream_feed_log import JetStreamFeedLog
from adapters.nats_connection import end
from adapters.nats_event_source import NatsEventSource
from domain.feed import FedEvent
from projections.feed import Feeder
from tests.projections.histories import Stored

DEADLINE_S = 20.0


class LosesAnswers(JetStreamFeedLog):
    """Dies after some writes have reached the server, before it hears of it."""

    def __init__(self, nc: Client, after: int) -> None:
        super().__init__(nc)
        self._left = after

    async def store(self, events: Sequence[FedEvent], last: int) -> int:
        stored = await super().store(events, last)
        self._left -= len(events)
        if self._left <= 0:
            raise asyncio.CancelledError
        return stored


def feeder(nc: Client, log: JetStreamFeedLog | None = None) -> Feeder:
    return Feeder(NatsEventSource(nc, "EVENTS"), log or JetStreamFeedLog(nc))


@asynccontextmanager
async def feeding(nc: Client, log: JetStreamFeedLog | None = None) -> AsyncIterator[Feeder]:
    running = feeder(nc, log)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        await end(task)


async def append(nc: Client, messages: Sequence[Stored]) -> None:
    for message in messages:
        await nc.jetstream().publish(message.subject, message.data, headers=message.headers)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


async def caught_up(nc: Client) -> None:
    js = nc.jetstream()

    async def same() -> bool:
        feed, log = await js.stream_info("FEED"), await js.stream_info("EVENTS")
        return feed.state.last_seq >= log.state.last_seq

    await eventually(same)


async def fed(nc: Client) -> list[tuple[str, dict[str, str], bytes]]:
    """All that stands in the feed: subject, headers, body."""
    js = nc.jetstream()
    state = (await js.stream_info("FEED")).state
    messages = [await js.get_msg("FEED", n) for n in range(state.first_seq, state.last_seq + 1)]
    return [(str(one.subject), dict(one.headers or {}), one.data or b"") for one in messages]
