"""Posts to webhooks: to public addresses alone unless told otherwise, and never after a redirect.

What is checked is the address that the connection is really made to, after its name was resolved, so
a name that means another address the next time gets nobody in.
"""

import asyncio
import base64
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpcore
import httpx
from typing_extensions import override

from domain.webhooks.addresses import is_public
from domain.webhooks.deliveries import Answer

TIMEOUT_S: Final = 20.0  # the specification asks for 15 to 30
IDLE_S: Final = 5.0  # a connection kept longer would block a receiver that serves one at a time
SHOWN: Final = 500  # bytes of an answer that are kept
READ: Final = 64 * 1024  # of an answer; one that goes on is cut off, and its connection with it

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class PrivateAddress(OSError):
    """The receiver's name stands for an address that webhooks may not reach."""


async def resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class WebhookSender:
    """Keeps connections to receivers open; every receiver has its own."""

    def __init__(
        self, *, allow_private: bool, lookup: Resolve = resolve, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,  # whoever delivers bounds what is under way to each receiver
            keepalive_expiry=IDLE_S,
            network_backend=_Guarded(lookup, allow_private),
        )

    async def close(self) -> None:
        await self._pool.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post once; whatever goes wrong is told in the answer."""
        began = time.monotonic()
        try:
            if not self._allow_private and urlsplit(url).scheme != "https":
                raise PrivateAddress("only https is used unless webhooks.allow_private is on")
            async with asyncio.timeout(self._timeout_s):
                status, text, retry_after = await self._post(url, headers, body)
        except TimeoutError:
            return Answer(_since(began), error=f"no answer within {self._timeout_s:g} s")
        except (
            OSError,
            ValueError,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            return Answer(_since(began), error=_words(error))
        return Answer(_since(began), status=status, text=text, retry_after=retry_after)

    async def _post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str, str]:
        sent = {
            "User-Agent": f"finetrail/{version('finetrail')}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **_login(url),
            **headers,
        }
        target = httpx.URL(url).copy_with(username=None, password=None)
        sent["Host"] = target.netloc.decode("ascii")
        asked = httpcore.URL(
            scheme=target.raw_scheme,
            host=target.raw_host,
            port=target.port,
            target=target.raw_path,
        )
        async with self._pool.stream(
            "POST",
            asked,
            headers=[(name.encode(), value.encode()) for name, value in sent.items()],
            content=body,
        ) as response:
            text, read = b"", 0
            async for chunk in response.aiter_stream():
                text += chunk[: SHOWN - len(text)]
                read += len(chunk)
                if read > READ:
                    break
            told = {name.lower(): value for name, value in response.headers}
            shown = text.decode("utf-8", "replace")
            return response.status, shown, told.get(b"retry-after", b"").decode("latin-1")


class _Guarded(httpcore.AsyncNetworkBackend):
    """Resolves names itself, and connects to what it has checked."""

    def __init__(self, lookup: Resolve, allow_private: bool) -> None:  # noqa: FBT001 - see above
        self._lookup = lookup
        self._allow_private = allow_private
        self._backend = httpcore.AnyIOBackend()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = list(dict.fromkeys(await self._lookup(host, port)))
        allowed = [one for one in found if self._allow_private or is_public(one)]
        if not allowed:
            raise PrivateAddress(
                f"{host} is {', '.join(found) or 'no address'}, which is not public; "
                "webhooks.allow_private allows it"
            )
        problem: Exception = OSError(f"{host} has no address")
        for address in allowed:
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (OSError, httpcore.NetworkError, httpcore.TimeoutException) as error:
                problem = error
        raise problem

    @override
    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def _login(url: str) -> dict[str, str]:
    """User and password of an address are sent as a header."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    text = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def _since(began: float) -> float:
    return round(time.monotonic() - began, 6)


def _words(error: Exception) -> str:
    """What went wrong, and never the address, which may hold a secret."""
    if isinstance(error, socket.gaierror):
        return "the receiver's name cannot be resolved"
    return str(error) or type(error).__name__
