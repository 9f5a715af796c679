"""Keeps the keys in force up to date from the access stream: a revoked key is refused at once."""

import asyncio
import logging
from typing import Final

from domain.access.access import access_id, decider
from domain.access.events import KeyIssued, KeyRevoked
from domain.catalog import UnknownType
from domain.errors import StoreUnavailable
from domain.messages import StreamId
from domain.wire import decode_recorded
from gateway.hub import Hub
from gateway.ports import Feed, FeedMessage

PAGE: Final = 1000
LOOK_S: Final = 15.0  # looks at the stream itself now and then, whatever the live copy says
RETRY_S: Final = 0.5

_log = logging.getLogger(__name__)


class Keyring:
    """Follows the access stream; it needs no database, so keys work while Postgres is away."""

    def __init__(self, hub: Hub, feed: Feed, workspace: str) -> None:
        self._hub = hub
        self._feed = feed
        self._subject = StreamId(workspace, "access", access_id(workspace)).subject
        self._access = decider.initial
        self._reached = 0
        self._change = asyncio.Condition()
        self.loaded = False

    def find(self, key_id: str) -> KeyIssued | None:
        return self._access.keys.get(key_id)

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        """Wait until this event counts; False when it takes longer."""
        try:
            async with asyncio.timeout(timeout_s), self._change:
                await self._change.wait_for(lambda: self._reached >= sequence)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Follow until cancelled."""
        with self._hub.mailbox(self._subject) as box:
            while True:
                box.begin_again()
                try:
                    await self._catch_up()
                except StoreUnavailable as error:
                    _log.info("keys cannot be read: %s", error)
                    await asyncio.sleep(RETRY_S)
                    continue
                await box.take(LOOK_S)

    async def _catch_up(self) -> None:
        more = True
        while more:
            messages, more = await self._feed.page("EVENTS", self._subject, self._reached, PAGE)
            for message in messages:
                self._apply(message)
        self.loaded = True
        async with self._change:
            self._change.notify_all()

    def _apply(self, message: FeedMessage) -> None:
        self._reached = message.sequence
        try:
            recorded = decode_recorded(
                message.subject, message.sequence, message.headers, message.data
            )
        except UnknownType:
            _log.warning("event %s of a newer version is passed over", message.sequence)
            return
        if isinstance(recorded.event, KeyIssued | KeyRevoked):
            self._access = decider.evolve(self._access, recorded.event)
