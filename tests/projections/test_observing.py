"""What is told of each batch: figures by projection, and the ids of a single message for the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from domain.context import Context, current
from projections.figures import FIGURES
from projections.observing import observed


@dataclass(frozen=True)
class Message:
    sequence: int
    subject: str = "events.default.job.x"
    type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
    pending: int = 0


def sample(name: str) -> float:
    return FIGURES.get_sample_value(name, {"projection": "testing"}) or 0.0


async def nothing() -> None:
    return


async def test_a_written_batch_is_counted_with_how_far_it_brought_us() -> None:
    projected = sample("finetrail_projected_messages_total")
    batches = sample("finetrail_projection_batch_seconds_count")
    minute_ago = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    last = Message(8, headers={"ce-time": minute_ago}, pending=5)

    await observed("testing", [Message(7), last, Message(9)], last, nothing)  # 9 was unreadable

    assert sample("finetrail_projected_messages_total") == projected + 2
    assert sample("finetrail_projection_batch_seconds_count") == batches + 1
    assert sample("finetrail_projection_sequence") == 8
    assert sample("finetrail_projection_behind_messages") == 5
    assert 60 <= sample("finetrail_projection_lag_seconds") < 120


async def test_what_could_not_be_written_is_not_counted() -> None:
    projected = sample("finetrail_projected_messages_total")

    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await observed("testing", [Message(7)], Message(7), fails)

    assert sample("finetrail_projected_messages_total") == projected


async def test_a_message_without_a_time_does_no_harm() -> None:
    last = Message(8, headers={"ce-time": "yesterday"})

    await observed("testing", [last], last, nothing)

    assert sample("finetrail_projection_sequence") == 8


async def test_only_a_single_message_is_named_in_what_is_logged() -> None:
    seen: list[Context] = []

    async def note() -> None:
        seen.append(current())

    one = Message(1, headers={"ce-correlationid": "c", "ce-id": "i"})
    await observed("testing", [one], one, note)
    await observed("testing", [one, one], one, note)

    assert seen == [Context("c", "i", "default"), Context()]
