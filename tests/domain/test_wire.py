"""Envelopes on the wire: who says something is told by the subject, never by what is in the message."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from domain.jobs.commands import CancelJob
from domain.messages import Command, Envelope, StreamId
from domain.subjects import command_subject
from domain.wire import decode_envelope, encode_command

AGENT = "01a1fa55-ce98-746f-b1b9-ba04df9c14fd"


def sent_by(source: str, actor: str) -> Envelope[Command]:
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
