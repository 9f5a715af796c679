"""Spans, for whoever does something that may take time; where nobody traces they cost nothing.

A trace is carried as W3C ``traceparent``: from a request into the command's headers, from there into
those of its events, and with an event to whatever follows from it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Final, Literal, Protocol
from uuid import UUID

from domain.context import current, working_on

Kind = Literal["server", "consumer", "internal"]
Value = str | int | float

HEADER: Final = "traceparent"
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


class Span(Protocol):
    """One piece of work."""

    @property
    def traceparent(self) -> str: ...

    def call(self, name: str) -> None:
        """Name it, when its name is known only while it is open."""
        ...

    def note(self, attributes: Mapping[str, Value]) -> None: ...

    def fail(self, reason: str) -> None: ...


class Tracer(Protocol):
    """Where spans go; an adapter implements it."""

    def open(
        self, name: str, kind: Kind, parent: str, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]:
        """A span that ends with the block; an exception that leaves the block fails it.

        Args:
            parent: a ``traceparent``, or empty to begin a trace.
        """
        ...


class _NoSpan:
    traceparent = ""

    def call(self, name: str) -> None:
        pass

    def note(self, attributes: Mapping[str, Value]) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass


_NO_SPAN: Final[Span] = _NoSpan()
_tracers: list[Tracer] = []  # of this process: none or one


def trace_with(tracer: Tracer | None) -> None:
    """Send this process's spans there from now on."""
    _tracers[:] = [] if tracer is None else [tracer]


def tracing() -> bool:
    return bool(_tracers)


@contextmanager
def span(
    name: str,
    kind: Kind = "internal",
    *,
    parent: str | None = None,
    attributes: Mapping[str, Value] | None = None,
) -> Iterator[Span]:
    """Open a span in this task's trace, or in that of ``parent``."""
    if not _tracers:
        yield _NO_SPAN
        return
    context = current()
    above = context.traceparent if parent is None else parent
    with (
        _tracers[0].open(name, kind, above, attributes or {}) as opened,
        working_on(replace(context, traceparent=opened.traceparent)),
    ):
        yield opened


def read_traceparent(text: str) -> str:
    """What a sender wrote, or nothing where it is no ``traceparent``."""
    return text if _TRACEPARENT.fullmatch(text) else ""


def traceparent_of(id_: UUID) -> str:
    """A trace of one's own, not sampled, for what came without one."""
    digits = id_.hex
    return f"00-{digits}-{digits[16:]}-00"
