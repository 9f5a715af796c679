"""Another system, which knows the AsyncAPI document alone, reads the feed: live and from the past."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client

from domain.catalog import EVENTS
from tests.feed.feeding import append, caught_up, feeding
from tests.feed.plain_subscriber import Document, Subscription, logged_in
from tests.gateway.real_server import listening
from tests.gateway.world import running_world
from tests.infra import NatsServer, nats_server
from tests.projections import histories as h

pytestmark = pytest.mark.infra


@pytest.fixture(scope="module")
async def document(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Document]:
    """As a gateway serves it."""
    async with (
        running_world(tmp_path_factory.mktemp("blobs")) as world,
        listening(world) as url,
    ):
        yield await Document.at(f"{url}/asyncapi")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path / "nats", secured=True) as running:
        yield running


@pytest.fixture
async def handlers(server: NatsServer) -> AsyncIterator[Client]:
    """Appends events, while they are fed by the user that does so."""
    appending, projecting = await server.connect("handlers"), await server.connect("projections")
    async with feeding(projecting):
        yield appending
    await appending.close()
    await projecting.close()


async def test_job_succeeded_is_read_from_the_past_and_live_and_holds_to_its_schema(
    document: Document, server: NatsServer, handlers: Client
) -> None:
    lives, until = two_lives()
    began = datetime.now(UTC) - timedelta(minutes=1)
    await append(handlers, lives[:until])
    wanted = [m.headers["ce-id"] for m in lives if m.headers["ce-type"] == "JobSucceeded"]

    async with asyncio.timeout(30), logged_in(server.url, "subscriber", "subscriber") as nc:
        subscription = Subscription.to(document, nc, "JobSucceeded")
        assert subscription.subject == "feed.*.job.job_succeeded.*"
        for start in (1, began):
            found = []
            async for message in subscription.since(start):
                headers, payload = dict(message.headers or {}), json.loads(message.data)
                assert document.wrong_with(headers, payload) == []
                assert payload["final_loss"] >= 0
                found.append(headers["ce-id"])
                if len(found) == 1 and start == 1:
                    await append(handlers, lives[until:])  # from here on it is live
                if len(found) == len(wanted):
                    break
            assert found == wanted


async def test_only_what_is_new_comes_to_whoever_asks_for_it(
    document: Document, server: NatsServer, handlers: Client
) -> None:
    lives, until = two_lives()
    await append(handlers, lives[:until])
    admin = await server.connect("admin")
    await caught_up(admin)
    async with asyncio.timeout(30), logged_in(server.url, "subscriber", "subscriber") as nc:
        messages = Subscription.to(document, nc, "JobSucceeded").since(None)
        first = asyncio.ensure_future(anext(messages))
        while not (await admin.jetstream().stream_info("FEED")).state.consumer_count:
            await asyncio.sleep(0.02)
        await append(handlers, lives[until:])
        message = await first
        await messages.aclose()
    await admin.close()

    assert str(h.id_of("job", "two")) in message.subject


def two_lives() -> tuple[list[h.Stored], int]:
    """Events of two jobs, and where the second one's begin."""
    one = list(h.whole_life("one"))
    return h.Log().add(*one, *h.whole_life("two", number=2)).messages, len(one)


async def test_every_type_of_event_and_all_telemetry_holds_to_its_schema(
    document: Document, server: NatsServer, handlers: Client
) -> None:
    history = h.Log().add(*h.everything()).messages
    await append(handlers, history)
    seen = set()
    async with asyncio.timeout(30), logged_in(server.url, "subscriber", "subscriber") as nc:
        reader = await nc.jetstream(domain="finetrail").subscribe(
            "feed.>", stream="FEED", ordered_consumer=True
        )
        for _ in history:
            message = await reader.next_msg(timeout=10)
            headers = dict(message.headers or {})
            assert document.wrong_with(headers, json.loads(message.data)) == []
            channel = document.channel_of(headers["ce-type"])
            workspace, id_ = message.subject.split(".")[1], message.subject.split(".")[-1]
            assert channel["address"].format(workspace=workspace, id=id_) == message.subject
            seen.add(headers["ce-type"])

    assert seen >= {message.headers["ce-type"] for message in history}
    assert len(seen) > len(EVENTS) / 2


async def test_a_message_that_is_wrong_is_found_to_be_so(document: Document) -> None:
    (issued,) = h.Log().add(h.key_issued()).messages
    headers = issued.headers | {"ft-sequence": "1"}

    assert document.wrong_with(headers, {"key_id": 1, "name": "x", "role": "viewer"})
    assert document.wrong_with(headers, {"key_id": "x", "name": "x"})
    assert document.wrong_with(issued.headers, json.loads(issued.data))  # no ft-sequence
    assert document.wrong_with(headers | {"ce-schemaversion": "99"}, json.loads(issued.data))
    assert document.wrong_with(headers, json.loads(issued.data)) == []
