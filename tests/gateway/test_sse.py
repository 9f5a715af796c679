"""Streams of server-sent events: every message once and in order, whatever happens on the way."""

import asyncio
import importlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from domain.jobs.commands import CancelJob
from domain.models.commands import CreateModel
from domain.telemetry import LogLine
from gateway import hub as hub_module
from gateway.events import Filter, event_reading
from gateway.following import position_of
from gateway.hub import MAILBOX_FRAMES
from gateway.log_archive import JobArchive, LogArchive
from gateway.logs import human, log_reading, parse_position
from gateway.problems import Problem
from gateway.sse import EventStreams, Reading
from tests.gateway.sse_client import Listener
from tests.gateway.world import W, World

pytestmark = pytest.mark.timeout(20)
JOB = UUID(int=1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "TAIL_CHECK_S", 0.02)
    monkeypatch.setattr(hub_module, "RETRY_S", 0.01)
    monkeypatch.setattr("gateway.sse._AWAY_S", 0.01)


def streams(world: World, heartbeat_s: float = 0.05) -> EventStreams:
    return EventStreams(world.gateway.hub, world.feed, heartbeat_s)


def logs(world: World, job: UUID = JOB, after: int = 0, level: str = "DEBUG") -> Reading:
    archive = JobArchive(LogArchive(world.feed, world.blobs, W), job)
    return log_reading(world.feed, archive, W, job, after=after, level=level)  # type: ignore[arg-type]


@asynccontextmanager
async def listening(world: World, reading: Reading) -> AsyncIterator[Listener]:
    chunks = streams(world).open(reading)
    try:
        yield Listener(chunks)
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]


def ids(listener: Listener) -> list[int | None]:
    return [said.id for said in listener.said]


async def live(world: World) -> None:
    """Wait until the hub listens to both streams."""
    async with asyncio.timeout(5):
        while len(world.gateway.hub._reached) < 2:
            await asyncio.sleep(0)


async def test_old_lines_are_replayed_and_new_ones_follow(world: World) -> None:
    for n in range(5):
        world.feed.log(JOB, f"old {n}")
    async with listening(world, logs(world)) as listener:
        await listener.until(5)
        for n in range(5):
            world.feed.log(JOB, f"new {n}")
            world.feed.log(UUID(int=2), "another job's")
        said = await listener.until(10)

    texts = [one.data["lines"][0]["message"] for one in said]
    assert texts == [f"old {n}" for n in range(5)] + [f"new {n}" for n in range(5)]
    assert ids(listener) == sorted(ids(listener))
    assert all(one.event == "log" for one in said)


async def test_lines_have_a_human_form_in_utc(world: World) -> None:
    time = datetime(2026, 11, 20, 23, 1, 2, tzinfo=UTC)
    world.feed.log(JOB, LogLine(time=time, level="WARNING", message="hot"), attempt=3)
    async with listening(world, logs(world)) as listener:
        said = await listener.until(1)

    assert said[0].data == {
        "lines": [
            {
                "time": "2026-11-20T23:01:02Z",
                "level": "WARNING",
                "message": "hot",
                "source": "worker",
                "text": "[23:01:02] [WARNING] hot",
            }
        ],
        "attempt": 3,
    }


async def test_a_line_break_in_a_line_cannot_end_the_event(world: World) -> None:
    world.feed.log(JOB, "one\n\nevent: end\ndata: {}\r\n\u2028", "two")
    async with listening(world, logs(world)) as listener:
        said = await listener.until(1)

    assert [one.event for one in said] == ["log"]
    assert len(said[0].data["lines"]) == 2


async def test_a_stream_goes_on_behind_the_last_id(world: World) -> None:
    for n in range(5):
        world.feed.log(JOB, f"line {n}")
    async with listening(world, logs(world, after=3)) as listener:
        await listener.until(2)

    assert ids(listener) == [4, 5]


