"""The time, where a process needs it; rules and tests are given theirs."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Final

LONGEST_S: Final = 60.0  # of one wait: a clock that is set, or a machine that slept, is noticed


def utc_now() -> datetime:
    return datetime.now(UTC)


class SystemTimer:
    """The machine's own clock."""

    def now(self) -> datetime:
        return utc_now()

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        """Return when the event is set or the time has come."""
        while not event.is_set():
            left = LONGEST_S if until is None else (until - utc_now()).total_seconds()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LONGEST_S)):
                    await event.wait()
