"""Publishes into a stream until it is acknowledged; the message id makes repeats collide."""

import asyncio
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.errors import StoreUnavailable
from domain.subjects import ONLY_ONE
from domain.wire import Headers

TRIES: Final = 3
TRY_S: Final = 2.0
PAUSE_S: Final = 0.1
WRONG_SEQUENCE: Final = 10071  # there is another last message of this subject than was expected


class JetStreamPublisher:
    def __init__(self, nc: Client) -> None:
        self._js = nc.jetstream()

    async def __call__(self, subject: str, body: bytes, headers: Headers) -> None:
        """Publish once; ``headers`` must hold a ``Nats-Msg-Id``.

        With ``ONLY_ONE`` among them, what is there already is left, however long it has been.

        Raises:
            StoreUnavailable: No acknowledgement; the same call again is safe.
        """
        problem: Exception | None = None
        for _ in range(TRIES):
            try:
                await self._js.publish(subject, body, timeout=TRY_S, headers=headers)
            except (NatsError, TimeoutError) as error:
                if ONLY_ONE in headers and getattr(error, "err_code", 0) == WRONG_SEQUENCE:
                    return
                problem = error
                await asyncio.sleep(PAUSE_S)
            else:
                return
        raise StoreUnavailable(f"{subject} is not acknowledged: {problem}") from problem
