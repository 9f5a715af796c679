"""Letters in a real stream whose server soon forgets which messages it was given."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from adapters.jetstream_publisher import JetStreamPublisher
from handlers.dead_letters import DeadLetters
from tests.infra import nats_server

pytestmark = pytest.mark.infra
ORIGINAL = "events.default.job.019369c2-7c5e-7b3a-9f10-5d2a8c4e6b71"


@pytest.fixture
async def nc(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder = tmp_path_factory.mktemp("dead")
    async with nats_server(folder, streams=False) as server:
        nc = await server.connect("admin")
        shortest = 0.1  # seconds that the server allows
        await nc.jetstream().add_stream(
            StreamConfig(name="DEAD", subjects=["dead.>"], duplicate_window=shortest)
        )
        yield nc
        await nc.close()


async def put(nc: Client, body: bytes = b"{}", key: str = "42") -> None:
    letters = DeadLetters(JetStreamPublisher(nc))
    await letters.put("reactions", ORIGINAL, {"ce-id": "x"}, body, key=key, reason="broken")


async def forgotten(nc: Client) -> None:
    """Wait until the server knows no message id that it was given before."""
    js = nc.jetstream()
    probe = {"Nats-Msg-Id": "probe"}
    first = await js.publish("dead.probe.none", b"", headers=probe)
    async with asyncio.timeout(10):
        while (ack := await js.publish("dead.probe.none", b"", headers=probe)).duplicate:
            await asyncio.sleep(0.02)
    for sequence in (first.seq, ack.seq):
        await js.delete_msg("DEAD", sequence)


async def count(nc: Client) -> int:
    state = (await nc.jetstream().stream_info("DEAD")).state
    return state.messages


async def test_a_message_that_is_put_aside_again_later_leaves_one_letter(nc: Client) -> None:
    await put(nc)
    await put(nc)
    await forgotten(nc)
    await put(nc)

    assert await count(nc) == 1


async def test_another_message_of_the_same_sequence_leaves_a_letter_of_its_own(nc: Client) -> None:
    await put(nc)
    await forgotten(nc)
    await put(nc, body=b'{"of": "a stream that was made anew"}')
    await put(nc, key="43")

    assert await count(nc) == 3