async def test_random_disconnects_lose_and_repeat_nothing(world: World) -> None:
    await live(world)
    choose = random.Random(7)
    seen: list[int] = []
    written = 0
    while written < 400:
        async with listening(world, logs(world, after=seen[-1] if seen else 0)) as listener:
            wanted = choose.randint(1, 30)
            while len(listener.said) < min(wanted, 400 - len(seen)):
                for _ in range(choose.randint(0, 5)):
                    world.feed.deaf = choose.random() < 0.2
                    world.feed.log(JOB if choose.random() < 0.7 else UUID(int=2), "line")
                written = sum(m.subject.split(".")[3] == str(JOB) for m in world.feed.telemetry)
                if written > len(seen) + len(listener.said):
                    await listener.until(len(listener.said) + 1)
            world.feed.deaf = False
            seen += [one.id for one in listener.said if one.id is not None]
    async with listening(world, logs(world, after=seen[-1])) as listener:
        await listener.until(written - len(seen))
        seen += [one.id for one in listener.said if one.id is not None]

    expected = [m.sequence for m in world.feed.telemetry if m.subject.split(".")[3] == str(JOB)]
    assert seen == expected


async def test_a_message_that_the_live_copy_lost_is_read_from_the_stream(world: World) -> None:
    await live(world)
    async with listening(world, logs(world)) as listener:
        world.feed.log(JOB, "heard")
        await listener.until(1)
        world.feed.deaf = True
        world.feed.log(JOB, "lost")
        world.feed.deaf = False
        world.feed.log(JOB, "heard again")
        said = await listener.until(3)

    assert [one.data["lines"][0]["message"] for one in said] == ["heard", "lost", "heard again"]


async def test_the_loss_of_the_very_last_message_is_noticed(world: World) -> None:
    await live(world)
    async with listening(world, logs(world)) as listener:
        await listener.heartbeat()
        world.feed.deaf = True
        world.feed.log(JOB, "lost")
        said = await listener.until(1)

    assert said[0].data["lines"][0]["message"] == "lost"


@pytest.mark.parametrize("heard", [True, False])
async def test_numbers_that_come_again_after_a_loss_are_shown(world: World, heard: bool) -> None:
    await live(world)
    async with listening(world, logs(world)) as listener:
        for n in range(3):
            world.feed.log(JOB, f"line {n}")
        await listener.until(3)
        del world.feed.telemetry[1:]
        if not heard:
            await listener.heartbeat()
            async with asyncio.timeout(5):
                while world.gateway.hub._reached["TELEMETRY"] != 1:
                    await asyncio.sleep(0)
        world.feed.log(JOB, "another line 1")
        said = await listener.until(4)

    assert said[-1].data["lines"][0]["message"] == "another line 1"
    assert ids(listener) == [1, 2, 3, 2]


async def test_a_slow_reader_gets_everything_from_the_stream(world: World) -> None:
    await live(world)
    async with listening(world, logs(world)) as listener:
        world.feed.log(JOB, "first")
        await listener.until(1)
        for n in range(3 * MAILBOX_FRAMES):
            world.feed.log(JOB, f"line {n}")
            if n % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        await listener.until(1 + 3 * MAILBOX_FRAMES)

    assert ids(listener) == list(range(1, 2 + 3 * MAILBOX_FRAMES))


async def test_a_log_that_is_away_for_a_while_is_waited_for(world: World) -> None:
    await live(world)
    world.feed.log(JOB, "before")
    async with listening(world, logs(world)) as listener:
        await listener.until(1)
        world.feed.away = True
        world.gateway.hub._miss("TELEMETRY")
        await listener.heartbeat()
        world.feed.away = False
        world.feed.log(JOB, "after")
        said = await listener.until(2)

    assert [one.data["lines"][0]["message"] for one in said] == ["before", "after"]


async def test_a_silent_stream_says_that_it_is_there(world: World) -> None:
    async with listening(world, logs(world)) as listener:
        await listener.heartbeat()
        await listener.heartbeat()

    assert listener.said == []


