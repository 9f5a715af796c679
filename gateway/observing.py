"""What is told of every request: a line in the log, figures, statistics, a span; and its ids to all of them."""

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from time import perf_counter
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from domain.context import Context, working_on
from domain.tracing import HEADER, Span, read_traceparent, span, traceparent_of, tracing
from gateway.authentication import Principal
from gateway.metrics import OPEN_STREAMS, request_figures
from gateway.request_id import request_id

UNMATCHED: Final = "unmatched"  # the route of what has none: a path is the caller's own text
ABORTED: Final = "aborted"  # the status of what its caller did not wait for
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
EVENT_STREAM: Final = b"text/event-stream"
FIELDS: Final = "fields"  # of a log record: members of a JSON line
_TRACEPARENT: Final = HEADER.encode()
_HEALTH: Final = "/health/"

_log = logging.getLogger("gateway.access")

Observe = Callable[[str, str, str, float], None]  # method, route, status class, seconds


def observed(app: ASGIApp, workspace: str, observe: Observe) -> ASGIApp:
    """Wrap the whole application; what is told holds no query, no body and no text of a caller."""

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        scope.setdefault("state", {})
        answer = _Answer(send)
        context = Context(str(request_id(scope)), "", workspace, _traceparent(scope))
        with working_on(context):
            try:
                with span("request", "server") as opened:
                    try:
                        await app(scope, receive, answer)
                    finally:
                        _name(opened, scope, answer)
            finally:
                answer.close()
                _tell(scope, answer, observe)

    return around


class _Answer:
    """Watches an answer on its way."""

    __slots__ = ("_began", "_send", "seconds", "sent", "status", "streams")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._began = perf_counter()
        self.status = 0
        self.sent = 0  # bytes of the body
        self.streams = False
        self.seconds = 0.0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.streams = _is_stream(message.get("headers", ()))
            if self.streams:
                OPEN_STREAMS.inc()
            self.seconds = perf_counter() - self._began
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)

    def close(self) -> None:
        if self.streams:
            OPEN_STREAMS.dec()  # how long a client listens is no latency
        else:
            self.seconds = perf_counter() - self._began


def _is_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(EVENT_STREAM)
        for name, value in headers
    )


def _tell(scope: HTTPScope, answer: _Answer, observe: Observe) -> None:
    method, route = _method(scope), _route(scope)
    status = str(answer.status) if answer.status else ABORTED
    status_class = f"{status[0]}xx" if answer.status else ABORTED
    counter, histogram = request_figures(method, route, status, status_class)
    counter.inc()
    histogram.observe(answer.seconds)
    observe(method, route, status_class, answer.seconds)
    level = logging.DEBUG if route.startswith(_HEALTH) and answer.status == 200 else logging.INFO
    if not _log.isEnabledFor(level):
        return
    key, ms = _key_id(scope), answer.seconds * 1000
    fields = {
        "method": method,
        "route": route,
        "status": answer.status or ABORTED,
        "ms": round(ms, 2),
        "bytes": answer.sent,
        "key_id": key,
    }
    line = "%s %s %s %.1f ms %d B %s"
    _log.log(
        level, line, method, route, status, ms, answer.sent, key or "-", extra={FIELDS: fields}
    )


def _name(opened: Span, scope: HTTPScope, answer: _Answer) -> None:
    if not tracing():
        return
    method, route = _method(scope), _route(scope)
    opened.call(f"{method} {route}")
    opened.note(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": answer.status,
            "finetrail.request_id": str(request_id(scope)),
        }
    )
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        opened.fail(HTTPStatus(answer.status).phrase)


def _method(scope: HTTPScope) -> str:
    method = str(scope["method"])
    return method if method in METHODS else "other"


def _route(scope: HTTPScope) -> str:
    return str(scope.get("path_template") or UNMATCHED)


def _key_id(scope: HTTPScope) -> str:
    principal = scope.get("user")
    return principal.key_id if isinstance(principal, Principal) else ""


def _traceparent(scope: HTTPScope) -> str:
    for name, value in scope["headers"]:
        if name == _TRACEPARENT and (given := read_traceparent(value.decode("latin-1"))):
            return given
    return "" if tracing() else traceparent_of(request_id(scope))
