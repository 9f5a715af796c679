"""Takes messages from a durable consumer, a few at a time, until it is told to stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from faststream.nats import NatsMessage
from nats.errors import Error as NatsError

from handlers.settle import Delivery

POLL_S: Final = 1.0  # how long a stop may have to wait for an empty pull to come back
PAUSE_S: Final = (
    0.5  # after a pull that failed at once, lest a lost server is asked in a tight loop
)
FAILED_AT_ONCE_S: Final = 0.05
GRACE_S: Final = 10.0  # for what is under way at a stop; what is cut off is delivered again

_log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """FastStream's subscriber without a handler.

    With one, its pull loop spins without ever yielding once the connection has closed for good,
    and everything else in the process stands still.
    """

    async def get_one(self, *, timeout: float = 5) -> NatsMessage | None: ...  # noqa: ASYNC109


async def consume(
    subscriber: Subscriber,
    handle: Callable[[Delivery], Awaitable[None]],
    stop: asyncio.Event,
    *,
    workers: int,
) -> None:
    """Hand over messages in their order, at most ``workers`` at once."""
    free = asyncio.Semaphore(workers)
    running: set[asyncio.Task[None]] = set()

    def finished(task: asyncio.Task[None]) -> None:
        running.discard(task)
        free.release()

    while not stop.is_set():
        await free.acquire()
        message = await _next(subscriber, stop)
        if message is None:
            free.release()
            continue
        task = asyncio.ensure_future(handle(message.raw_message))
        running.add(task)
        task.add_done_callback(finished)
    if running:
        _, late = await asyncio.wait(running, timeout=GRACE_S)
        for task in late:
            task.cancel()


async def _next(subscriber: Subscriber, stop: asyncio.Event) -> NatsMessage | None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        message = await subscriber.get_one(timeout=POLL_S)
    except NatsError as problem:
        _log.warning("no messages can be pulled: %s", str(problem) or type(problem).__name__)
        message = None
    if message is None and loop.time() - began < FAILED_AT_ONCE_S and not stop.is_set():
        await asyncio.sleep(PAUSE_S)
    return message