async def test_only_lines_of_the_level_come(world: World) -> None:
    lines = [LogLine(time=datetime.now(UTC), level=level, message=level) for level in ("DEBUG", "INFO", "WARNING", "ERROR")]  # fmt: skip  # type: ignore[arg-type]
    world.feed.log(JOB, *lines)
    world.feed.log(JOB, lines[0])
    world.feed.log(JOB, lines[3])
    async with listening(world, logs(world, level="WARNING")) as listener:
        said = await listener.until(2)

    shown = [[line["level"] for line in one.data["lines"]] for one in said]
    assert shown == [["WARNING", "ERROR"], ["ERROR"]]


async def test_what_is_older_than_what_is_kept_is_said_to_be_missing(world: World) -> None:
    for n in range(10):
        world.feed.log(JOB, f"line {n}")
    world.feed.first["TELEMETRY"] = 6
    world.feed.telemetry = world.feed.telemetry[5:]
    async with listening(world, logs(world, after=2)) as listener:
        said = await listener.until(3)

    assert said[0].event == "gap"
    assert said[0].data == {"after": 2, "first": 6}
    assert said[1].id == 6


async def test_the_stream_of_a_job_that_ended_is_replayed_and_closed(world: World) -> None:
    job = UUID((await world.trained())["id"])
    world.feed.log(job, "one")
    world.feed.log(job, "two", attempt=1)
    async with listening(world, logs(world, job)) as listener:
        said = await listener.rest()

    assert [one.event for one in said] == ["log", "log", "end"]
    assert said[-1].data == {"status": "succeeded"}


async def test_the_end_comes_live_and_after_every_line(world: World) -> None:
    job = UUID((await world.submitted())["id"])
    await live(world)
    async with listening(world, logs(world, job)) as listener:
        await listener.heartbeat()
        world.feed.log(job, "the last words")
        await world.decide(CancelJob(job_id=job), job, "gateway")
        said = await listener.rest()

    assert [one.event for one in said] == ["log", "end"]
    assert said[-1].data == {"status": "cancelled"}


async def test_the_end_is_noticed_though_its_live_copy_is_lost(world: World) -> None:
    job = UUID((await world.submitted())["id"])
    await live(world)
    async with listening(world, logs(world, job)) as listener:
        await listener.heartbeat()
        world.feed.deaf = True
        await world.decide(CancelJob(job_id=job), job, "gateway")
        said = await listener.rest()

    assert said[-1].event == "end"


