"""Sends a process's spans where the settings say; without an address nothing of it is even imported."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from domain.tracing import trace_with
from finetrail.stack.errors import StackError

_log = logging.getLogger(__name__)


class TracingMissing(StackError):
    """Spans are asked for, and what sends them is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "tracing.endpoint is set, but OpenTelemetry is not installed.",
            "pip install 'finetrail[tracing]', or leave FINETRAIL_TRACING__ENDPOINT out.",
        )


@contextmanager
def traced(process: str, endpoint: str | None) -> Iterator[None]:
    """Trace for the length of the block; what was not sent by its end is sent then.

    Raises:
        TracingMissing: The extra ``tracing`` is not installed.
    """
    if endpoint is None:
        yield
        return
    try:
        from adapters.opentelemetry_tracer import tracer_to  # noqa: PLC0415 - it is an extra
    except ImportError as error:
        raise TracingMissing from error
    tracer = tracer_to(endpoint, process)
    trace_with(tracer)
    _log.info("spans go to %s", endpoint)
    try:
        yield
    finally:
        trace_with(None)
        tracer.close()
