"""Envelopes on the wire: who says something is told by the subject, never by what is in the message."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from domain.feed import fed_event
from domain.jobs.commands import CancelJob
from domain.jobs.events import JobCancelled
from domain.messages import Command, Envelope, StreamId
from domain.subjects import command_subject
from domain.wire import client_address, decode_envelope, encode_command, encode_event

AGENT = "01a1fa55-ce98-746f-b1b9-ba04df9c14fd"


def sent_by(source: str, actor: str, client_address: str = "") -> Envelope[Command]:
    stream = StreamId("default", "job", UUID(int=7))
    envelope: Envelope[Command] = Envelope(
        id=UUID(int=1),
        stream=stream,
        source=source,
        actor=actor,
        correlation_id=UUID(int=2),
        causation_id=UUID(int=3),
        sent_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        command=CancelJob(job_id=stream.id),
        client_address=client_address,
    )
    headers, body = encode_command(envelope)
    subject = command_subject(source, stream.workspace, stream.aggregate, stream.id)
    return decode_envelope(subject, headers, body)


@pytest.mark.parametrize("actor", ["key:3f9a2c1b", "zoë\r\nce-source: x", "50 %"])
def test_a_command_comes_back_as_it_was_sent(actor: str) -> None:
    envelope = sent_by("gateway", actor)

    assert envelope.actor == actor
    assert envelope.source == "gateway"
    assert envelope.stream == StreamId("default", "job", UUID(int=7))
    assert envelope.causation_id == UUID(int=3)
    assert envelope.command == CancelJob(job_id=UUID(int=7))


def test_an_agent_cannot_speak_in_the_name_of_a_person() -> None:
    assert sent_by(AGENT, "key:3f9a2c1b").actor == f"agent:{AGENT}"


def test_a_missing_header_is_named() -> None:
    with pytest.raises(ValueError, match="ce-id is missing"):
        decode_envelope(f"commands.gateway.default.job.{UUID(int=7)}", {}, b"{}")


def test_an_event_tells_of_its_command_and_of_who_asked_from_where() -> None:
    cause = sent_by("gateway", "key:3f9a2c1b", client_address="fe80::1%eth0")
    event = JobCancelled(job_id=cause.stream.id, attempt=1)

    headers, _ = encode_event(event, event_id=UUID(int=4), cause=cause, recorded_at=cause.sent_at)

    assert headers["ce-commandtype"] == "CancelJob"
    assert headers["ce-commandcause"] == str(UUID(int=3))
    assert client_address(headers) == "fe80::1%eth0"


def test_an_agent_does_not_say_from_where_somebody_asked() -> None:
    assert sent_by(AGENT, "", client_address="203.0.113.9").client_address == ""


def test_the_feed_does_not_say_from_where_somebody_asked() -> None:
    headers = {"ce-id": "1", "ce-type": "JobCancelled", "ce-clientaddress": "203.0.113.9"}
    fed = fed_event(f"events.default.job.{UUID(int=7)}", 1, headers, b"{}")

    assert "203.0.113.9" not in fed.headers.values()
