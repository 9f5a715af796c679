"""What a sender may rely on, asked of the real stream and real handlers of one aggregate."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from uuid_utils.compat import uuid7

from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import close
from domain.agents.commands import DrainAgent, EnrolAgent
from domain.errors import BusUnavailable, CommandTimeout
from domain.messages import Command, Envelope, Outcome, StreamId
from finetrail.handlers import run_handlers
from finetrail.settings import NatsSettings, Settings
from tests import samples
from tests.infra import NO_POSTGRES, NatsServer, nats_server
from tests.samples import AGENT

pytestmark = pytest.mark.infra


@dataclass
class Post:
    server: NatsServer
    nc: Client
    bus: NatsCommandBus
    settings: Settings


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    async with nats_server(tmp_path) as server:
        nc = await nats.connect(server.url, max_reconnect_attempts=-1, error_cb=_quiet)
        settings = Settings(
            data_dir=tmp_path, nats=NatsSettings(url=server.url), postgres=NO_POSTGRES
        )
        yield Post(server, nc, NatsCommandBus(nc), settings)
        await close(nc)


@pytest.fixture
async def handlers(post: Post) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.create_task(run_handlers(post.settings, stop))
    yield
    stop.set()
    await running


async def _quiet(_: Exception) -> None:
    pass


def asked(command: Command | None = None, source: str | None = None) -> Envelope[Command]:
    command_id = uuid7()
    enrol = EnrolAgent(
        agent_id=AGENT, name="box", accelerator="cpu", memory_bytes=1, methods=(samples.METHOD,)
    )
    return Envelope(
        id=command_id,
        stream=StreamId(samples.WORKSPACE, "agent", AGENT),
        source=source or str(AGENT),
        actor="test",
        correlation_id=command_id,
        causation_id=None,
        sent_at=samples.NOW,
        command=command or enrol,
    )


async def last_event(post: Post) -> int:
    return (await post.nc.jetstream().stream_info("EVENTS")).state.last_seq


@pytest.mark.usefixtures("handlers")
async def test_a_sender_hears_what_became_of_its_command(post: Post) -> None:
    enrolled = await post.bus.send(asked())
    refused = await post.bus.send(asked(DrainAgent(agent_id=AGENT), source=str(AGENT)))

    assert enrolled == Outcome(status="recorded", sequence=1)
    assert (refused.status, refused.code) == ("rejected", "forbidden_source")


@pytest.mark.usefixtures("handlers")
async def test_asking_again_answers_again_and_repeats_nothing(post: Post) -> None:
    envelope = asked()

    first = await post.bus.send(envelope)
    again = await post.bus.send(envelope)

    assert again == first
    assert await last_event(post) == 1


@pytest.mark.usefixtures("handlers")
async def test_many_senders_at_once_get_each_their_own_outcome(post: Post) -> None:
    await post.bus.send(asked())
    drain = [asked(DrainAgent(agent_id=AGENT), source="gateway") for _ in range(30)]

    outcomes = await asyncio.gather(*(post.bus.send(envelope) for envelope in drain))

    assert [outcome.status for outcome in outcomes].count("recorded") == 1
    assert [outcome.status for outcome in outcomes].count("unchanged") == 29


async def test_a_command_that_nobody_decides_in_time_is_safe_and_decided_later(
    post: Post, request: pytest.FixtureRequest
) -> None:
    envelope = asked()
    with pytest.raises(CommandTimeout) as raised:
        await post.bus.send(envelope, timeout_s=0.3)
    assert raised.value.command_id == envelope.id
    stop = asyncio.Event()
    running = asyncio.create_task(run_handlers(post.settings, stop))

    outcome = await post.bus.send(envelope)

    assert outcome.status == "recorded"
    assert await last_event(post) == 1
    stop.set()
    await running


async def test_a_posted_command_is_in_the_stream_when_the_call_returns(post: Post) -> None:
    await post.bus.post(asked())

    info = await post.nc.jetstream().stream_info("COMMANDS")
    assert info.state.messages == 1


async def test_a_stream_that_does_not_answer_is_reported(post: Post) -> None:
    await post.server.kill()

    with pytest.raises(BusUnavailable):
        await post.bus.send(asked(), timeout_s=0.5)
    with pytest.raises(BusUnavailable):
        await post.bus.post(asked(), timeout_s=0.5)


@pytest.mark.usefixtures("handlers")
async def test_a_command_sent_while_the_server_is_away_arrives_once(post: Post) -> None:
    await post.bus.send(asked())
    await post.server.kill()
    sending = asyncio.create_task(
        post.bus.send(asked(DrainAgent(agent_id=AGENT), source="gateway"), timeout_s=30)
    )
    await post.server.start()

    outcome = await sending

    assert outcome.status == "recorded"
    assert await last_event(post) == 2


async def test_an_answer_that_cannot_be_read_is_no_answer(post: Post) -> None:
    async def mumble(msg: Msg) -> None:
        assert msg.headers is not None
        await post.nc.publish(msg.headers["reply_to"], b"???")

    await post.nc.subscribe("commands.>", cb=mumble)

    with pytest.raises(CommandTimeout):
        await post.bus.send(asked(), timeout_s=0.5)
