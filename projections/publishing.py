"""Puts signed heads where they survive the database, at least once each and in order."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from domain.audit import Head, Key
from projections import archive_store as store
from projections.figures import PUBLISHED
from projections.postgres import AWAY
from projections.run import connect

AT_ONCE: Final = 1000  # heads of one round
RETRY_S: Final = 30.0
ROUND_S: Final = 30.0  # a place that has not answered by then, such as a dead mount, is away

_log = logging.getLogger(__name__)


class HeadPlace(Protocol):
    """Somewhere out of the database's reach."""

    @property
    def name(self) -> str:
        """What kind of place it is, for figures."""
        ...

    @property
    def where(self) -> str:
        """Which one it is; another one gets all heads."""
        ...

    async def last(self, log: str) -> int | None:
        """The last head that it has; None where only the archive knows what it was given."""
        ...

    async def put(self, heads: Sequence[Head], keys: Sequence[Key]) -> None:
        """Keep them; what is there already is not put twice.

        Raises:
            OSError: It cannot be written now; some of them may be.
        """
        ...


class Publisher:
    """Carries heads from the archive to all places."""

    def __init__(self, dsn: str, places: Sequence[HeadPlace]) -> None:
        self._dsn = dsn
        self._places = places
        self._woken = asyncio.Event()
        self._said: dict[str, str | None] = {}

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Publish whenever there is a head, for ever."""
        while True:
            self._woken.clear()
            done = await self.round()
            try:
                async with asyncio.timeout(None if done else RETRY_S):
                    await self._woken.wait()
            except TimeoutError:
                _log.debug("publishing what could not be published before")

    async def round(self) -> bool:
        """Bring every place up to date; whether all of them are."""
        results = [await self._tried(place) for place in self._places]
        return all(results)

    async def _tried(self, place: HeadPlace) -> bool:
        try:
            async with asyncio.timeout(ROUND_S):
                await self._catch_up(place)
        except AWAY as error:
            await self._failed(place, str(error) or type(error).__name__)
            return False
        if self._said.pop(place.name, None) is not None:
            _log.info("heads are kept in %s again", place.where)
        PUBLISHED.labels(place.name).set(1)
        return True

    async def _catch_up(self, place: HeadPlace) -> None:
        connection = await connect(self._dsn)
        try:
            chain = await store.chain(connection)
            there = await place.last(chain.log.hex()) if chain.log else None
            after = await store.cursor(connection, place.where) if there is None else there
            keys = await store.keys(connection)
            while heads := await store.heads(connection, after, AT_ONCE):
                await place.put(heads, keys)
                after = heads[-1].sequence
                await store.move_cursor(connection, place.where, after)
        finally:
            connection.terminate()

    async def _failed(self, place: HeadPlace, reason: str) -> None:
        PUBLISHED.labels(place.name).set(0)
        if self._said.get(place.name) != reason:
            _log.error("heads cannot be kept in %s: %s; trying again", place.where, reason)
        self._said[place.name] = reason
        try:
            connection = await connect(self._dsn)
        except AWAY:
            return  # Postgres itself is away, which others say
        try:
            await store.move_cursor(connection, place.where, 0, reason)
        except AWAY as error:
            _log.debug("the reason cannot be written down: %s", error)
        finally:
            connection.terminate()
