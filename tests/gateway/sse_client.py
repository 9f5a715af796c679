"""Reads server-sent events out of bytes."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Said:
    event: str
    id: int | None
    data: Any


def parse(text: str) -> list[Said]:
    """What a text says; comments and `retry` are passed over."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")
        )
        if "data" in fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append(Said(fields["event"], number, json.loads(fields["data"])))
    return found


class Listener:
    """Collects from a stream of bytes until it has what it waits for."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._text = ""
        self.comments = 0

    async def until(self, count: int) -> list[Said]:
        """At least so many events; fails by the test's own timeout if they do not come."""
        while len(self.said) < count:
            await self._more()
        return self.said

    async def heartbeat(self) -> None:
        known = self.comments
        while self.comments == known:
            await self._more()

    async def rest(self) -> list[Said]:
        async for chunk in self._chunks:
            self._take(chunk)
        return self.said

    @property
    def said(self) -> list[Said]:
        return parse(self._text)

    async def _more(self) -> None:
        self._take(await anext(self._chunks))

    def _take(self, chunk: bytes) -> None:
        self.comments += chunk.startswith(b":")
        self._text += chunk.decode()
