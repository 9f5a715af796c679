"""The feed says what the log says, once and in its order, whatever dies meanwhile."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from adapters.jetstream_feed_log import JetStreamFeedLog
from domain.feed import fed_event
from finetrail.bootstrap import bootstrap_streams
from tests.feed.feeding import LosesAnswers, append, caught_up, eventually, fed, feeding
from tests.infra import NatsServer, nats_server
from tests.projections import histories as h

pytestmark = pytest.mark.infra


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path / "nats", secured=True) as running:
        yield running


@pytest.fixture
async def admin(server: NatsServer) -> AsyncIterator[Client]:
    nc = await server.connect("admin")
    yield nc
    await nc.close()


@pytest.fixture
async def nc(server: NatsServer) -> AsyncIterator[Client]:
    """As the process that feeds it."""
    nc = await server.connect("projections")
    yield nc
    await nc.close()


def life(name: str = "one") -> list[h.Stored]:
    return h.Log().add(*h.whole_life(name, attempts=2)).messages


async def ids(admin: Client) -> list[str]:
    return [headers["Nats-Msg-Id"] for _, headers, _ in await fed(admin)]


async def test_every_event_comes_as_it_was_written_under_a_subject_with_its_type(
    admin: Client, nc: Client
) -> None:
    messages = life()
    await append(admin, messages)

    async with feeding(nc):
        await caught_up(admin)

    found = await fed(admin)
    assert len(found) == len(messages) > 16  # one batch
    for number, (message, (subject, headers, data)) in enumerate(
        zip(messages, found, strict=True), 1
    ):
        assert data == message.data
        own = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
        assert own.pop("ft-sequence") == str(number)
        assert own == {n: v for n, v in message.headers.items() if not n.startswith("Nats-")}
        assert headers["Nats-Msg-Id"] == message.headers["ce-id"]
        assert subject.split(".")[1:3] == message.subject.split(".")[1:3]
    (succeeded,) = [one for one in found if one[1]["ce-type"] == "JobSucceeded"]
    assert succeeded[0] == f"feed.default.job.job_succeeded.{h.id_of('job', 'one')}"


async def test_a_batch_that_leaves_one_event_over_is_stored_whole(
    admin: Client, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = life()
    monkeypatch.setattr("adapters.jetstream_feed_log.BATCH", len(messages) - 1)
    events = [fed_event(one.subject, one.sequence, one.headers, one.data) for one in messages]

    last = await JetStreamFeedLog(nc).store(events, 0)

    assert last == len(messages) > 17
    assert await ids(admin) == [message.headers["ce-id"] for message in messages]


async def test_an_event_of_a_newer_writer_is_fed_too(admin: Client, nc: Client) -> None:
    headers = {"ce-id": "an-id", "ce-type": "JobCelebrated", "ce-new": "yes", "traceparent": "00-a"}
    async with feeding(nc):
        await admin.jetstream().publish("events.w.party.x", b"\xff not JSON", headers=headers)
        await caught_up(admin)

    ((subject, found, data),) = await fed(admin)
    assert (subject, data) == ("feed.w.party.job_celebrated.x", b"\xff not JSON")
    assert headers.items() <= found.items()


def test_hashes_of_secrets_are_left_out_and_all_else_stays() -> None:
    (issued,) = h.Log().add(h.key_issued()).messages

    event = fed_event(issued.subject, 1, issued.headers, issued.data)

    assert b"secret_hmac" in issued.data
    assert b"secret_hmac" not in event.data
    assert b'"role":' in event.data


async def test_a_process_that_dies_behind_a_write_repeats_nothing_and_misses_nothing(
    admin: Client, nc: Client
) -> None:
    messages = life()
    await append(admin, messages[:5])
    for _ in range(3):
        async with feeding(nc, LosesAnswers(nc, after=1)) as dying:
            await eventually(lambda: _is(admin, dying.state.sequence + 1))
    await append(admin, messages[5:])
    async with feeding(nc):
        await caught_up(admin)

    assert await ids(admin) == [message.headers["ce-id"] for message in messages]


async def _is(admin: Client, at_least: int) -> bool:
    state = (await admin.jetstream().stream_info("FEED")).state
    return state.last_seq >= min(at_least, 5)


async def test_two_writers_write_every_event_once_and_in_order(
    server: NatsServer, admin: Client, nc: Client
) -> None:
    second = await server.connect("projections")
    messages = life()
    try:
        async with feeding(nc), feeding(second):
            await append(admin, messages)
            await caught_up(admin)
    finally:
        await second.close()

    assert await ids(admin) == [message.headers["ce-id"] for message in messages]


async def test_a_dead_server_is_waited_for(server: NatsServer, admin: Client, nc: Client) -> None:
    messages = life()
    async with feeding(nc):
        await append(admin, messages[:3])
        await caught_up(admin)
        await server.kill()
        await server.start()
        async with asyncio.timeout(20):
            while not (nc.is_connected and admin.is_connected):
                await asyncio.sleep(0.02)
        await append(admin, messages[3:])
        await caught_up(admin)

    assert await ids(admin) == [message.headers["ce-id"] for message in messages]


async def test_it_goes_on_behind_messages_that_somebody_else_put_there(
    admin: Client, nc: Client
) -> None:
    messages = life()
    await append(admin, messages[:3])
    async with feeding(nc):
        await caught_up(admin)
        await admin.jetstream().publish("feed.a.b.c.d", b"not ours")
        await append(admin, messages[3:])

        async def all_there() -> bool:
            state = (await admin.jetstream().stream_info("FEED")).state
            return state.messages == len(messages) + 1

        await eventually(all_there)

    ours = [headers["ce-id"] for _, headers, _ in await fed(admin) if "ce-id" in headers]
    assert ours == [message.headers["ce-id"] for message in messages]


async def test_a_feed_whose_messages_have_all_expired_goes_on_where_it_was(
    admin: Client, nc: Client
) -> None:
    messages = life()
    await append(admin, messages[:3])
    async with feeding(nc):
        await caught_up(admin)
    await admin.jetstream().purge_stream("FEED")  # leaves what age leaves: the last sequence
    await append(admin, messages[3:])

    async with feeding(nc):
        await caught_up(admin)

    assert await ids(admin) == [message.headers["ce-id"] for message in messages[3:]]


async def test_a_feed_of_another_log_is_left_alone_and_said(
    admin: Client, nc: Client, caplog: pytest.LogCaptureFixture
) -> None:
    messages = life()
    await append(admin, messages[:3])
    await admin.jetstream().publish(
        "feed.a.b.c.d", b"", headers={"ft-sequence": "3", "Nats-Msg-Id": "another"}
    )

    with caplog.at_level(logging.CRITICAL):
        async with feeding(nc) as stopped:

            async def told() -> bool:
                return stopped.state.status == "stopped"

            await eventually(told)

    assert "finetrail feed rebuild" in caplog.text
    assert len(await fed(admin)) == 1


async def test_a_feed_that_was_thrown_away_is_written_anew_although_nothing_happens(
    admin: Client, nc: Client
) -> None:
    messages = life()
    await append(admin, messages)
    async with feeding(nc):
        await caught_up(admin)
        await admin.jetstream().delete_stream("FEED")
        await bootstrap_streams(admin, [])
        await caught_up(admin)

    assert await ids(admin) == [message.headers["ce-id"] for message in messages]
