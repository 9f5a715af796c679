"""Spans to OpenTelemetry: batches over OTLP and HTTP, sent by a thread that nobody waits for."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from threading import Thread
from types import MappingProxyType
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from domain.tracing import Kind, Value

EXPORT_S: Final = 5  # of one batch; what a collector does not take in this time is lost
CLOSE_S: Final = 3.0  # of all that is left: four full batches would outlast a supervisor's patience
KINDS: Final = MappingProxyType(
    {"server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER, "internal": SpanKind.INTERNAL}
)

_log = logging.getLogger(__name__)


class OpenTelemetryTracer:
    """Opens spans of one process. Its provider is its own: nothing global is touched."""

    def __init__(self, process: str, processor: SpanProcessor) -> None:
        about = {
            "service.name": f"finetrail-{process}",
            "service.namespace": "finetrail",
            "service.version": version("finetrail"),
        }
        self._provider = TracerProvider(resource=Resource(about), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("finetrail")

    @contextmanager
    def open(
        self, name: str, kind: Kind, parent: str, attributes: Mapping[str, Value]
    ) -> Iterator["OpenSpan"]:
        span = self._tracer.start_span(
            name, context=_context(parent), kind=KINDS[kind], attributes=dict(attributes)
        )
        try:
            yield OpenSpan(span)
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left, if it is taken in time."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_S)
        if sending.is_alive():
            _log.warning("the last spans were not taken within %g s and are lost", CLOSE_S)


class OpenSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def call(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(dict(attributes))

    def fail(self, reason: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, reason))


def tracer_to(endpoint: str, process: str) -> OpenTelemetryTracer:
    """A tracer that sends to an OTLP receiver, such as ``http://127.0.0.1:4318/v1/traces``."""
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
    return OpenTelemetryTracer(process, BatchSpanProcessor(exporter))


def _context(parent: str) -> Context:
    """Beneath ``parent``, which was read before; or the beginning of a trace."""
    if not parent:
        return Context()
    _, trace_id, span_id, flags = parent.split("-")[:4]
    above = SpanContext(
        trace_id=int(trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
    )
    return set_span_in_context(NonRecordingSpan(above), Context())
