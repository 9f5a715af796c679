"""What is told of every batch that is written: its ids to the log, figures to Prometheus, spans."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

from domain.context import Context, current, working_on
from domain.tracing import HEADER, Value, read_traceparent, span, tracing
from projections.figures import BATCH_SECONDS, BEHIND, CHECKPOINT, LAG_SECONDS, PROJECTED
from projections.ports import Message

# A batch of a replay has a thousand, and nobody waits for one of them.
MOST_SPANS: Final = 50


async def observed(
    projection: str, batch: Sequence[Message], last: Message, write: Callable[[], Awaitable[None]]
) -> None:
    """Write a batch that ends with ``last``."""
    began = perf_counter()
    context = _context(batch[0]) if len(batch) == 1 else None
    with working_on(context) if context else nullcontext(), _spans(projection, batch):
        await write()
    BATCH_SECONDS.labels(projection).observe(perf_counter() - began)
    PROJECTED.labels(projection).inc(sum(one.sequence <= last.sequence for one in batch))
    CHECKPOINT.labels(projection).set(last.sequence)
    BEHIND.labels(projection).set(last.pending)
    if (age_s := _age_s(last)) is not None:
        LAG_SECONDS.labels(projection).set(age_s)


def _spans(projection: str, batch: Sequence[Message]) -> ExitStack:
    """One for the batch, and one for each message in the trace that it came from."""
    spans = ExitStack()
    if not tracing():
        return spans
    size: dict[str, Value] = {"finetrail.messages": len(batch), "finetrail.projection": projection}
    spans.enter_context(span(f"batch {projection}", parent="", attributes=size))
    context = current()
    for message in batch if len(batch) <= MOST_SPANS else ():
        if traceparent := read_traceparent(message.headers.get(HEADER, "")):
            about: dict[str, Value] = {
                "finetrail.sequence": message.sequence,
                "finetrail.projection": projection,
            }
            name = f"project {message.headers.get('ce-type', '')}"
            spans.enter_context(span(name, "consumer", parent=traceparent, attributes=about))
    spans.enter_context(working_on(context))
    return spans


def _context(message: Message) -> Context:
    headers, tokens = message.headers, message.subject.split(".")
    return Context(
        correlation_id=headers.get("ce-correlationid", ""),
        message_id=headers.get("ce-id", ""),
        workspace=tokens[1] if len(tokens) > 1 else "",
        traceparent=read_traceparent(headers.get(HEADER, "")),
    )


def _age_s(message: Message) -> float | None:
    try:
        recorded = datetime.fromisoformat(message.headers["ce-time"])
        return max(0.0, (datetime.now(UTC) - recorded).total_seconds())
    except (KeyError, ValueError, TypeError):  # any agent may have sent it
        return None
