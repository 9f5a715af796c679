"""uvicorn inside somebody else's event loop: no signal handlers, and a stop that streams survive."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from litestar.types import ASGIApp
from typing_extensions import override

GRACE_S: Final = 2  # for requests under way; streams are told to end and do so at once
KEEP_ALIVE_S: Final = 5
BACKLOG: Final = 512


class PortTaken(OSError):
    """Something else listens where the gateway is to listen."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            errno.EADDRINUSE, f"{host}:{port} is taken; choose another FINETRAIL_GATEWAY__PORT"
        )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    async def run_until(self, stop: asyncio.Event, sockets: list[socket.socket]) -> None:
        """``serve`` without taking the process's signals."""
        ending = asyncio.create_task(self._exit_on(stop))
        try:
            await self._serve(sockets)
        finally:
            ending.cancel()

    async def _exit_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.should_exit = True


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    on_listening: Callable[[int], None] | None = None,
    on_stopping: Callable[[], None] | None = None,
) -> None:
    """Serve until ``stop`` is set.

    Args:
        port: 0 to take a free one.
        on_listening: told the port, once connections are taken.
        on_stopping: called when ``stop`` is set; has to make open streams end.

    Raises:
        PortTaken: Before anything is served.
    """
    listener = listen(host, port)
    server_stop = asyncio.Event()

    def listening() -> None:
        if on_listening is not None:
            on_listening(listener.getsockname()[1])

    async def stopping() -> None:
        await stop.wait()
        if on_stopping is not None:
            on_stopping()
        server_stop.set()

    with listener:
        watcher = asyncio.create_task(stopping())
        try:
            await _Server(_config(app), listening).run_until(server_stop, [listener])
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortTaken: Somebody else has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off for sockets that say they are TCP; left on, it holds an answer
    # on a kept connection back until the client acknowledges its headers, 40 ms later.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port) from error
        raise
    listener.setblocking(False)
    return listener


def _config(app: ASGIApp) -> uvicorn.Config:
    asgi: Any = app
    return uvicorn.Config(
        asgi,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
