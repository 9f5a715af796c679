"""Keeps what concerns one stream in order, while different streams go on side by side."""

import asyncio
from weakref import WeakValueDictionary

from domain.messages import StreamId


class InTurn:
    """One thing at a time for each stream of this process, in the order of asking."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[StreamId, asyncio.Lock] = WeakValueDictionary()

    def __call__(self, stream: StreamId) -> asyncio.Lock:
        return self._locks.setdefault(stream, asyncio.Lock())
