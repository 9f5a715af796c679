"""Requests by minute, route and class of status: gathered in memory, kept in the database now and then.

A request never waits for the database. What a minute came to is written as a whole and again when it
has grown, under this gateway's own id, so a write that is repeated counts nothing twice and the
figures of several gateways add up. What a gateway has not written yet dies with it: at most the last
`FLUSH_S` seconds.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.request_figures import RequestFigures
from gateway.metrics import BUCKETS_S
from gateway.ports import RequestStore

FLUSH_S: Final = 15.0
FORGET_S: Final = 3600.0
KEPT: Final = timedelta(days=30)
CLOSING_S: Final = 2.0  # what the last flush may take of the time before a supervisor kills
MINUTE_S: Final = 60
MAX_CELLS: Final = 50_000  # while the database is away: a day of thirty busy routes

_log = logging.getLogger(__name__)


class Key(NamedTuple):
    minute: int  # since 1970
    method: str
    route: str
    status: str  # 2xx, …


@dataclass(slots=True)
class _Cell:
    count: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    written: int = 0  # the count that the database knows


class RequestStatistics:
    """`observe` is called for every request, `run` keeps the figures until it is cancelled."""

    def __init__(self, store: RequestStore, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock
        self._gateway: UUID = uuid7()  # a new one with every process
        self._cells: dict[Key, _Cell] = {}
        self._flushing = asyncio.Lock()
        self._away = False

    def observe(self, method: str, route: str, status: str, seconds: float) -> None:
        key = Key(int(self._clock()) // MINUTE_S, method, route, status)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell()
        cell.count += 1
        cell.seconds += seconds
        cell.slowest_s = max(cell.slowest_s, seconds)
        cell.buckets[bisect_left(BUCKETS_S, seconds)] += 1

    async def run(self) -> None:
        forgotten = -FORGET_S
        while True:
            await asyncio.sleep(FLUSH_S)
            if await self.flush() and time.monotonic() - forgotten > FORGET_S:
                forgotten = time.monotonic()
                await self._forget()

    async def close(self) -> None:
        """Write what is left, if the database answers at once."""
        try:
            async with asyncio.timeout(CLOSING_S):
                await self.flush()
        except TimeoutError:
            _log.warning("the last request statistics could not be written in time")

    async def flush(self) -> bool:
        """Write what has changed; False when the database is away, and it stays here."""
        async with self._flushing:
            changed = {key: cell for key, cell in self._cells.items() if cell.count > cell.written}
            rows = [_row(key, cell) for key, cell in changed.items()]
            try:
                if rows:
                    await self.store.write(self._gateway, rows)
            except ConnectionError as error:
                self._keep_for_later(error)
                return False
            self._away = False
            for row, cell in zip(rows, changed.values(), strict=True):
                cell.written = row.count
            self._drop_what_is_over()
            return True

    def _drop_what_is_over(self) -> None:
        now = int(self._clock()) // MINUTE_S
        for key, cell in list(self._cells.items()):
            if key.minute < now and cell.count == cell.written:
                del self._cells[key]

    def _keep_for_later(self, error: ConnectionError) -> None:
        if not self._away:
            _log.warning("request statistics cannot be written and are kept in memory: %s", error)
        self._away = True
        excess = len(self._cells) - MAX_CELLS
        if excess > 0:
            _log.error("request statistics of %d minutes and routes are dropped", excess)
            for key in list(self._cells)[:excess]:  # the oldest
                del self._cells[key]

    async def _forget(self) -> None:
        try:
            await self.store.forget(datetime.fromtimestamp(self._clock(), UTC) - KEPT)
        except ConnectionError as error:
            _log.info("old request statistics are not deleted yet: %s", error)


def _row(key: Key, cell: _Cell) -> RequestFigures:
    return RequestFigures(
        time=datetime.fromtimestamp(key.minute * MINUTE_S, UTC),
        method=key.method,
        route=key.route,
        status=key.status,
        count=cell.count,
        seconds=cell.seconds,
        slowest_s=cell.slowest_s,
        buckets=tuple(cell.buckets),
    )


def quantile_s(buckets: Sequence[int], slowest_s: float, q: float) -> float:
    """Below this lies the share ``q``, as far as buckets can tell: between two bounds it is a line."""
    wanted, seen = q * sum(buckets), 0
    for index, count in enumerate(buckets):
        if count and seen + count >= wanted:
            low = BUCKETS_S[index - 1] if index else 0.0
            high = BUCKETS_S[index] if index < len(BUCKETS_S) else slowest_s
            return min(low + (high - low) * (wanted - seen) / count, slowest_s)
        seen += count
    return slowest_s
