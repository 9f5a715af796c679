"""What routes need to answer with a stream: who wants one, from where, and the response."""

from typing import Annotated, Any, Final

from litestar import Litestar, Request
from litestar.params import HeaderParameter
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from typing_extensions import override

from gateway.authentication import Keys, Principal
from gateway.pages import MAX_SEQUENCE
from gateway.problems import invalid
from gateway.sse import STREAM_HEADERS, EventStreams, Reading

EVENT_STREAM: Final = "text/event-stream"

LastEventId = Annotated[
    str | None,
    HeaderParameter(name="Last-Event-ID", description="Go on behind this message of a stream."),
]


class EventStream(Stream):
    """Says what it is; Litestar would rather believe the route, which may also answer JSON."""

    @override
    def to_asgi_response(
        self, app: Litestar | None, request: Request[Any, Any, Any], **options: Any
    ) -> ASGIResponse:
        return super().to_asgi_response(app, request, **{**options, "media_type": EVENT_STREAM})


class Streams:
    """Answers with streams, each of which ends when the key it was opened with is revoked."""

    def __init__(self, events: EventStreams, keys: Keys) -> None:
        self._events = events
        self._keys = keys

    def open(self, request: Request[Principal, Any, Any], reading: Reading) -> Stream:
        key_id = request.user.key_id
        chunks = self._events.open(reading, lambda: self._keys.find(key_id) is not None)
        return EventStream(chunks, headers=STREAM_HEADERS)


def wants_stream(request: Request[Any, Any, Any], *, follow: bool = False) -> bool:
    """JSON is for whoever asks for nothing in particular, or likes both the same."""
    accepted = request.accept.best_match(["application/json", EVENT_STREAM], "application/json")
    return follow or accepted == EVENT_STREAM


def position_of(last_event_id: str | None, after: str | None) -> int:
    """Where a stream goes on: a reconnecting client's header wins over its first question."""
    told, field = (last_event_id, "Last-Event-ID") if last_event_id else (after, "after")
    text = (told or "0").strip()
    # Longer texts than those of the largest sequence are none; int() refuses thousands of digits.
    if not (text.isdecimal() and len(text) <= len(str(MAX_SEQUENCE)) and int(text) <= MAX_SEQUENCE):
        raise invalid(field, "the sequence of a message", "header" if last_event_id else "query")
    return int(text)
