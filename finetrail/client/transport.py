"""One pool of connections to a server: its key, time limits, and retries where they are safe."""

import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from finetrail.client.errors import (
    ApiError,
    FinetrailError,
    ServerUnreachable,
    Unavailable,
    error_of,
)

Params = Mapping[str, str | int | None]
Body = Callable[[], Iterator[bytes]]  # makes the body anew for every try

API: Final = "/api/v1"
DELAYS_S: Final = (0.1, 0.2, 0.4, 0.8)  # then 1.5 s; a restarted gateway is back after about one
LAST_DELAY_S: Final = 1.5
CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0  # an upload is answered after its validation, which may take 30 s
# Twice the same question, or the same Idempotency-Key: the server does it once.
REPEATABLE: Final = frozenset({"GET", "HEAD", "POST"})


class Transport:
    """Sends requests; ``patience_s`` is how long one call goes on trying in all."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        patience_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.patience_s = patience_s
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            # A proxy named in the environment is not meant for this machine.
            trust_env=urlsplit(self.url).hostname not in {"127.0.0.1", "localhost", "::1"},
            verify=_authorities(),
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Return a successful answer, or raise `ApiError` or `ServerUnreachable`."""
        sent = dict(headers or {})
        if method == "POST":
            sent.setdefault("Idempotency-Key", str(uuid4()))
        deadline = time.monotonic() + self.patience_s
        for delay in delays():
            try:
                response = self._http.request(
                    method,
                    path,
                    params=given(params),
                    json=json,
                    content=body() if body else None,
                    headers=sent,
                )
            except httpx.TransportError as error:
                again = method in REPEATABLE or isinstance(error, httpx.ConnectError)
                if not again or time.monotonic() + delay > deadline:
                    raise self.unreachable(error) from error
                time.sleep(delay)
                continue
            if response.is_success:
                return response
            refusal = error_of(response)
            pause = max(delay, _retry_after(response))
            may_repeat = isinstance(refusal, Unavailable) and method in REPEATABLE
            if not may_repeat or time.monotonic() + pause > deadline:
                raise refusal
            time.sleep(pause)
        raise AssertionError("the delays have no end")

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        silence_s: float = ANSWER_S,
    ) -> Iterator[httpx.Response]:
        """One try at a GET, or with ``json`` a POST, whose body is read as it comes.

        ``silence_s`` without a byte is an end.

        Raises:
            FinetrailError: The client was closed meanwhile.
            ApiError: The server refused.
            ServerUnreachable: It does not answer, or the line broke while the body was read.
        """
        if self._http.is_closed:
            raise FinetrailError("this client is closed")
        try:
            with self._http.stream(
                "GET" if json is None else "POST",
                path,
                params=given(params),
                json=json,
                headers=dict(headers or {}),
                timeout=httpx.Timeout(silence_s, connect=CONNECT_S),
            ) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.TransportError as error:
            raise self.unreachable(error) from error

    def unreachable(self, error: httpx.TransportError) -> ServerUnreachable:
        match error:
            case httpx.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
                reason = (
                    "its certificate is not trusted; SSL_CERT_FILE names the authorities that are"
                )
            case httpx.ConnectError() if "SSL" in str(error):
                reason = str(error)
            case httpx.ConnectError():
                reason = "nothing listens there"
            case httpx.TimeoutException():
                reason = "it took too long"
            case _:
                reason = str(error) or type(error).__name__
        return ServerUnreachable(self.url, reason)


def _authorities() -> ssl.SSLContext | bool:
    """Those of SSL_CERT_FILE, also where no proxy of the environment is meant."""
    named = os.environ.get("SSL_CERT_FILE")
    return ssl.create_default_context(cafile=named) if named else True


def delays() -> Iterator[float]:
    return chain(DELAYS_S, repeat(LAST_DELAY_S))


def given(params: Params | None) -> dict[str, str | int]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def passing(error: Exception) -> bool:
    """Whether the same question may well be answered a little later."""
    if isinstance(error, ApiError):
        return isinstance(error, Unavailable)
    return isinstance(error, ServerUnreachable)


def json_object(response: httpx.Response) -> dict[str, Any]:
    data: dict[str, Any] = response.json()
    return data


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else 0.0
