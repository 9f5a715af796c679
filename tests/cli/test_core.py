"""Several roles in one process end together."""

import asyncio

import pytest

from finetrail.core import RoleEnded, run_together
from finetrail.settings import Settings


class Waiting:
    """A role that does nothing but wait, and says how it ended."""

    def __init__(self) -> None:
        self.ended = ""

    async def __call__(self, _settings: Settings, stop: asyncio.Event) -> None:
        try:
            await stop.wait()
            self.ended = "asked"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def _fails(_settings: Settings, _stop: asyncio.Event) -> None:
    raise ConnectionError("away")


async def _ends(_settings: Settings, _stop: asyncio.Event) -> None:
    return


async def test_all_run_until_they_are_asked_to_stop() -> None:
    one, other, stop = Waiting(), Waiting(), asyncio.Event()
    running = asyncio.create_task(run_together((one, other), Settings(), stop))

    stop.set()
    await asyncio.wait_for(running, 5)

    assert (one.ended, other.ended) == ("asked", "asked")


async def test_one_that_fails_takes_the_others_with_it() -> None:
    one = Waiting()

    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(run_together((one, _fails), Settings(), asyncio.Event()), 5)

    assert raised.group_contains(ConnectionError, match="away")
    assert one.ended == "cancelled"


async def test_one_that_ends_by_itself_is_an_error() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(run_together((Waiting(), _ends), Settings(), asyncio.Event()), 5)

    assert raised.group_contains(RoleEnded, match="_ends")
