"""Streams that are kept folded: read in pages, once, and anew only where that is needed."""

import asyncio
from typing import Any

import pytest

from domain.errors import VersionConflict
from domain.messages import Event, History, Recorded, StreamId
from domain.queues.commands import Assign
from domain.queues.queue import decider, queue_id
from handlers import histories as module
from handlers.histories import Decided, Histories
from tests import samples
from tests.domain.test_queue import queued, work
from tests.handlers.inside import Inside, envelope

STREAM = StreamId(samples.WORKSPACE, "queue", queue_id(samples.WORKSPACE))


@pytest.fixture
async def inside() -> Inside:
    made = Inside()
    await made.happened("queue", STREAM.id, *(queued(number) for number in range(1, 8)))
    return made


@pytest.fixture
def reads(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Behind which event each read began."""
    asked: list[int] = []
    read = inside.store.read

    async def watched(
        stream: StreamId, after: int = 0, *, limit: int | None = None
    ) -> History[Event]:
        asked.append(after)
        await asyncio.sleep(0)
        return await read(stream, after, limit=limit)

    monkeypatch.setattr(inside.store, "read", watched)
    monkeypatch.setattr(module, "PAGE", 3)
    return asked


async def test_a_long_stream_is_read_in_pages(inside: Inside, reads: list[int]) -> None:
    folded = await Histories(inside.store).load(STREAM, decider)

    assert reads == [0, 3, 6]
    assert len(folded.state.waiting) == 7
    assert folded.revision == 7


async def test_what_several_want_at_once_is_read_once(inside: Inside, reads: list[int]) -> None:
    kept = Histories(inside.store)

    await asyncio.gather(*(kept.load(STREAM, decider) for _ in range(3)))

    assert reads == [0, 3, 6, 7, 7]


async def test_who_listens_hears_every_event_once_and_in_order(inside: Inside) -> None:
    kept, heard = Histories(inside.store), list[Recorded[Event]]()
    kept.listen(STREAM, heard.append)

    await kept.load(STREAM, decider)
    await inside.happened("queue", STREAM.id, queued(8))
    await kept.load(STREAM, decider)

    assert [recorded.sequence for recorded in heard] == list(range(1, 9))


async def conflict(kept: Histories, revision: int) -> None:
    with pytest.raises(VersionConflict):
        await kept.append(
            STREAM,
            [queued(99)],
            expected_revision=revision,
            cause=envelope(Assign(), "queue", STREAM.id, command_id=5),
            recorded_at=samples.NOW,
        )


async def test_a_conflict_that_newer_events_explain_reads_only_those(
    inside: Inside, reads: list[int]
) -> None:
    kept = Histories(inside.store)
    await kept.load(STREAM, decider)
    await inside.happened("queue", STREAM.id, queued(8))
    await conflict(kept, 7)
    reads.clear()

    folded = await kept.load(STREAM, decider)

    assert reads == [7]
    assert folded.revision == 8


async def test_a_conflict_that_nothing_explains_has_the_stream_read_anew(
    inside: Inside, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> int:
        raise VersionConflict

    kept = Histories(inside.store)
    await kept.load(STREAM, decider)
    monkeypatch.setattr(inside.store, "append", refuse)
    await conflict(kept, 7)
    reads.clear()

    folded = await kept.load(STREAM, decider)

    assert reads == [7, 0, 3, 6]
    assert len(folded.state.waiting) == 7


def test_the_last_commands_of_a_stream_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    decided = Decided()
    for number in range(1, 9):
        decided.note(work(number), number)

    assert [decided.sequence_of(work(number)) for number in (8, 7, 6, 5)] == [8, 7, 6, 5]
    assert decided.sequence_of(work(1)) is None
