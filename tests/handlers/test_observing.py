"""What is told of messages and decisions: figures by type and outcome, and ids for the log."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import pytest

from domain.context import Context, current
from domain.errors import StoreUnavailable
from domain.jobs.commands import CancelJob
from domain.jobs.job import JobExists
from domain.messages import Command, Envelope, Event, Outcome, Recorded, StreamId
from domain.models.events import ModelCreated
from domain.subjects import command_subject
from domain.wire import encode_command
from handlers.metrics import REGISTRY
from handlers.observing import deciding, observed, reacting
from handlers.settle import Decide
from tests import samples
from tests.handlers.inside import envelope
from tests.handlers.test_settle import Delivery, Sequences
from tests.samples import JOB

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass(frozen=True)
class Metadata:
    num_delivered: int = 1
    num_pending: int = 0
    sequence: Sequences = field(default_factory=Sequences)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def asked(traceparent: str = "") -> Envelope[Command]:
    sent = envelope(CancelJob(job_id=JOB), "job", JOB)
    return Envelope(
        **{name: getattr(sent, name) for name in sent.__slots__ if name != "traceparent"},
        traceparent=traceparent,
    )


def deciding_to(result: Outcome | Exception) -> Decide:
    async def decide(_: Envelope[Command]) -> Outcome:
        if isinstance(result, Exception):
            raise result
        return result

    return deciding(decide)


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Outcome(status="recorded", sequence=7), "recorded"),
        (Outcome(status="unchanged", sequence=7), "unchanged"),
        (JobExists("it exists"), "rejected"),
        (StoreUnavailable("away"), "error"),
    ],
)
async def test_each_decision_is_counted_once_by_what_became_of_it(
    result: Outcome | Exception, outcome: str
) -> None:
    names = ("recorded", "unchanged", "rejected", "error")

    def counts() -> list[float]:
        return [
            sample("finetrail_commands_total", command="CancelJob", outcome=name) for name in names
        ]

    before, timed = counts(), sample("finetrail_command_seconds_count", command="CancelJob")

    if isinstance(result, Exception):
        with pytest.raises(type(result)):
            await deciding_to(result)(asked())
    else:
        assert await deciding_to(result)(asked()) == result

    grown = [now - then for now, then in zip(counts(), before, strict=True)]
    assert grown == [float(name == outcome) for name in names]
    assert sample("finetrail_command_seconds_count", command="CancelJob") == timed + 1


async def handled(
    message: Delivery, settle: Callable[[object], Awaitable[None]] | None = None
) -> list[Context]:
    seen: list[Context] = []

    async def note(_: object) -> None:
        seen.append(current())

    await observed("job-commands", settle or note)(message)
    return seen


def delivered(traceparent: str = "", **metadata: int) -> Delivery:
    headers, body = encode_command(asked(traceparent))
    subject = command_subject("gateway", samples.WORKSPACE, "job", JOB)
    return Delivery(subject, body, headers, Metadata(**metadata))  # type: ignore[arg-type]


async def test_a_message_is_handled_under_the_ids_of_its_headers() -> None:
    message = delivered(TRACEPARENT)

    (seen,) = await handled(message)

    assert message.headers
    assert seen == Context(
        correlation_id=message.headers["ce-correlationid"],
        message_id=message.headers["ce-id"],
        workspace=samples.WORKSPACE,
        traceparent=TRACEPARENT,
    )
    assert current() == Context()


async def test_a_trace_that_makes_no_sense_is_passed_over() -> None:
    message = delivered()
    message.headers = {**(message.headers or {}), "traceparent": "00-anything"}

    (seen,) = await handled(message)

    assert seen.traceparent == ""


async def test_redeliveries_and_what_waits_are_seen_by_consumer() -> None:
    again = sample("finetrail_redeliveries_total", consumer="job-commands")

    await handled(delivered(num_delivered=1, num_pending=8))
    first = sample("finetrail_consumer_waiting", consumer="job-commands")
    await handled(delivered(num_delivered=2, num_pending=0))

    assert (first, sample("finetrail_consumer_waiting", consumer="job-commands")) == (8, 0)
    assert sample("finetrail_redeliveries_total", consumer="job-commands") == again + 1


async def test_reactions_are_counted_with_those_that_failed() -> None:
    event = ModelCreated(model_id=UUID(int=1), name="m", base_model="b")
    recorded: Recorded[Event] = Recorded(
        id=UUID(int=2),
        stream=StreamId(samples.WORKSPACE, "model", UUID(int=1)),
        sequence=1,
        recorded_at=datetime(2026, 11, 20, tzinfo=UTC),
        actor="a",
        source="gateway",
        correlation_id=UUID(int=3),
        causation_id=UUID(int=4),
        event=event,
    )

    def counts() -> tuple[float, float]:
        done, failed = (
            sample("finetrail_reactions_total", event="ModelCreated", outcome=one)
            for one in ("done", "error")
        )
        return done, failed

    async def fine(_: Recorded[Event]) -> None:
        return

    async def fails(_: Recorded[Event]) -> None:
        raise StoreUnavailable("away")

    done, failed = counts()
    await reacting(fine)(recorded)
    with pytest.raises(StoreUnavailable):
        await reacting(fails)(recorded)

    assert counts() == (done + 1, failed + 1)
