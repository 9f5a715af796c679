"""Reads one type of event of all streams of a kind, through pages of the log."""

import logging
from collections.abc import AsyncIterator
from typing import Any, Final, TypeVar

from adapters.nats_feed import NatsFeed
from domain.catalog import UnknownType
from domain.messages import Event, Recorded
from domain.subjects import Aggregate
from domain.wire import decode_recorded

E = TypeVar("E", bound=Event)

PAGE: Final = 500  # events of one answer

_log = logging.getLogger(__name__)


class LogScan:
    """Nothing is kept between two scans: whoever asks does so rarely."""

    def __init__(self, feed: NatsFeed) -> None:
        self._feed = feed

    async def __call__(
        self, workspace: str, aggregate: Aggregate, type_: type[E]
    ) -> AsyncIterator[Recorded[E]]:
        """Oldest first.

        Raises:
            StoreUnavailable: The log is away.
        """
        subject, after, more = f"events.{workspace}.{aggregate}.*", 0, True
        while more:
            page, more = await self._feed.page("EVENTS", subject, after, PAGE)
            for message in page:
                after = message.sequence
                if message.headers.get("ce-type") != type_.__name__:
                    continue
                try:
                    recorded: Any = decode_recorded(
                        message.subject, message.sequence, message.headers, message.data
                    )
                except UnknownType as error:
                    _log.warning("event %d is passed over: %s", message.sequence, error)
                    continue
                yield recorded
