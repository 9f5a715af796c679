"""A process that projects, and whose rebuilds stand still half-way until somebody kills it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final
from unittest.mock import patch

from finetrail import projections as process
from finetrail.settings import Settings
from projections import rebuild
from projections.ports import EventSource, Message
from projections.projection import Projection

HALF: Final = 60  # events, of which all but the last ten are written


class Stalling:
    """A log that falls silent."""

    def __init__(self, source: EventSource) -> None:
        self._source = source

    async def last(self) -> int:
        return await self._source.last()

    async def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]:
        given = 0
        async with aclosing(self._source.follow(after)) as batches:
            async for batch in batches:
                for message in batch:
                    if given == HALF:
                        await asyncio.Event().wait()
                    given += 1
                    yield [message]


def stalling(projection: Projection[Any], source: EventSource, dsn: str) -> rebuild.Rebuilder[Any]:
    return rebuild.Rebuilder(projection, Stalling(source), dsn)


if __name__ == "__main__":
    with (
        patch.multiple(rebuild, FOLD=10, NEAR=0),  # a transaction for ten messages
        patch.object(process, "Rebuilder", stalling),
    ):
        asyncio.run(process.run_projections(Settings(), asyncio.Event()))
