"""What stands before every route, also before those that do not exist: host, headers, request id."""

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from gateway.openai_api.errors import of_problem, speaks_openai
from gateway.problems import PROBLEM_JSON, Problem, body_of
from gateway.request_id import request_id

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
# Nothing that this service answers is a page, so nothing in it may load, run or be framed.
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_PORT: Final = re.compile(rb":\d+\Z")


def front(app: ASGIApp, allowed_hosts: Iterable[str] = LOOPBACK) -> ASGIApp:
    """Wrap the application. A page on another host that resolves to ours gets nothing from us."""
    hosts = {host.lower().encode() for host in allowed_hosts}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        scope.setdefault("state", {})
        answer = _with_headers(scope, send)
        if b"*" in hosts or _host(scope) in hosts:
            await app(scope, receive, answer)
        else:
            await _refuse(scope, answer)

    return guarded


def _host(scope: HTTPScope) -> bytes | None:
    values = [value for name, value in scope["headers"] if name == b"host"]
    return _PORT.sub(b"", values[0]).lower() if len(values) == 1 else None


def _with_headers(scope: HTTPScope, send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            known = {name.lower() for name, _ in headers}
            added = [
                *SECURITY_HEADERS,
                (b"cache-control", b"no-store"),
                (b"x-request-id", str(request_id(scope)).encode()),
            ]
            headers += [(name, value) for name, value in added if name not in known]
            message["headers"] = headers
        await send(message)

    return answer


async def _refuse(scope: HTTPScope, send: Send) -> None:
    problem = Problem("invalid_host", "This host name is not one of gateway.allowed_hosts.")
    media_type, said = PROBLEM_JSON, body_of(problem, str(request_id(scope)))
    if speaks_openai(scope["path"]):
        media_type, said = "application/json", of_problem(problem).body
    body = msgspec.json.encode(said)
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
