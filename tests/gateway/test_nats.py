"""The feed and inference clients on a real server, and streams that survive its death."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.nats_connection import connect
from adapters.nats_feed import NatsFeed
from adapters.nats_inference import BATCH_BYTES, NatsInference, batches
from domain.errors import StoreUnavailable
from domain.subjects import telemetry_subject
from domain.telemetry import LogEmitted, LogLine
from domain.work import Prediction, PredictReply, PredictRequest
from gateway.hub import Hub
from gateway.logs import log_encoder, log_topic
from gateway.ports import FeedMessage
from gateway.sse import EventStreams, Reading, encode
from tests.gateway.sse_client import Listener
from tests.infra import NatsServer, nats_server

pytestmark = [pytest.mark.infra, pytest.mark.timeout(60)]
W = "default"


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest_asyncio.fixture
async def nc(server: NatsServer) -> AsyncIterator[Client]:
    client = await connect(
        server.url, user=None, password=None, name="test", inbox_prefix="_INBOX_test"
    )
    yield client
    await client.close()


def lines(*messages: str) -> LogEmitted:
    return LogEmitted(lines=tuple(LogLine(time=datetime.now(UTC), message=m) for m in messages))


async def log(nc: Client, job: UUID, message: str, attempt: int = 1) -> int:
    subject = telemetry_subject(W, "log", job, attempt)
    body = lines(message).model_dump_json().encode()
    ack = await nc.jetstream().publish(subject, body, headers={"ce-type": "LogEmitted"})
    return ack.seq


@asynccontextmanager
async def hub_on(feed: NatsFeed) -> AsyncIterator[Hub]:
    hub = Hub(feed)
    running = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def reading(job: UUID, after: int = 0) -> Reading:
    return Reading("TELEMETRY", log_topic(W, job), after, log_encoder("DEBUG"))


async def test_pages_hold_what_lies_behind_a_position_on_a_wildcard(nc: Client) -> None:
    feed, job, other = NatsFeed(nc), uuid4(), uuid4()
    mine = []
    for n in range(25):
        mine.append(await log(nc, job, f"line {n}", attempt=n % 3))
        await log(nc, other, "not mine")

    found: list[int] = []
    more = True
    while more:
        after = found[-1] if found else 0
        page, more = await feed.page("TELEMETRY", f"{log_topic(W, job)}.>", after, 10)
        assert len(page) <= 10
        found += [message.sequence for message in page]

    assert found == mine
    assert page[-1].subject == telemetry_subject(W, "log", job, 0)
    assert page[-1].headers["ce-type"] == "LogEmitted"
    assert LogEmitted.model_validate_json(page[-1].data).lines[0].message == "line 24"


async def test_a_subject_that_holds_nothing_gives_an_empty_page(nc: Client) -> None:
    feed = NatsFeed(nc)

    assert await feed.page("EVENTS", f"events.{W}.job.{uuid4()}", 0, 10) == ([], False)
    assert await feed.last("EVENTS", f"events.{W}.job.{uuid4()}") is None


async def test_the_last_message_and_the_ends_of_a_stream_are_told(nc: Client) -> None:
    feed, job = NatsFeed(nc), uuid4()
    first = await log(nc, job, "one")
    second = await log(nc, job, "two")

    last = await feed.last("TELEMETRY", telemetry_subject(W, "log", job, 1))
    state = await feed.state("TELEMETRY")

    assert last is not None
    assert (last.sequence, first) == (second, second - 1)
    assert (state.first, state.last) == (1, second)


async def test_lines_that_people_write_are_stored_once_an_id(nc: Client) -> None:
    feed, job, id_ = NatsFeed(nc), uuid4(), uuid4()

    first = await feed.emit(W, job, lines("hello"), message_id=id_)
    again = await feed.emit(W, job, lines("hello"), message_id=id_)

    page, _ = await feed.page("TELEMETRY", f"{log_topic(W, job)}.>", 0, 10)
    assert [message.sequence for message in page] == [first]
    assert again == first
    assert page[0].subject.endswith(".0")


async def test_the_live_copy_has_the_sequence_of_the_stream(nc: Client) -> None:
    feed, job = NatsFeed(nc), uuid4()
    async with feed.live("TELEMETRY") as messages:
        written = await log(nc, job, "hello")
        message = await anext(aiter(messages))

    assert (message.sequence, message.subject) == (written, telemetry_subject(W, "log", job, 1))


async def test_random_disconnects_on_a_real_stream_lose_and_repeat_nothing(nc: Client) -> None:
    feed, job = NatsFeed(nc), uuid4()
    choose = random.Random(11)
    written: list[int] = []

    async def write() -> None:
        for n in range(300):
            written.append(await log(nc, job, f"line {n}", attempt=1 + n // 100))
            if n % 7 == 0:
                await log(nc, uuid4(), "another job's")

    async with hub_on(feed) as hub:
        writing = asyncio.create_task(write())
        seen: list[int] = []
        while not writing.done() or seen != written:
            chunks = EventStreams(hub, feed, 0.1).open(reading(job, seen[-1] if seen else 0))
            listener = Listener(chunks)
            wanted = min(choose.randint(1, 40), 300 - len(seen))
            await listener.until(wanted)
            await chunks.aclose()  # type: ignore[attr-defined]
            seen += [said.id for said in listener.said if said.id is not None]
        await writing

    assert seen == written
    assert len(seen) == 300


def encode_data(message: FeedMessage) -> bytes:
    return encode("event", message.data.decode(), message.sequence)


async def test_a_stream_survives_the_death_of_the_server(tmp_path: Path) -> None:
    subject = f"events.{W}.job.{uuid4()}"
    async with nats_server(tmp_path / "mortal") as server:
        reader = await connect(
            server.url, user=None, password=None, name="reader", inbox_prefix="_INBOX_test"
        )
        feed = NatsFeed(reader)
        async with hub_on(feed) as hub:
            chunks = EventStreams(hub, feed, 0.1).open(Reading("EVENTS", subject, 0, encode_data))
            listener = Listener(chunks)
            await reader.jetstream().publish(subject, b'"before"')
            await listener.until(1)
            await server.kill()
            await server.start()
            writer = await nats.connect(server.url)  # ahead of the reader's own reconnect
            await writer.jetstream().publish(subject, b'"while it was away"')
            await writer.close()
            said = await listener.until(2)
        await reader.close()

    assert [one.data for one in said] == ["before", "while it was away"]


async def test_a_server_that_is_gone_is_told_as_the_store_being_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.nats_feed.TIMEOUT_S", 0.2)
    async with nats_server(tmp_path / "gone") as server:
        client = await connect(
            server.url, user=None, password=None, name="test", inbox_prefix="_INBOX_test"
        )
        feed = NatsFeed(client)
        await feed.state("EVENTS")
        await server.kill()

        for asked in (
            feed.page("EVENTS", "events.>", 0, 1),
            feed.last("EVENTS", f"events.{W}.job.{uuid4()}"),
            feed.state("EVENTS"),
            feed.emit(W, uuid4(), lines("x"), message_id=uuid4()),
        ):
            with pytest.raises(StoreUnavailable):
                await asked
        with suppress(OSError):  # there is nobody to say goodbye to
            await client.close()


def request(model: UUID, texts: int = 1, labels: int = 2, chars: int = 10) -> PredictRequest:
    return PredictRequest(
        request_id="r",
        workspace=W,
        model_id=model,
        version_id=UUID(int=1),
        base_model="b",
        labels=tuple(f"label {n}" for n in range(labels)),
        adapter=(),
        max_length=128,
        texts=tuple(f"{n}".rjust(chars, "\n") for n in range(texts)),
    )


@asynccontextmanager
async def agent(nc: Client, model: UUID) -> AsyncIterator[list[int]]:
    sizes: list[int] = []

    async def answer(msg: Msg) -> None:
        asked = PredictRequest.model_validate_json(msg.data)
        sizes.append(len(msg.data))
        found = tuple(
            Prediction(label=text.strip(), scores=dict.fromkeys(asked.labels, 0.123456789))
            for text in asked.texts
        )
        reply = PredictReply(request_id=asked.request_id, predictions=found, seconds=0.5)
        await msg.respond(reply.model_dump_json().encode())

    subscription = await nc.subscribe(f"infer.{W}.{model}", cb=answer)
    try:
        yield sizes
    finally:
        await subscription.unsubscribe()


async def test_texts_that_do_not_fit_into_one_message_come_back_in_order(nc: Client) -> None:
    model = uuid4()
    async with agent(nc, model) as sizes:
        reply = await NatsInference(nc).predict(
            request(model, texts=256, labels=200, chars=5000), timeout_s=20
        )

    assert reply.error is None
    assert [one.label for one in reply.predictions] == [str(n) for n in range(256)]
    assert len(sizes) > 1
    assert max(sizes) < 1_000_000
    assert reply.seconds == 0.5 * len(sizes)


async def test_nobody_who_serves_is_told_at_once(nc: Client) -> None:
    reply = await NatsInference(nc).predict(request(uuid4()), timeout_s=20)

    assert reply.error is not None
    assert (reply.error.code, reply.error.retryable) == ("no_agent", True)


async def test_an_agent_that_does_not_answer_is_not_waited_for_for_ever(nc: Client) -> None:
    model = uuid4()
    subscription = await nc.subscribe(f"infer.{W}.{model}")

    reply = await NatsInference(nc).predict(request(model), timeout_s=0.1)

    await subscription.unsubscribe()
    assert reply.error is not None
    assert reply.error.code == "timed_out"


async def test_an_answer_that_is_none_is_an_error(nc: Client) -> None:
    model = uuid4()

    async def nonsense(msg: Msg) -> None:
        await msg.respond(b"nonsense")

    subscription = await nc.subscribe(f"infer.{W}.{model}", cb=nonsense)

    reply = await NatsInference(nc).predict(request(model), timeout_s=5)

    await subscription.unsubscribe()
    assert reply.error is not None
    assert reply.error.code == "bad_reply"


def test_batches_hold_every_text_once_and_are_small() -> None:
    texts = [f"{n}" + "x" * (n * 997 % 20_000) for n in range(256)]

    groups = list(batches(texts, ["a", "b"]))

    assert [text for group in groups for text in group] == texts
    assert all(sum(map(len, group)) <= BATCH_BYTES for group in groups)