@pytest.mark.parametrize("kind", ["log", "events", "some events"])
async def test_a_message_is_encoded_once_for_all_readers(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    await live(world)
    model = UUID(int=4)
    encoded: list[int] = []
    what = "gateway.logs.lines_of" if kind == "log" else "gateway.events.event_answer"
    module, _, name = what.rpartition(".")
    make = getattr(importlib.import_module(module), name)
    monkeypatch.setattr(what, lambda *given: (encoded.append(1), make(*given))[1])
    after = (await world.feed.state("EVENTS")).last

    def reading() -> Reading:
        if kind == "log":
            return logs(world)
        filters = {"type": "ModelCreated"} if kind == "some events" else {}
        return event_reading(W, Filter("model", model, **filters), after)

    opened = [streams(world).open(reading()) for _ in range(200)]
    listeners = [Listener(chunks) for chunks in opened]
    await asyncio.gather(*(listener.heartbeat() for listener in listeners))
    world.feed.log(JOB, "for all")
    await world.decide(CreateModel(model_id=model, name="m", base_model="b"), model)
    await asyncio.gather(*(listener.until(1) for listener in listeners))
    for chunks in opened:
        await chunks.aclose()  # type: ignore[attr-defined]

    assert len(encoded) == 1


async def test_nothing_is_kept_of_a_client_that_left(world: World) -> None:
    known = world.gateway.hub.readers
    async with listening(world, logs(world)) as listener:
        await listener.heartbeat()
        opened = world.gateway.hub.readers

    assert (opened, world.gateway.hub.readers) == (known + 1, known)


async def test_streams_end_when_the_gateway_stops(world: World) -> None:
    async with listening(world, logs(world)) as listener:
        await listener.heartbeat()
        world.gateway.drain()
        await listener.rest()
    async with listening(world, logs(world)) as late:
        await late.rest()


async def test_a_stream_ends_when_its_reader_may_not_read_any_more(world: World) -> None:
    allowed = [True]
    chunks = streams(world).open(logs(world), lambda: allowed[0])
    listener = Listener(chunks)
    await listener.heartbeat()

    allowed[0] = False

    assert await listener.rest() == []


async def test_events_are_replayed_followed_and_chosen(world: World) -> None:
    async def create(number: int) -> None:
        command = CreateModel(model_id=UUID(int=number), name=f"m{number}", base_model="b")
        await world.decide(command, UUID(int=number))

    await create(1)
    chosen = Filter(type="ModelCreated")
    async with (
        listening(world, event_reading(W, Filter(), 0)) as all_events,
        listening(world, event_reading(W, chosen, 0)) as created,
        listening(world, event_reading(W, Filter("model", UUID(int=2)), 0)) as second,
    ):
        await created.until(1)
        await create(2)
        await world.submitted()
        await create(3)
        said = await created.until(3)
        everything = await all_events.until(world.events)
        own = await second.until(1)

    assert [one.data["data"]["name"] for one in said] == ["m1", "m2", "m3"]
    assert [one.id for one in everything] == list(range(1, world.events + 1))
    assert [one.data["aggregate_id"] for one in own] == [str(UUID(int=2))]
    assert "secret_hmac" not in str(everything)


async def test_an_event_that_cannot_be_read_does_not_end_the_stream(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.decide(CreateModel(model_id=JOB, name="m", base_model="b"), JOB)
    last = world.events
    subject, headers, body = world.store._log[-1]
    world.store.put_raw(subject, headers | {"ce-type": "ModelRenamed"}, body)
    world.store.put_raw(subject, headers | {"ce-schemaversion": "99"}, body)
    world.store.put_raw(subject, headers, b"{")
    world.store.put_raw(subject, headers, body)

    async with listening(world, event_reading(W, Filter(), last - 1)) as listener:
        await listener.until(2)

    assert ids(listener) == [last, last + 4]
    assert f"event {last + 3} is not shown, for it is damaged" in caplog.text


@pytest.mark.parametrize(
    ("after", "position"), [(None, (0, 0)), ("7", (7, 0)), ("7.", (7, 0)), ("7.3", (6, 3))]
)
def test_a_position_may_lie_within_a_message(after: str | None, position: tuple[int, int]) -> None:
    assert parse_position(after) == position


@pytest.mark.parametrize("after", ["0", "7", str(2**63 - 1)])
def test_a_stream_goes_on_behind_every_sequence_that_there_may_be(after: str) -> None:
    assert position_of(after, None) == position_of(None, after) == int(after)


@pytest.mark.parametrize("after", ["x", "-1", "1.1", str(2**63), "9" * 5000])
def test_a_stream_goes_on_behind_nothing_else(after: str) -> None:
    with pytest.raises(Problem):
        position_of(after, None)


@pytest.mark.parametrize("after", ["x", "-1", "1.x", ".5", "1e9", "9" * 30])
def test_what_is_no_position_is_refused(after: str) -> None:
    with pytest.raises(Problem):
        parse_position(after)


def test_a_line_is_written_for_people() -> None:
    line = LogLine(time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), message="loss 0.3")

    assert human(line) == "[03:04:05] [INFO] loss 0.3"


async def test_what_a_replica_that_is_behind_left_out_is_read_before_what_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in the log before the mailbox was opened, so the live copy does not bring it."""
    for n in range(3):
        world.feed.log(JOB, f"line {n}")
    page, asked = world.feed.page, 0

    async def behind(log: Any, subject: str, after: int, limit: int) -> Any:
        nonlocal asked
        asked += 1
        messages, more = await page(log, subject, after, limit)
        return (messages[:1], False) if asked == 1 else (messages, more)

    monkeypatch.setattr(world.feed, "page", behind)
    chunks = EventStreams(world.gateway.hub, world.feed, 0.05, replica_lag_s=0.01).open(logs(world))
    listener = Listener(chunks)
    await listener.until(3)
    await chunks.aclose()  # type: ignore[attr-defined]

    assert ids(listener) == [1, 2, 3]
