"""What every event store promises, asked of the one in memory and of the real one."""

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from adapters.jetstream_event_store import PAGE, JetStreamEventStore
from adapters.memory_event_store import MemoryEventStore
from adapters.nats_connection import connect
from domain.agents.commands import DrainAgent
from domain.agents.events import AgentDrained, AgentEnrolled
from domain.catalog import UnknownType
from domain.errors import NotStorable, PayloadTooLarge, VersionConflict
from domain.jobs.events import EpochCompleted
from domain.messages import Command, Envelope, StreamId, event_id
from domain.wire import encode_event
from handlers.ports import EventStore
from tests.infra import nats_server

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
AGENT = UUID(int=7)
ENROLLED = AgentEnrolled(
    agent_id=AGENT, name="café", accelerator="cpu", memory_bytes=1, methods=("m",)
)
DRAINED = AgentDrained(agent_id=AGENT)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("jetstream", marks=pytest.mark.infra),
        pytest.param("replicated", marks=pytest.mark.infra),
    ],
    scope="module",
)
async def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield MemoryEventStore()
        return
    async with nats_server(Path(tmp_path_factory.mktemp("nats"))) as server:
        nc = await connect(
            server.url, user=None, password=None, name="test", inbox_prefix="_INBOX_handlers"
        )
        yield JetStreamEventStore(nc, replicated=request.param == "replicated")
        await nc.close()


def stream(number: int) -> StreamId:
    return StreamId("default", "agent", UUID(int=number))


def cause(stream_: StreamId, number: int) -> Envelope[Command]:
    return Envelope(
        id=UUID(int=number),
        stream=stream_,
        source="gateway",
        actor="key:ä b",
        correlation_id=UUID(int=1),
        causation_id=None,
        sent_at=NOW,
        command=DrainAgent(agent_id=AGENT),
    )


async def append(
    store: EventStore,
    to: StreamId,
    *events: AgentEnrolled | AgentDrained,
    revision: int,
    command: int,
) -> int:
    return await store.append(
        to, events, expected_revision=revision, cause=cause(to, command), recorded_at=NOW
    )


async def test_a_stream_that_does_not_exist_is_empty(store: EventStore) -> None:
    history = await store.read(stream(100))

    assert history.events == ()
    assert history.revision == 0


async def test_what_was_appended_is_read_back_with_who_when_and_why(store: EventStore) -> None:
    to = stream(101)

    sequence = await append(store, to, ENROLLED, revision=0, command=1010)

    (recorded,) = (await store.read(to)).events
    assert recorded.event == ENROLLED
    assert recorded.sequence == sequence
    assert recorded.stream == to
    assert recorded.id == event_id(UUID(int=1010), 0)
    assert recorded.causation_id == UUID(int=1010)
    assert recorded.correlation_id == UUID(int=1)
    assert recorded.actor == "key:ä b"
    assert recorded.source == "gateway"
    assert recorded.recorded_at == NOW


async def test_reading_after_a_revision_gives_only_what_is_newer(store: EventStore) -> None:
    to = stream(102)
    first = await append(store, to, ENROLLED, revision=0, command=1020)
    await append(store, stream(1021), ENROLLED, revision=0, command=1021)
    second = await append(store, to, DRAINED, revision=first, command=1022)

    tail = await store.read(to, after=first)

    assert [recorded.sequence for recorded in tail.events] == [second]
    assert (await store.read(to, after=second)).events == ()


async def test_a_stale_writer_is_refused_and_leaves_no_trace(store: EventStore) -> None:
    to = stream(103)
    first = await append(store, to, ENROLLED, revision=0, command=1030)

    for stale in (0, first + 100):
        with pytest.raises(VersionConflict):
            await append(store, to, DRAINED, revision=stale, command=1031 + stale)

    assert (await store.read(to)).revision == first


async def test_several_events_are_recorded_all_or_none(store: EventStore) -> None:
    to = stream(104)

    last = await append(store, to, ENROLLED, DRAINED, revision=0, command=1040)
    with pytest.raises(VersionConflict):
        await append(store, to, ENROLLED, DRAINED, revision=0, command=1041)

    history = await store.read(to)
    assert [recorded.event for recorded in history.events] == [ENROLLED, DRAINED]
    assert history.revision == last
    assert history.events[1].id == event_id(UUID(int=1040), 1)


