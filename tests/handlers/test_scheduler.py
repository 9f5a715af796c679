"""The scheduler on a log in memory, with a clock that is set by hand."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest

from domain.agents.events import AgentDrained, AgentEnrolled
from domain.catalog import UnknownType
from domain.errors import StoreUnavailable
from domain.jobs.events import JobEvent
from domain.messages import Event, History, StreamId
from domain.queues.events import WorkAssigned, WorkQueued
from domain.work import HeldWork
from handlers.follow_ups import queue_stream
from handlers.scheduler import Scheduler
from tests.domain import test_evaluation as evaluation
from tests.domain import test_job as job
from tests.handlers.inside import Inside
from tests.samples import AGENT, EVALUATION, JOB, METHOD, OTHER_AGENT, WORKSPACE, presence

QUEUE = queue_stream(WORKSPACE).id
HELD = HeldWork(work_id=JOB, attempt=1)


class Time:
    """Both clocks of the scheduler move together."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self.uptime = 1000.0

    def passes(self, seconds: float) -> None:
        self.uptime += seconds
        self._inside.now += timedelta(seconds=seconds)


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
def time(inside: Inside) -> Time:
    return Time(inside)


@pytest.fixture
async def scheduler(inside: Inside, time: Time) -> Scheduler:
    for agent in (AGENT, OTHER_AGENT):
        enrolled = AgentEnrolled(
            agent_id=agent, name="box", accelerator="cpu", memory_bytes=1, methods=(METHOD,)
        )
        await inside.happened("agent", agent, enrolled)
    clock: Callable[[], float] = lambda: time.uptime  # noqa: E731
    return Scheduler(
        WORKSPACE, inside.store, inside.histories, inside.bus, lambda: inside.now, clock
    )


async def running(inside: Inside, scheduler: Scheduler) -> None:
    """A job that the agent has claimed, and says so."""
    await inside.happened("job", JOB, job.submitted)
    await inside.react()
    scheduler.saw(presence())
    await scheduler.tick()
    await inside.happened("job", JOB, job.claimed(), job.started())
    scheduler.saw(presence(AGENT, HELD))


async def queued(inside: Inside, *numbers: int) -> None:
    for number in numbers:
        work = WorkQueued(work_id=UUID(int=number), kind="train", method=METHOD, attempt=1)
        await inside.happened("queue", QUEUE, work)


async def test_waiting_work_goes_to_a_free_agent_at_once(
    inside: Inside, scheduler: Scheduler
) -> None:
    await queued(inside, 1)
    scheduler.saw(presence())

    await scheduler.tick()

    assert (await inside.types())[-1] == "WorkAssigned"


async def test_all_slots_of_all_agents_are_filled_and_no_more(
    inside: Inside, scheduler: Scheduler
) -> None:
    for number in range(1, 6):
        await inside.happened("job", UUID(int=number), job.submitted)
    await queued(inside, 1, 2, 3, 4, 5)
    scheduler.saw(presence(AGENT, slots=2))
    scheduler.saw(presence(OTHER_AGENT, slots=1))

    await scheduler.tick()
    await scheduler.tick()

    assert (await inside.types()).count("WorkAssigned") == 3


async def test_a_drained_agent_is_given_nothing(inside: Inside, scheduler: Scheduler) -> None:
    await inside.happened("agent", AGENT, AgentDrained(agent_id=AGENT))
    await queued(inside, 1)
    scheduler.saw(presence())

    await scheduler.tick()

    assert "WorkAssigned" not in await inside.types()


async def test_an_agent_that_never_enrolled_is_given_nothing(
    inside: Inside, scheduler: Scheduler
) -> None:
    await queued(inside, 1)
    scheduler.saw(presence(UUID(int=5)))

    await scheduler.tick()

    assert "WorkAssigned" not in await inside.types()


