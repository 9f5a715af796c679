"""The feed and inference clients on a real server, and streams that survive its death."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from adapters.nats_connection import connect
from adapters.nats_feed import NatsFeed
from adapters.nats_inference import BATCH_BYTES, NatsInference, batches, parts
from domain.errors import StoreUnavailable
from domain.inference import (
    Begun,
    End,
    GenerateReply,
    GenerateRequest,
    InService,
    Piece,
    Refused,
    ServedModel,
)
from domain.subjects import (
    control_subject,
    inference_subject,
    serving_subject,
    telemetry_subject,
)
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


def test_rows_of_a_table_are_parted_like_texts() -> None:
    rows = tuple({"note": "x" * 1000, "number": float(at)} for at in range(900))
    asked = request(uuid4()).model_copy(update={"texts": (), "rows": rows})

    groups = [part.rows for part in parts(asked)]

    assert tuple(row for group in groups for row in group) == rows
    assert len(groups) > 1
    assert all(len(json.dumps(group)) <= 2 * BATCH_BYTES for group in groups)


def test_batches_hold_every_text_once_and_are_small() -> None:
    texts = [f"{n}" + "x" * (n * 997 % 20_000) for n in range(256)]

    groups = list(batches(texts, ["a", "b"]))

    assert [text for group in groups for text in group] == texts
    assert all(sum(map(len, group)) <= BATCH_BYTES for group in groups)


def question(*, prompt: str = "Where is it?") -> GenerateRequest:
    served = ServedModel(method="sft", version_id=None, base_model="finetrail/tiny", max_length=512)
    return GenerateRequest(request_id=uuid4().hex, workspace=W, served=served, prompt=prompt)


def begun(request: GenerateRequest) -> Begun:
    return Begun(request_id=request.request_id, prompt_tokens=3)


def piece(request: GenerateRequest, number: int) -> Piece:
    return Piece(request_id=request.request_id, number=number, text=f"{number} ", tokens=1)


def end(request: GenerateRequest) -> End:
    return End(
        request_id=request.request_id,
        reason="stop",
        prompt_tokens=3,
        completion_tokens=2,
        seconds=0.1,
        first_token_s=0.05,
    )


@dataclass
class Writer:
    """An agent that says what it is told to, and notes what is said to it."""

    nc: Client
    inbox: str = ""
    asked: list[GenerateRequest] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    async def say(self, *replies: GenerateReply) -> None:
        for reply in replies:
            await self.nc.publish(self.inbox, reply.model_dump_json().encode())

    async def until_heard(self, word: str) -> None:
        async with asyncio.timeout(5):
            while word not in self.heard:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def writer(
    nc: Client, model: UUID, script: Callable[[GenerateRequest], Sequence[GenerateReply]]
) -> AsyncIterator[Writer]:
    made = Writer(nc)

    async def on_request(msg: Msg) -> None:
        request = GenerateRequest.model_validate_json(msg.data)
        made.asked.append(request)
        made.inbox = msg.reply
        await made.say(*script(request))

    async def on_control(msg: Msg) -> None:
        assert msg.subject == control_subject(W, made.asked[-1].request_id)
        made.heard.append(msg.data.decode())

    subscriptions = [
        await nc.subscribe(inference_subject(W, model), cb=on_request),
        await nc.subscribe(f"control.{W}.*", cb=on_control),
    ]
    await nc.flush()
    yield made
    for subscription in subscriptions:
        await subscription.unsubscribe()


async def said_to(nc: Client, request: GenerateRequest, model: UUID) -> list[GenerateReply]:
    async with NatsInference(nc).generate(request, model) as replies:
        return [reply async for reply in replies]


async def test_a_text_comes_in_pieces_and_nobody_is_told_to_stop_behind_its_end(
    nc: Client,
) -> None:
    request, model = question(), uuid4()
    script = [begun(request), piece(request, 0), piece(request, 1), end(request)]
    async with writer(nc, model, lambda _: script) as agent_:
        said = await said_to(nc, request, model)
        await nc.flush()

    assert said == script
    assert agent_.asked == [request]
    assert agent_.heard == []


async def test_whoever_leaves_early_tells_the_agent_to_stop_and_listens_no_more(
    nc: Client,
) -> None:
    request, model = question(), uuid4()
    tasks, subscriptions = asyncio.all_tasks(), len(nc._subs)
    async with writer(nc, model, lambda asked: [begun(asked), piece(asked, 0)]) as agent_:
        async with NatsInference(nc).generate(request, model) as replies:
            assert await anext(replies) == begun(request)
            listening = len(nc._subs)
        await agent_.until_heard("cancel")
        left = len(nc._subs)

    assert agent_.heard == ["cancel"]
    assert (listening - subscriptions, left - subscriptions) == (3, 2)  # two are the agent's
    async with asyncio.timeout(5):
        while not asyncio.all_tasks() <= tasks:
            await asyncio.sleep(0.005)


async def test_a_cancelled_task_tells_the_agent_to_stop(nc: Client) -> None:
    request, model = question(), uuid4()
    async with writer(nc, model, lambda _: []) as agent_:
        asking = asyncio.create_task(said_to(nc, request, model))
        async with asyncio.timeout(5):
            while not agent_.asked:
                await asyncio.sleep(0.005)
        asking.cancel()
        await agent_.until_heard("cancel")
        await asyncio.gather(asking, return_exceptions=True)

    assert asking.cancelled()


async def test_an_agent_hears_now_and_then_that_somebody_listens(
    nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.nats_inference.KEEP_S", 0.01)
    request, model = question(), uuid4()
    async with (
        writer(nc, model, lambda asked: [begun(asked)]) as agent_,
        NatsInference(nc).generate(request, model) as replies,
    ):
        await anext(replies)
        await agent_.until_heard("keep")
        await agent_.say(end(request))
        rest = [reply async for reply in replies]

    assert rest == [end(request)]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (lambda asked: [begun(asked), piece(asked, 1)], "lost"),
        (lambda asked: [begun(asked), piece(asked, 0), piece(asked, 2), end(asked)], "lost"),
        (lambda asked: [begun(asked)], "silent"),
        (lambda _: [], "silent"),
    ],
)
async def test_an_answer_with_a_gap_or_without_an_end_is_refused_and_cancelled(
    nc: Client,
    monkeypatch: pytest.MonkeyPatch,
    script: Callable[[GenerateRequest], Sequence[GenerateReply]],
    code: str,
) -> None:
    monkeypatch.setattr("adapters.nats_inference.SILENCE_S", 0.1)
    request, model = question(), uuid4()
    async with writer(nc, model, script) as agent_:
        said = await said_to(nc, request, model)
        await agent_.until_heard("cancel")

    last = said[-1]
    assert isinstance(last, Refused)
    assert (last.error.code, last.error.retryable) == (code, True)


async def test_words_that_are_no_reply_are_refused(nc: Client) -> None:
    request, model = question(), uuid4()

    async def nonsense(msg: Msg) -> None:
        await msg.respond(b"nonsense")

    subscription = await nc.subscribe(inference_subject(W, model), cb=nonsense)
    said = await said_to(nc, request, model)
    await subscription.unsubscribe()

    assert [isinstance(one, Refused) and one.error.code for one in said] == ["bad_reply"]


async def test_a_model_that_nobody_serves_is_told_at_once(nc: Client) -> None:
    said = await said_to(nc, question(), uuid4())

    assert [isinstance(one, Refused) and one.error.code for one in said] == ["no_agent"]


async def test_a_text_that_is_too_long_to_be_sent_is_told_so(nc: Client) -> None:
    said = await said_to(nc, question(prompt="x" * 1_100_000), uuid4())

    (last,) = said
    assert isinstance(last, Refused)
    assert (last.error.code, last.error.retryable) == ("too_long", False)


async def test_a_server_that_is_gone_for_good_is_told(server: NatsServer) -> None:
    closed = await connect(
        server.url, user=None, password=None, name="closed", inbox_prefix="_INBOX_test"
    )
    await closed.close()

    said = await said_to(closed, question(), uuid4())

    assert [isinstance(one, Refused) and one.error.code for one in said] == ["no_connection"]


async def test_agents_that_ask_are_told_what_is_in_service_or_nothing(nc: Client) -> None:
    served = InService(models=(question().served,))
    answers = iter([None, served])

    async def ask() -> InService | None:
        return next(answers)

    await NatsInference(nc).tell_in_service(W, ask)
    await nc.flush()
    with pytest.raises(NatsTimeout):
        await nc.request(serving_subject(W), b"", timeout=0.1)
    told = await nc.request(serving_subject(W), b"", timeout=5)

    assert InService.model_validate_json(told.data) == served
