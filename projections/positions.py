"""Where the projections stand, told by Postgres in the moment they move."""

import asyncio
import contextlib
import logging
from typing import Any, Final

import asyncpg

from projections import tables
from projections.postgres import AWAY

REGISTRY: Final = "registry"
METRICS: Final = "metrics"

RETRY_S: Final = 1.0  # between attempts to listen; meanwhile waiters look for themselves
CHECK_S: Final = 30.0  # a connection that died without a word is found out after this long

_log = logging.getLogger(__name__)


class Positions:
    """Listens on a connection of its own. What it knows may be late, but is never ahead."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._known: dict[str, int] = {}
        self._change = asyncio.Event()

    def reached(self, name: str, sequence: int) -> bool:
        return self._known.get(name, 0) >= sequence

    async def moved(self, name: str, sequence: int, timeout_s: float) -> None:
        """Return as soon as some projection moves, or this one is there, or the time is up."""
        if self.reached(name, sequence):
            return  # told while the caller looked elsewhere
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), timeout_s)

    async def listen(self) -> None:
        """Listen for ever, through restarts of Postgres."""
        while True:
            try:
                await self._listen_once()
            except AWAY as error:
                _log.debug("cannot listen for projections: %s", error)
            self._known.clear()  # the tables may be made anew while nobody listens
            await asyncio.sleep(RETRY_S)

    async def _listen_once(self) -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self._dsn, timeout=5)
        try:
            await connection.add_listener(tables.CHANNEL, self._hear)
            while not connection.is_closed():
                await connection.execute("SELECT 1", timeout=5)
                await asyncio.sleep(CHECK_S)
        finally:
            connection.terminate()

    def _hear(self, _: object, __: int, ___: str, payload: object) -> None:
        name, _, sequence = str(payload).partition(" ")
        self._known[name] = int(sequence)
        changed, self._change = self._change, asyncio.Event()
        changed.set()
