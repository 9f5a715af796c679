"""Connections to NATS that outlive the server: reconnect for ever, and say in the log what goes wrong."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

PENDING_BYTES: Final = 64 * 1024 * 1024  # holds what is said while the server restarts
CANCEL_AGAIN_S: Final = 1.0
RECONNECT_WAIT_S: Final = 0.25  # an embedded server is back within a second
CLOSE_S: Final = 2.0  # after a handshake that failed, the client waits for ever to be closed

Told = Callable[[Exception], Awaitable[None]]

_log = logging.getLogger(__name__)


class TlsFailed(OSError):
    """The two do not agree on an encrypted connection, which time alone does not mend."""


async def connect(
    url: str,
    *,
    user: str | None,
    password: str | None,
    seed: str | None = None,
    name: str,
    inbox_prefix: str | bytes,
    on_error: Told | None = None,
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """Connect, and wait for as long as the server is away.

    With a URL of ``tls://`` nothing is said before the server has shown a certificate to be trusted.
    A publish or a subscription that the server denies shows up in ``on_error`` alone, while the
    call itself runs into its timeout.

    Args:
        seed: NKey that a joined agent has instead of user and password.
        inbox_prefix: the only inbox this user may listen on, without the trailing dot.

    Raises:
        TlsFailed: Its certificate is not trusted, or it does not begin with TLS.
    """
    state = _State(name, url, on_error, on_reconnect)
    secured = encryption(url)
    while True:
        nc = Client()
        connecting = asyncio.ensure_future(
            nc.connect(
                servers(url),
                # A key of its own says who an agent is; a name beside it would be asked for a password.
                user=None if seed else user,
                password=None if seed else password,
                nkeys_seed_str=seed,
                name=name,
                inbox_prefix=inbox_prefix,
                error_cb=state.error,
                disconnected_cb=state.disconnected,
                reconnected_cb=state.reconnected,
                closed_cb=state.closed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any number of seconds
                pending_size=PENDING_BYTES,
                **secured,
            )
        )
        try:
            problem = await state.first_problem(connecting)
            if problem is None:
                return nc
        finally:
            if not state.connected:  # the client's own next try would hang
                await end(connecting)
                await close(nc)
        if isinstance(problem, ssl.SSLError):
            raise TlsFailed(f"NATS connection {state.where}: {reason(problem, url)}") from problem
        await asyncio.sleep(RECONNECT_WAIT_S)


class _State:
    """What has become of a connection, and what of it was said in the log."""

    def __init__(
        self,
        name: str,
        url: str,
        on_error: Told | None,
        on_reconnect: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.where = f"{name} at {url.rpartition('@')[2]}"
        self._url = url
        self.connected = False  # once; before that there is nothing to lose
        self._on_error = on_error
        self._on_reconnect = on_reconnect
        self._said: set[str] = (
            set()
        )  # while it is away, the same thing is wrong four times a second
        self._failed: asyncio.Queue[Exception] = asyncio.Queue()

    async def first_problem(self, connecting: "asyncio.Future[None]") -> Exception | None:
        """Wait for the connection or for what is wrong, whichever is first."""
        failing = asyncio.ensure_future(self._failed.get())
        try:
            either: set[asyncio.Future[Any]] = {connecting, failing}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
                self.connected = True
                return None
            return failing.result()
        finally:
            failing.cancel()

    async def error(self, problem: Exception) -> None:
        text = reason(problem, self._url)
        level = logging.DEBUG if text in self._said else logging.WARNING
        _log.log(level, "NATS connection %s: %s", self.where, text)
        if len(self._said) < 100:
            self._said.add(text)
        if not self.connected:
            self._failed.put_nowait(problem)
        if self._on_error is not None:
            await self._on_error(problem)

    async def disconnected(self) -> None:
        if self.connected:
            _log.info("NATS connection %s is lost", self.where)

    async def reconnected(self) -> None:
        _log.info("NATS connection %s is back", self.where)
        self._said.clear()
        if self._on_reconnect is not None:
            await self._on_reconnect()

    async def closed(self) -> None:
        if self.connected:
            _log.info("NATS connection %s is closed", self.where)


def servers(url: str) -> list[str]:
    """The nodes of a cluster, parted by commas; any one of them that runs will do."""
    return [part.strip() for part in url.split(",") if part.strip()]


def encryption(url: str) -> dict[str, Any]:
    """What the client is told for ``tls://``: to begin with it, and to go no further without.

    By itself the client would go on in the clear, password and all, where TLS is not offered.
    """
    if not url.startswith("tls://"):
        return {}
    logging.getLogger("asyncio").addFilter(_is_no_habit)
    return {"tls": ssl.create_default_context(), "tls_handshake_first": True}


def _is_no_habit(record: logging.LogRecord) -> bool:
    """Whether it is worth saying: asyncio says this of every TLS connection that nats-py ends."""
    return "eof_received() has no effect" not in str(record.msg)


def reason(problem: Exception, url: str) -> str:
    """Why there is no connection, with what to do where the text alone does not say it."""
    match problem:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted: {problem.verify_message}; "
                "SSL_CERT_FILE names the authorities that are"
            )
        case ssl.SSLError() | TimeoutError() | ConnectionResetError() if url.startswith("tls://"):
            return (
                f"{_text(problem)}: it does not begin with TLS; "
                "its section `tls` has to have `handshake_first: 1s`"
            )
        case _:
            return _text(problem)


def _text(problem: Exception) -> str:
    return str(problem) or type(problem).__name__


async def close(nc: Client) -> None:
    """Close, also while the server is away: what could not be sent is lost then."""
    # The client writes to the lost socket first.
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await nc.close()


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel until they have ended: nats-py loses a cancellation that comes with an answer."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
