"""Taking messages from a real consumer: in order, a few at a time, and never in a tight loop."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from faststream.nats import NatsBroker
from nats.aio.client import Client

from handlers.commands import durable_pull
from handlers.consume import consume
from handlers.settle import Delivery
from tests.infra import nats_server

pytestmark = pytest.mark.infra


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with nats_server(tmp_path) as server:
        yield server.url


@pytest.fixture
async def broker(url: str) -> AsyncIterator[NatsBroker]:
    broker = NatsBroker(url, logger=None)
    await broker.connect()
    yield broker
    await broker.stop()


async def put(url: str, *bodies: bytes) -> None:
    nc = await nats.connect(url)
    for body in bodies:
        await nc.jetstream().publish("commands.gateway.default.job.1", body)
    await nc.close()


async def test_messages_come_in_order_and_no_more_than_allowed_at_once(
    url: str, broker: NatsBroker
) -> None:
    seen: list[bytes] = []
    at_once = [0, 0]
    stop = asyncio.Event()

    async def handle(msg: Delivery) -> None:
        seen.append(msg.data)
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(0.02)
        at_once[0] -= 1
        await msg.ack()
        if len(seen) == 12:
            stop.set()

    bodies = [str(n).encode() for n in range(12)]
    await put(url, *bodies)
    subscriber = durable_pull(
        broker, "COMMANDS", "job-commands", "commands.*.*.job.*", b"_INBOX_handlers"
    )
    async with asyncio.timeout(20):
        await consume(subscriber, handle, stop, workers=3)

    assert seen == bodies
    assert at_once == [0, 3]


async def test_what_is_under_way_at_a_stop_is_finished(url: str, broker: NatsBroker) -> None:
    stop, done = asyncio.Event(), asyncio.Event()

    async def handle(msg: Delivery) -> None:
        stop.set()
        await asyncio.sleep(0.2)
        await msg.ack()
        done.set()

    await put(url, b"one")
    subscriber = durable_pull(
        broker, "COMMANDS", "job-commands", "commands.*.*.job.*", b"_INBOX_handlers"
    )
    async with asyncio.timeout(20):
        await consume(subscriber, handle, stop, workers=3)

    assert done.is_set()


async def test_a_connection_that_closed_for_good_does_not_stop_the_process(
    broker: NatsBroker,
) -> None:
    async def handle(_: Delivery) -> None:
        """Nothing comes."""

    nc: Client = await broker.connect()
    stop = asyncio.Event()
    subscriber = durable_pull(
        broker, "COMMANDS", "job-commands", "commands.*.*.job.*", b"_INBOX_handlers"
    )
    consuming = asyncio.create_task(consume(subscriber, handle, stop, workers=3))
    broker._connection = None
    await nc.close()

    ticks = 0
    async with asyncio.timeout(20):
        for _ in range(10):
            await asyncio.sleep(0.02)
            ticks += 1
        stop.set()
        await consuming

    assert ticks == 10