@pytest.mark.parametrize("events", [(ENROLLED,), (ENROLLED, DRAINED)])
async def test_an_append_whose_acknowledgement_was_lost_may_be_repeated(
    store: EventStore, events: tuple[AgentEnrolled | AgentDrained, ...]
) -> None:
    to = stream(105 + 1000 * len(events))
    command = 1050 + len(events)
    first = await append(store, to, *events, revision=0, command=command)

    again = await append(store, to, *events, revision=0, command=command)

    assert again == first
    assert len((await store.read(to)).events) == len(events)


async def test_a_repeat_is_found_behind_later_events(store: EventStore) -> None:
    to = stream(106)
    first = await append(store, to, ENROLLED, revision=0, command=1060)
    await append(store, to, DRAINED, revision=first, command=1061)

    assert await append(store, to, ENROLLED, revision=0, command=1060) == first


async def test_of_many_writers_at_once_exactly_one_wins(store: EventStore) -> None:
    to = stream(107)

    results = await asyncio.gather(
        *(append(store, to, ENROLLED, revision=0, command=10700 + n) for n in range(8)),
        return_exceptions=True,
    )

    assert sum(isinstance(result, VersionConflict) for result in results) == 7
    assert len((await store.read(to)).events) == 1


async def test_the_first_events_alone_can_be_asked_for(store: EventStore) -> None:
    to = stream(130)
    five = [ENROLLED.model_copy(update={"name": f"box {n}"}) for n in range(5)]
    await append(store, to, *five, revision=0, command=1300)

    first = await store.read(to, limit=2)
    rest = await store.read(to, first.revision, limit=9)

    assert [recorded.event for recorded in first.events] == five[:2]
    assert [recorded.event for recorded in rest.events] == five[2:]


async def test_a_long_stream_is_read_whole_and_in_order(store: EventStore) -> None:
    to = stream(108)
    revision = 0
    count = PAGE + 3
    for n in range(0, count, 100):  # batches keep it quick
        size = min(100, count - n)
        revision = await append(
            store, to, *([DRAINED] * size), revision=revision, command=1080000 + n
        )

    history = await store.read(to)

    sequences = [recorded.sequence for recorded in history.events]
    assert len(sequences) == count
    assert sequences == sorted(sequences)


async def test_an_event_that_does_not_fit_is_refused_and_leaves_no_trace(store: EventStore) -> None:
    to = stream(109)
    huge = ENROLLED.model_copy(update={"name": "x" * 70_000})

    with pytest.raises(PayloadTooLarge):
        await append(store, to, ENROLLED, huge, revision=0, command=1090)

    assert (await store.read(to)).events == ()


async def test_an_event_that_could_not_be_read_back_is_refused(store: EventStore) -> None:
    to = stream(109)
    epoch = EpochCompleted(
        job_id=to.id,
        attempt=1,
        epoch=1,
        step=1,
        train_loss=math.nan,
        validation_loss=None,
        validation_accuracy=None,
        seconds=1.0,
    )

    with pytest.raises(NotStorable):
        await append(store, to, epoch, revision=0, command=1091)

    assert (await store.read(to)).events == ()


async def test_a_number_that_no_table_could_hold_is_refused(store: EventStore) -> None:
    to = stream(111)
    most = ENROLLED.model_copy(update={"memory_bytes": 2**63 - 1})

    more = ENROLLED.model_copy(update={"memory_bytes": 2**63})

    with pytest.raises(NotStorable, match="9223372036854775808"):
        await append(store, to, more, revision=0, command=1110)
    await append(store, to, most, revision=0, command=1111)

    assert [recorded.event for recorded in (await store.read(to)).events] == [most]


async def test_an_event_of_a_newer_build_stops_the_reader(store: EventStore) -> None:
    to = stream(110)
    headers, body = encode_event(
        DRAINED, event_id=UUID(int=1100), cause=cause(to, 1101), recorded_at=NOW
    )
    headers["ce-type"] = "AgentTeleported"
    if isinstance(store, MemoryEventStore):
        store.put_raw(to.subject, headers, body)
    else:
        assert isinstance(store, JetStreamEventStore)
        await store._nc.jetstream().publish(to.subject, body, headers=headers)

    with pytest.raises(UnknownType):
        await store.read(to)
