"""Following a stream on a real server: in order, without a gap, through restarts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from nats.aio.client import Client

from adapters.nats_connection import connect
from adapters.nats_event_source import BATCH, LogMessage, NatsEventSource
from domain.errors import StoreUnavailable
from tests.infra import NatsServer, nats_server

pytestmark = pytest.mark.infra


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def nc(server: NatsServer) -> AsyncIterator[Client]:
    client = await connect(
        server.url, user=None, password=None, name="test", inbox_prefix="_INBOX_test"
    )
    yield client
    await client.close()


async def publish(nc: Client, first: int, last: int, kind: str = "metrics") -> None:
    """Telemetry, which the server takes without waiting for its disk."""
    for number in range(first, last + 1):
        await nc.publish(f"telemetry.w.{kind}.j.1", str(number).encode(), headers={"ce-type": "X"})
    await nc.jetstream().publish(f"telemetry.w.{kind}.end.1", b"end")


def metrics(nc: Client) -> NatsEventSource:
    return NatsEventSource(nc, "TELEMETRY", "telemetry.*.metrics.>")


async def read(source: NatsEventSource, after: int, until: int) -> list[LogMessage]:
    messages: list[LogMessage] = []
    async with asyncio.timeout(30), aclosing(source.follow(after)) as batches:
        async for batch in batches:
            assert len(batch) <= BATCH
            messages += batch
            if messages and messages[-1].sequence >= until:
                return messages
    raise AssertionError


async def test_everything_comes_once_and_in_order(nc: Client) -> None:
    await publish(nc, 1, 5000)

    messages = await read(metrics(nc), after=0, until=5001)

    assert [message.sequence for message in messages] == list(range(1, 5002))
    assert [message.data for message in messages[:2]] == [b"1", b"2"]
    assert messages[0].headers["ce-type"] == "X"
    assert messages[0].subject == "telemetry.w.metrics.j.1"
    assert messages[-1].pending == 0
    assert messages[0].pending >= 4000


async def test_what_else_is_heard_on_the_connection_stays_as_it_was(nc: Client) -> None:
    large = b"x" * 100_000  # many reads long
    await publish(nc, 1, 500)
    heard = await nc.subscribe("other.>")
    source = metrics(nc)
    await read(source, after=0, until=501)

    reading = asyncio.create_task(read(source, after=0, until=501))
    for number in range(20):
        await nc.publish("other.thing", large, headers={"number": str(number)})
        await nc.publish("other.thing", large)
    others = [await heard.next_msg(10) for _ in range(40)]

    assert [message.sequence for message in await reading] == list(range(1, 502))
    assert all(message.data == large for message in others)
    assert [message.headers for message in others[::2]] == [
        {"number": str(number)} for number in range(20)
    ]


async def test_a_header_may_hold_a_colon_and_a_value_without_a_blank(nc: Client) -> None:
    js = nc.jetstream()
    given = {"ce-actor": "key:3f", "ce-source": "/a/b", "ce-empty": "", "ce-name": "größe"}
    await js.publish("telemetry.w.metrics.j.1", b"", headers=given)

    (message,) = await read(metrics(nc), after=0, until=1)

    assert {name: message.headers[name] for name in given} == given


@pytest.mark.parametrize(
    ("headers", "type_"),
    [
        (b"ce-id: 1\r\nce-type: JobClaimed\r\nce-source: /a\r\n", "JobClaimed"),
        (b"ce-type:JobClaimed\r\n", "JobClaimed"),
        (b"not-ce-type: X\r\nce-types: Y\r\n", ""),
        (b"", ""),
    ],
)
def test_the_type_of_a_message_is_what_its_headers_say(headers: bytes, type_: str) -> None:
    message = LogMessage(1, "events.w.job.x", b"NATS/1.0\r\n" + headers + b"\r\n", b"", 0)

    assert message.type == message.headers.get("ce-type", "") == type_


async def test_it_goes_on_behind_a_sequence(nc: Client) -> None:
    await publish(nc, 1, 10)

    messages = await read(metrics(nc), after=7, until=11)

    assert [message.sequence for message in messages] == [8, 9, 10, 11]


async def test_it_waits_for_what_is_yet_to_come_and_says_that_it_watches(nc: Client) -> None:
    async with asyncio.timeout(20), aclosing(metrics(nc).follow(0)) as batches:
        assert not await anext(batches)
        await publish(nc, 1, 1)
        async for batch in batches:
            if batch:
                break

    assert batch[0].data == b"1"


async def test_only_the_asked_for_part_of_a_stream_comes(nc: Client) -> None:
    await publish(nc, 1, 3, kind="log")
    await publish(nc, 1, 3)

    messages = await read(metrics(nc), after=0, until=8)

    assert [message.sequence for message in messages] == [5, 6, 7, 8]


async def test_a_restart_of_the_server_leaves_no_gap_and_repeats_nothing(
    nc: Client, server: NatsServer
) -> None:
    await publish(nc, 1, 10)
    seen: list[int] = []
    async with asyncio.timeout(60), aclosing(metrics(nc).follow(0)) as batches:
        async for batch in batches:
            seen += [message.sequence for message in batch]
            if len(seen) == 11 and batch:
                await server.kill()
                await server.start()
                async with asyncio.timeout(30):
                    while not nc.is_connected:
                        await asyncio.sleep(0.02)
                await publish(nc, 11, 20)
            if seen and seen[-1] == 22:
                break

    assert seen == list(range(1, 23))


async def test_a_consumer_that_the_server_lost_is_made_anew(nc: Client) -> None:
    await publish(nc, 1, 3)
    js = nc.jetstream()
    async with asyncio.timeout(30), aclosing(metrics(nc).follow(0)) as batches:
        assert len(await anext(batches)) == 4
        (consumer,) = await js.consumers_info("TELEMETRY")
        await js.delete_consumer("TELEMETRY", consumer.name)
        await publish(nc, 4, 6)
        later: list[int] = []
        while len(later) < 4:
            later += [message.sequence for message in await anext(batches)]

    assert later == [5, 6, 7, 8]


async def test_the_last_sequence_outlives_the_messages(nc: Client) -> None:
    source = metrics(nc)
    assert await source.last() == 0

    await publish(nc, 1, 3)
    await nc.jetstream().purge_stream("TELEMETRY")

    assert await source.last() == 4


async def test_a_stream_that_is_not_there_is_unavailable(nc: Client) -> None:
    with pytest.raises(StoreUnavailable, match="NOWHERE"):
        await NatsEventSource(nc, "NOWHERE", "nowhere.>").last()
