"""Connections to NATS that outlive the server: reconnect for ever, and say in the log what goes wrong."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

PENDING_BYTES: Final = 64 * 1024 * 1024  # holds what is said while the server restarts
CANCEL_AGAIN_S: Final = 1.0
RECONNECT_WAIT_S: Final = 0.25  # an embedded server is back within a second

_log = logging.getLogger(__name__)


async def connect(
    url: str,
    *,
    user: str | None,
    password: str | None,
    seed: str | None = None,
    name: str,
    inbox_prefix: str | bytes,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """Connect, and wait for as long as the server is away.

    A publish or a subscription that the server denies shows up in ``on_error`` alone, while the
    call itself runs into its timeout.

    Args:
        seed: NKey that a joined agent has instead of user and password.
        inbox_prefix: the only inbox this user may listen on, without the trailing dot.
    """
    where = f"{name} at {url.rpartition('@')[2]}"
    said: set[str] = set()  # while it is away, the same thing is wrong four times a second

    async def error(problem: Exception) -> None:
        text = str(problem) or type(problem).__name__
        _log.log(
            logging.DEBUG if text in said else logging.WARNING,
            "NATS connection %s: %s",
            where,
            text,
        )
        if len(said) < 100:
            said.add(text)
        if on_error is not None:
            await on_error(problem)

    async def disconnected() -> None:
        _log.info("NATS connection %s is lost", where)

    async def reconnected() -> None:
        _log.info("NATS connection %s is back", where)
        said.clear()
        if on_reconnect is not None:
            await on_reconnect()

    async def closed() -> None:
        _log.info("NATS connection %s is closed", where)

    return await nats.connect(
        url,
        # A key of its own says who an agent is; a name beside it would be asked for a password.
        user=None if seed else user,
        password=None if seed else password,
        nkeys_seed_str=seed,
        name=name,
        inbox_prefix=inbox_prefix,
        error_cb=error,
        disconnected_cb=disconnected,
        reconnected_cb=reconnected,
        closed_cb=closed,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_WAIT_S,
        pending_size=PENDING_BYTES,
    )


async def close(nc: Client) -> None:
    """Close, also while the server is away: what could not be sent is lost then."""
    with contextlib.suppress(NatsError, OSError):  # the client writes to the lost socket first
        await nc.close()


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel until they have ended: nats-py loses a cancellation that comes with an answer."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
