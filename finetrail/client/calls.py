"""What every group of calls stands on: the API's paths, lists and waiting."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

from finetrail.client.errors import FinetrailError, NotFound, WaitTimeout
from finetrail.client.transport import API, Transport, json_object, passing

T = TypeVar("T")
Point = str | int | datetime  # of the log: a sequence, or a time with its zone

PATIENCE_S: Final = 120.0  # of what waits or follows: a server that is rebooted is back by then
POLL_S: Final = 0.5
PAGE: Final = 100  # the most that the server gives at once


class Calls:
    """One server's API by path."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _get(self, path: str, **params: str | int | None) -> dict[str, Any]:
        return json_object(self._transport.call("GET", API + path, params=params))

    def _list(self, path: str, **params: str | int | None) -> list[dict[str, Any]]:
        """A list that comes whole."""
        return _items(self._transport.call("GET", API + path, params=params).json())

    def _pages(
        self, path: str, limit: int | None, **params: str | int | None
    ) -> list[dict[str, Any]]:
        """A list that comes in pages: as many items as are wanted, or all there are."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            asked = {**params, "limit": size, "cursor": cursor}
            answer = self._transport.call("GET", API + path, params=asked).json()
            found += _items(answer)
            cursor = answer.get("next") if isinstance(answer, dict) else None
            if cursor is None:
                break
        return found

    def _post(self, path: str, data: object = None) -> dict[str, Any]:
        return json_object(self._transport.call("POST", API + path, json=data))

    def _patch(self, path: str, data: object) -> dict[str, Any]:
        return json_object(self._transport.call("PATCH", API + path, json=data))

    def _delete(self, path: str) -> None:
        self._transport.call("DELETE", API + path)

    def _until(
        self, ask: Callable[[], T | None], what: str, timeout_s: float | None, poll_s: float
    ) -> T:
        """Ask until there is an answer; a server that is away for a while is waited for."""
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        last_contact = time.monotonic()
        while True:
            try:
                answer = ask()
            except FinetrailError as error:
                if not passing(error) or time.monotonic() - last_contact > PATIENCE_S:
                    raise
            else:
                last_contact = time.monotonic()
                if answer is not None:
                    return answer
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimeout(f"{what} after {timeout_s:.0f} s")
            time.sleep(poll_s)


def _items(answer: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer if isinstance(answer, list) else answer["items"]
    return found


def point(as_of: Point | None) -> str | None:
    """A point of the log as the server is asked for it.

    Raises:
        ValueError: A time without its zone could be any of a whole day's.
    """
    if not isinstance(as_of, datetime):
        return None if as_of is None else str(as_of)
    if as_of.tzinfo is None:
        raise ValueError(f"{as_of} has no time zone; datetime.now(UTC) has one")
    return as_of.isoformat()


def part(text: str) -> str:
    """A name or an id as one part of a path."""
    return quote(text, safe="")


def without_none(asked: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in asked.items() if value is not None}


def or_none(ask: Callable[[], T]) -> T | None:
    """What is asked for, or None while it is not there yet."""
    try:
        return ask()
    except NotFound:
        return None