async def test_a_silent_agents_job_goes_to_another(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await running(inside, scheduler)

    time.passes(11)
    scheduler.saw(presence(OTHER_AGENT))
    await scheduler.tick()
    await inside.react()
    await scheduler.tick()
    await inside.react()

    types = await inside.types()
    assert types.count("JobInterrupted") == 1
    assert inside.handed[-1].agent_id == str(OTHER_AGENT)
    assert inside.handed[-1].message.attempt == 2


async def test_an_agent_that_speaks_keeps_its_job(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await running(inside, scheduler)

    for _ in range(60):
        time.passes(1)
        scheduler.saw(presence(AGENT, HELD))
        await scheduler.tick()

    assert "JobInterrupted" not in await inside.types()


async def test_nobody_is_silent_while_this_process_cannot_hear(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await running(inside, scheduler)

    time.passes(60)
    scheduler.connected()
    await scheduler.tick()
    assert "JobInterrupted" not in await inside.types()

    time.passes(11)
    await scheduler.tick()
    assert "JobInterrupted" in await inside.types()


async def test_nobody_is_silent_because_this_process_stood_still(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await running(inside, scheduler)
    stop = asyncio.Event()
    loop = asyncio.create_task(scheduler.run(stop))
    await asyncio.sleep(0)  # it has looked once and rests

    time.passes(60)
    scheduler.wake()
    for _ in range(5):
        await asyncio.sleep(0)

    assert "JobInterrupted" not in await inside.types()
    stop.set()
    scheduler.wake()
    await loop


async def test_a_restarted_agents_attempt_is_over(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await running(inside, scheduler)

    time.passes(3)
    scheduler.saw(presence(AGENT, boot_id="boot-2"))
    await scheduler.tick()

    assert (await inside.types())[-1] == "JobInterrupted"


async def test_an_attempt_is_expired_once(inside: Inside, scheduler: Scheduler, time: Time) -> None:
    await running(inside, scheduler)
    time.passes(11)

    for _ in range(3):
        await scheduler.tick()

    assert inside.commands().count("ExpireLease") == 1


async def test_what_is_taken_back_says_by_which_event_it_was_given(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await running(inside, scheduler)
    everything = await inside.store.everything()
    (given,) = [one for one in everything if isinstance(one.event, WorkAssigned)]
    time.passes(11)

    await scheduler.tick()

    (expire,) = [one for one in inside.bus.sent if type(one.command).__name__ == "ExpireLease"]
    assert (expire.causation_id, expire.correlation_id) == (given.id, given.correlation_id)


async def test_a_lost_evaluation_is_taken_back_too(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await inside.happened("evaluation", EVALUATION, evaluation.requested)
    await inside.react()
    scheduler.saw(presence())
    await scheduler.tick()
    await inside.happened("evaluation", EVALUATION, evaluation.started())

    time.passes(11)
    await scheduler.tick()

    assert (await inside.types())[-1] == "EvaluationInterrupted"


@pytest.mark.parametrize("history", [[job.submitted, job.cancelled(0)], []])
async def test_work_that_has_ended_does_not_keep_its_slot(
    inside: Inside, scheduler: Scheduler, history: list[JobEvent]
) -> None:
    await inside.happened("job", JOB, *history)
    await inside.happened(
        "queue", QUEUE, WorkQueued(work_id=JOB, kind="train", method=METHOD, attempt=1)
    )
    scheduler.saw(presence())

    await scheduler.tick()
    await scheduler.tick()

    assert (await inside.types())[-2:] == ["WorkAssigned", "WorkWithdrawn"]


async def test_the_loop_outlives_a_log_that_is_away_and_a_bug(
    inside: Inside, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queued(inside, 1)
    scheduler.saw(presence())
    stop = asyncio.Event()
    read = inside.store.read
    problems: list[Exception] = [StoreUnavailable("away"), RuntimeError("a bug")]

    async def failing(
        stream: StreamId, after: int = 0, *, limit: int | None = None
    ) -> History[Event]:
        if problems:
            scheduler.wake()
            raise problems.pop()
        return await read(stream, after, limit=limit)

    monkeypatch.setattr(inside.store, "read", failing)

    loop = asyncio.create_task(scheduler.run(stop))
    async with asyncio.timeout(10):
        while "WorkAssigned" not in await inside.types():
            await asyncio.sleep(0.01)
    stop.set()
    await loop


async def test_work_whose_log_cannot_be_read_keeps_nobody_else_waiting(
    inside: Inside, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running(inside, scheduler)
    await queued(inside, 1)
    read = inside.store.read

    async def unreadable(
        stream: StreamId, after: int = 0, *, limit: int | None = None
    ) -> History[Event]:
        if stream.id == JOB:
            raise UnknownType("JobTeleported")
        return await read(stream, after, limit=limit)

    monkeypatch.setattr(inside.store, "read", unreadable)
    scheduler.saw(presence(OTHER_AGENT))

    await scheduler.tick()

    assert (await inside.types()).count("WorkAssigned") == 2


async def test_an_attempt_that_was_never_queued_is_queued_after_all(
    inside: Inside, scheduler: Scheduler, time: Time
) -> None:
    await running(inside, scheduler)
    await inside.happened("job", JOB, job.interrupted())  # and nothing reacts to it
    scheduler.saw(presence())
    await scheduler.tick()
    before = await assigned_or_queued(inside)

    time.passes(29)
    scheduler.saw(presence())
    await scheduler.tick()
    early = await assigned_or_queued(inside)
    time.passes(2)
    scheduler.saw(presence())
    await scheduler.tick()

    assert before == early == [("WorkQueued", 1), ("WorkAssigned", 1)]
    assert (await assigned_or_queued(inside))[2] == ("WorkQueued", 2)


async def assigned_or_queued(inside: Inside) -> list[tuple[str, int]]:
    history = await inside.store.read(queue_stream(WORKSPACE))
    return [
        (recorded.event.type, recorded.event.attempt)
        for recorded in history.events
        if isinstance(recorded.event, WorkQueued | WorkAssigned)
    ]
