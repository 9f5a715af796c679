"""How a delivery ends, with a message that notes what was done to it."""

from dataclasses import dataclass, field
from uuid import UUID

import pytest
from nats.errors import TimeoutError as NatsTimeout

from domain.errors import StoreUnavailable, VersionConflict
from domain.jobs.commands import CancelJob
from domain.jobs.job import JobExists
from domain.messages import Command, Envelope, Event, Outcome, Recorded
from domain.subjects import command_subject
from domain.wire import Headers, encode_command, encode_event
from handlers.dead_letters import DeadLetters
from handlers.settle import MAX_DELIVERIES, settle_command, settle_event
from tests import samples
from tests.domain import test_job as job
from tests.handlers.inside import envelope
from tests.samples import JOB

RECORDED = Outcome(status="recorded", sequence=7)
UNCHANGED = Outcome(status="unchanged", sequence=7)


@dataclass(frozen=True)
class Sequences:
    stream: int = 42


@dataclass(frozen=True)
class Metadata:
    num_delivered: int = 1
    sequence: Sequences = Sequences()


@dataclass
class Delivery:
    subject: str
    data: bytes
    headers: dict[str, str] | None
    metadata: Metadata = Metadata()
    done: list[str] = field(default_factory=list)
    ack_is_lost: bool = False

    async def ack(self) -> None:
        self.done.append("ack")

    async def ack_sync(self) -> None:
        if self.ack_is_lost:
            raise NatsTimeout
        self.done.append("ack_sync")

    async def nak(self, delay: float | None = None) -> None:
        self.done.append(f"nak {delay:g}")

    async def term(self) -> None:
        self.done.append("term")

    async def in_progress(self) -> None:
        self.done.append("in_progress")


@dataclass
class Desk:
    """Gives the outcome, or raises it; notes replies and dead letters beside the delivery's fate."""

    result: Outcome | Exception
    delivery: Delivery
    replies: list[Outcome] = field(default_factory=list)
    dead: list[tuple[str, Headers, bytes]] = field(default_factory=list)

    async def decide(self, _: Envelope[Command]) -> Outcome:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def react(self, _: Recorded[Event]) -> None:
        if isinstance(self.result, Exception):
            raise self.result

    async def reply(self, to: str, body: bytes) -> None:
        assert to == "_INBOX_gateway.1"
        self.delivery.done.append("reply")
        self.replies.append(Outcome.model_validate_json(body))

    async def publish(self, subject: str, body: bytes, headers: Headers) -> None:
        self.dead.append((subject, headers, body))

    async def settle(self) -> list[str]:
        await settle_command(self.delivery, self.decide, self.reply, DeadLetters(self.publish))
        return self.delivery.done


def command(deliveries: int = 1, reply_to: str = "_INBOX_gateway.1") -> Delivery:
    asked = envelope(CancelJob(job_id=JOB), "job", JOB)
    headers, body = encode_command(asked)
    subject = command_subject("gateway", samples.WORKSPACE, "job", JOB)
    return Delivery(subject, body, headers | {"reply_to": reply_to}, Metadata(deliveries))


def event(deliveries: int = 1) -> Delivery:
    cause = envelope(CancelJob(job_id=JOB), "job", JOB)
    headers, body = encode_event(
        job.submitted, event_id=UUID(int=3), cause=cause, recorded_at=samples.NOW
    )
    return Delivery(cause.stream.subject, body, headers, Metadata(deliveries))


async def test_what_was_recorded_is_acknowledged_and_answered() -> None:
    desk = Desk(RECORDED, command())

    assert await desk.settle() == ["ack", "reply"]
    assert desk.replies == [RECORDED]


@pytest.mark.parametrize("result", [UNCHANGED, JobExists("twice")])
async def test_what_left_no_event_is_gone_before_its_sender_hears_of_it(
    result: Outcome | Exception,
) -> None:
    desk = Desk(result, command())

    assert await desk.settle() == ["ack_sync", "reply"]


async def test_a_refusal_is_answered_with_its_code() -> None:
    desk = Desk(JobExists("submitted before"), command())

    await desk.settle()

    (answer,) = desk.replies
    assert (answer.status, answer.code, answer.message) == (
        "rejected",
        "job_exists",
        "submitted before",
    )


async def test_a_refusal_that_may_come_again_is_not_answered() -> None:
    delivery = command()
    delivery.ack_is_lost = True
    desk = Desk(JobExists("twice"), delivery)

    assert await desk.settle() == ["nak 0.1"]


