"""Requests as bytes on a socket: nothing is tidied up, encoded or refused on the way out."""

import http.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from typing_extensions import override

ANSWER_S: Final = 30.0  # an upload is validated before it is answered

Headers = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


class _Connection(http.client.HTTPConnection):
    @override
    def _validate_path(self, url: str) -> None:  # type: ignore[misc]
        """What cannot be sent by accident is sent on purpose."""


class Wire:
    """Asks one gateway, as whoever holds `key`."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self.asked = 0
        self._connection = self._connect()

    def _connect(self) -> _Connection:
        address = urlsplit(url := self.url)
        assert address.hostname is not None, url
        return _Connection(address.hostname, address.port, timeout=ANSWER_S)

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, target: str, body: bytes = b"", headers: Headers = ()) -> Answer:
        """The answer to a request; one that was cut off by the server is made once more."""
        self.asked += 1
        try:
            return self._ask(method, target, body, headers)
        except (http.client.BadStatusLine, ConnectionError):  # it had closed an idle connection
            self.close()
            return self._ask(method, target, body, headers)

    def _ask(self, method: str, target: str, body: bytes, headers: Headers) -> Answer:
        with self._sent(method, target, body, headers) as response:
            answer = Answer(response.status, response.getheaders(), response.read())
        if response.will_close:
            self.close()
        return answer

    def frames(self, target: str, headers: Headers, most: int, within_s: float) -> Answer:
        """The first frames of a stream, as far as they come in time; whole, where it is none."""
        self.asked += 1
        self.close()
        self._connection.timeout = within_s
        try:
            with self._sent("GET", target, b"", headers) as response:
                body = b""
                with suppress(TimeoutError):
                    while body.count(b"\n\n") < most and (line := response.readline()):
                        body += line
            return Answer(response.status, response.getheaders(), body)
        finally:
            self.close()
            self._connection.timeout = ANSWER_S

    @contextmanager
    def _sent(
        self, method: str, target: str, body: bytes, headers: Headers
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection
        connection.putrequest(method, target, skip_accept_encoding=True)
        given = {name.lower() for name, _ in headers}
        if "authorization" not in given:
            connection.putheader("Authorization", f"Bearer {self.key}")
        for name, value in headers:
            connection.putheader(name, value)
        if "content-length" not in given and (body or method in {"POST", "PUT"}):
            connection.putheader("Content-Length", str(len(body)))
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all sent
            connection.endheaders(body)
        with connection.getresponse() as response:
            yield response
