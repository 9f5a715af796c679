"""A server-sent stream that goes on across dropped lines and restarts, without a gap or a repeat."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from httpx import Response
from httpx_sse import EventSource, ServerSentEvent, SSEError

from finetrail.client.errors import FinetrailError
from finetrail.client.transport import Params, Transport, delays, passing

SILENCE_S: Final = 45.0  # the server says something every 15 s; three times nothing is a dead line


def follow(
    transport: Transport,
    path: str,
    *,
    params: Params,
    after: int | None,
    patience_s: float,
) -> Iterator[ServerSentEvent]:
    """Yield every message after position ``after``, for ever; the caller stops when it has enough.

    The id of a message is its position in the log. A new connection asks for what comes after the
    last message that arrived whole, so it does not matter where the old one broke.

    Raises:
        ServerUnreachable: No connection for ``patience_s``.
        ApiError: The server refuses.
    """
    position = after
    tries = delays()
    last_contact = time.monotonic()
    while True:
        connected = False
        try:
            with _connect(transport, path, params, position) as response:
                connected = True
                for message in _messages(response):
                    tries = delays()
                    if message.id.isdigit():
                        position = int(message.id)
                    yield message
        except FinetrailError as error:
            lost_for = 0.0 if connected else time.monotonic() - last_contact
            if not passing(error) or lost_for > patience_s:
                raise
        if connected:
            last_contact = time.monotonic()
        time.sleep(next(tries))


def _messages(response: Response) -> Iterator[ServerSentEvent]:
    try:
        yield from EventSource(response).iter_sse()
    except SSEError as error:  # a kind of transport error to httpx, but no reason to ask again
        raise FinetrailError(f"{response.url} sends no event stream") from error


def _connect(
    transport: Transport, path: str, params: Params, position: int | None
) -> AbstractContextManager[Response]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if position is not None:
        headers["Last-Event-ID"] = str(position)
    asked = {**params, "after": position}
    return transport.stream(path, params=asked, headers=headers, silence_s=SILENCE_S)
