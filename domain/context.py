"""What a task is working on: the ids that its log lines and spans carry, whoever writes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """Empty text for what is not known."""

    correlation_id: str = ""
    message_id: str = ""  # of the command or the event
    workspace: str = ""
    traceparent: str = ""  # W3C, of the innermost span


_NOTHING = Context()
_current: ContextVar[Context] = ContextVar("finetrail_context", default=_NOTHING)


def current() -> Context:
    return _current.get()


@contextmanager
def working_on(context: Context) -> Iterator[None]:
    """Hold for the block and for the tasks that are started in it."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
