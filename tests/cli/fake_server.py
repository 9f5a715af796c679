"""A server that answers what a test tells it to, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """``chunks`` are sent as they are; with ``cut`` the connection breaks after them."""

    status: int = 200
    json: object = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] | None = None
    cut: bool = False


class Drop(Exception):
    """Close the connection without an answer."""


Route = Callable[[Asked], Reply]


class FakeServer:
    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.routes: dict[tuple[str, str], Route] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def on(self, method: str, path: str, *replies: Reply | type[Drop] | Route) -> None:
        """Answer in this order; the last one is given again."""
        waiting = list(replies)

        def answer(asked: Asked) -> Reply:
            with self._lock:
                reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if reply is Drop:
                raise Drop
            return reply if isinstance(reply, Reply) else reply(asked)  # type: ignore[operator,return-value]

        self.routes[method, path] = answer

    def requests(self, method: str, path: str) -> list[Asked]:
        return [each for each in self.asked if (each.method, each.path) == (method, path)]

    @contextmanager
    def serving(self) -> Iterator["FakeServer"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def problem(status: int, code: str, detail: str, **extras: object) -> Reply:
    body = {"title": "No", "status": status, "detail": detail, "code": code, **extras}
    return Reply(status, body, {"Content-Type": "application/problem+json"})


def sse(*messages: tuple[str, object], first: int = 1, cut: bool = False) -> Reply:
    """One event-stream body; log messages get ids from ``first`` on."""
    chunks: list[bytes] = [b"retry: 1000\n\n", b": still here\n\n"]
    number = first
    for event, data in messages:
        id_line = f"id: {number}\n" if event != "end" else ""
        number += 1
        chunks.append(f"{id_line}event: {event}\ndata: {json.dumps(data)}\n\n".encode())
    return Reply(headers={"Content-Type": "text/event-stream"}, chunks=chunks, cut=cut)


def log(*texts: str) -> tuple[str, object]:
    lines = [
        {
            "time": "2026-11-20T18:00:00Z",
            "level": "INFO",
            "message": text,
            "source": "worker",
            "text": f"[18:00:00] [INFO] {text}",
        }
        for text in texts
    ]
    return "log", {"lines": lines, "attempt": 1}


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            asked = Asked(
                self.command,
                parts.path,
                {name: values[-1] for name, values in parse_qs(parts.query).items()},
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(int(self.headers.get("content-length") or 0)),
            )
            server.asked.append(asked)
            route = server.routes.get((asked.method, asked.path))
            try:
                reply = route(asked) if route else problem(404, "not_found", "There is no such.")
            except Drop:
                self.close_connection = True
                return
            self._send(reply)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815 - names that http.server looks for

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            if reply.chunks is None:
                body = b"" if reply.json is None else json.dumps(reply.json).encode()
                headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
                chunks: Iterable[bytes] = [body]
            else:
                headers, chunks = {"Connection": "close"}, reply.chunks
                self.close_connection = True
            for name, value in (headers | reply.headers).items():
                self.send_header(name, value)
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(chunk)
            if reply.cut:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return Handler
