"""What is told of every message that is handled: its ids to the log, figures to Prometheus, a span."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter
from typing import Protocol

from domain.context import Context, current, working_on
from domain.errors import Rejected
from domain.messages import Command, Envelope, Event, Outcome, Recorded
from domain.tracing import HEADER, Value, read_traceparent, span
from handlers.metrics import (
    COMMAND_SECONDS,
    COMMANDS,
    REACTION_SECONDS,
    REACTIONS,
    REDELIVERIES,
    WAITING,
)
from handlers.settle import Decide, Delivery, React

Settle = Callable[[Delivery], Awaitable[None]]


class Queued(Protocol):
    """What the server says of a delivery beside what settling needs."""

    @property
    def num_delivered(self) -> int: ...
    @property
    def num_pending(self) -> int: ...


def observed(consumer: str, settle: Settle) -> Settle:
    """Handle the messages of one consumer in the context that their headers name."""
    redeliveries, waiting = REDELIVERIES.labels(consumer), WAITING.labels(consumer)

    async def handle(msg: Delivery) -> None:
        queued: Queued = msg.metadata  # type: ignore[assignment]  # nats-py's has both
        waiting.set(queued.num_pending)
        if queued.num_delivered > 1:
            redeliveries.inc()
        with working_on(_context(msg)):
            await settle(msg)

    return handle


def deciding(decide: Decide) -> Decide:
    async def decided(envelope: Envelope[Command]) -> Outcome:
        command, began = type(envelope.command).__name__, perf_counter()
        said = "error"
        try:
            with span(f"decide {command}", "consumer", attributes=_of_command(envelope)) as opened:
                if (traceparent := current().traceparent) != envelope.traceparent:
                    envelope = replace(envelope, traceparent=traceparent)
                outcome = await decide(envelope)
                said = outcome.status
                opened.note({"finetrail.outcome": said, "finetrail.sequence": outcome.sequence})
                return outcome
        except Rejected:
            said = "rejected"
            raise
        finally:
            COMMANDS.labels(command, said).inc()
            COMMAND_SECONDS.labels(command).observe(perf_counter() - began)

    return decided


def reacting(react: React) -> React:
    async def reacted(recorded: Recorded[Event]) -> None:
        event, began = type(recorded.event).__name__, perf_counter()
        said = "error"
        try:
            with span(f"react to {event}", "consumer", attributes=_of_event(recorded)):
                await react(recorded)
            said = "done"
        finally:
            REACTIONS.labels(event, said).inc()
            REACTION_SECONDS.labels(event).observe(perf_counter() - began)

    return reacted


def _context(msg: Delivery) -> Context:
    headers, tokens = msg.headers or {}, msg.subject.split(".")
    return Context(
        correlation_id=headers.get("ce-correlationid", ""),
        message_id=headers.get("ce-id", ""),
        workspace=tokens[-3] if len(tokens) > 3 else "",
        traceparent=read_traceparent(headers.get(HEADER, "")),
    )


def _of_command(envelope: Envelope[Command]) -> dict[str, Value]:
    stream = envelope.stream
    return {
        "finetrail.command_id": str(envelope.id),
        "finetrail.stream": f"{stream.aggregate}/{stream.id}",
        "finetrail.correlation_id": str(envelope.correlation_id),
    }


def _of_event(recorded: Recorded[Event]) -> dict[str, Value]:
    stream = recorded.stream
    return {
        "finetrail.event_id": str(recorded.id),
        "finetrail.sequence": recorded.sequence,
        "finetrail.stream": f"{stream.aggregate}/{stream.id}",
    }