@pytest.mark.parametrize(
    ("deliveries", "delay"), [(1, "0.1"), (2, "0.5"), (3, "2"), (4, "10"), (5, "30"), (99, "30")]
)
async def test_what_cannot_be_decided_now_comes_again_later_and_later(
    deliveries: int, delay: str
) -> None:
    for problem in (VersionConflict("first"), StoreUnavailable("away"), OSError("disk")):
        desk = Desk(problem, command(deliveries))

        assert await desk.settle() == [f"nak {delay}"]
        assert desk.dead == []


async def test_a_bug_is_tried_again_and_then_put_aside_with_all_that_is_known() -> None:
    for deliveries in range(1, MAX_DELIVERIES):
        desk = Desk(ZeroDivisionError("oh"), command(deliveries))
        assert (await desk.settle())[0].startswith("nak")

    desk = Desk(ZeroDivisionError("oh"), command(MAX_DELIVERIES))
    assert await desk.settle() == ["term", "reply"]

    ((subject, headers, body),) = desk.dead
    assert subject.startswith("dead.commands.job.")
    assert body == desk.delivery.data
    assert headers["dead-subject"] == desk.delivery.subject
    assert headers["dead-reason"] == "ZeroDivisionError: oh"
    assert headers["ce-type"] == "CancelJob"
    assert desk.replies[0].status == "failed"


async def test_the_servers_own_headers_are_not_obeyed_again() -> None:
    delivery = command(MAX_DELIVERIES)
    assert delivery.headers is not None
    delivery.headers["Nats-Expected-Last-Subject-Sequence"] = "7"
    desk = Desk(ZeroDivisionError("two\nlines \u2013 dash"), delivery)

    await desk.settle()

    ((_, headers, _),) = desk.dead
    own = {name: value for name, value in headers.items() if name.startswith("Nats-")}
    assert own == {
        "Nats-Msg-Id": "dead.commands.42",
        "Nats-Expected-Last-Subject-Sequence": "0",
    }
    assert headers["dead-reason"] == "ZeroDivisionError: two lines \\u2013 dash"


@pytest.mark.parametrize("name", ["ce-id", "ce-type", "ce-time"])
async def test_what_cannot_be_read_is_put_aside_at_once(name: str) -> None:
    delivery = command()
    assert delivery.headers is not None
    delivery.headers[name] = "?"
    desk = Desk(RECORDED, delivery)

    done = await desk.settle()

    if name == "ce-type":  # a newer sender's command; another process may know it
        assert done == ["nak 0.1"]
    else:
        assert done == ["term", "reply"]
        assert len(desk.dead) == 1


async def test_why_a_command_is_put_aside_does_not_repeat_what_it_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    delivery = command()
    delivery.data = delivery.data.replace(b"job_id", b"job_key")
    desk = Desk(RECORDED, delivery)

    assert await desk.settle() == ["term", "reply"]

    ((_, headers, body),) = desk.dead
    assert str(JOB).encode() in body
    for told in (headers["dead-reason"], desk.replies[0].message, caplog.text):
        assert "job_key" in told
        assert f"'{str(JOB)[:4]}" not in told


@pytest.mark.parametrize("reply_to", ["", "events.default.job.1", "work.agent"])
async def test_an_answer_goes_to_an_inbox_or_nowhere(reply_to: str) -> None:
    desk = Desk(RECORDED, command(reply_to=reply_to))

    assert await desk.settle() == ["ack"]


async def test_an_event_is_acknowledged_when_what_follows_is_done() -> None:
    delivery = event()
    desk = Desk(RECORDED, delivery)
    await settle_event(delivery, desk.react, DeadLetters(desk.publish))

    failing = event()
    bad = Desk(StoreUnavailable("away"), failing)
    await settle_event(failing, bad.react, DeadLetters(bad.publish))

    assert delivery.done == ["ack"]
    assert failing.done == ["nak 0.1"]


async def test_an_event_that_cannot_be_followed_up_is_put_aside() -> None:
    delivery = event(MAX_DELIVERIES)
    desk = Desk(KeyError("missing"), delivery)

    await settle_event(delivery, desk.react, DeadLetters(desk.publish))

    assert delivery.done == ["term"]
    assert desk.dead[0][0].startswith("dead.reactions.job.")


async def test_an_unreadable_message_is_kept_when_it_cannot_be_put_aside() -> None:
    delivery = command()
    delivery.data = b"{"

    async def full(subject: str, body: bytes, headers: Headers) -> None:
        raise StoreUnavailable("full")

    desk = Desk(RECORDED, delivery)
    await settle_command(delivery, desk.decide, desk.reply, DeadLetters(full))

    assert delivery.done == ["nak 0.1"]
