"""Server-sent events over a stream: replay from where the client stands, then live, no gap, no repeat.

The id of a message is its sequence in the stream, so it means the same after a restart and on
every gateway. A mailbox is opened before the stream is read and what it holds twice is skipped.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

from domain.errors import StoreUnavailable
from gateway.hub import Encoder, Frame, Hub, Mailbox, topic_filter
from gateway.log_archive import JobArchive
from gateway.metrics import STREAM_MESSAGES
from gateway.ports import Feed, Log

PAGE: Final = 256  # messages a read: at most a few MiB, of which one is on its way
RECONNECT_MS: Final = 1000
HEARTBEAT: Final = b": still here\n\n"
_OPENING: Final = f"retry: {RECONNECT_MS}\n\n".encode()
_AWAY_S: Final = 1.0

STREAM_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def encode(event: str, data: Any, sequence: int | None = None) -> bytes:
    """One event. JSON text has no line breaks, so one data line holds it."""
    id_line = "" if sequence is None else f"id: {sequence}\n"
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"{id_line}event: {event}\ndata: {text}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Reading:
    """What one client reads, and from where."""

    log: Log
    topic: str
    after: int  # the last sequence that the client has seen
    encode: Encoder  # empty bytes for a message that is not wanted
    watched: tuple[str, ...] = ()  # topics that may mean the end
    ending: Callable[[], Awaitable[bytes]] | None = None  # the last event, once there is one
    archive: JobArchive | None = None  # of what the stream may have forgotten


class EventStreams:
    """Opens streams of server-sent events."""

    def __init__(
        self, hub: Hub, feed: Feed, heartbeat_s: float = 15.0, replica_lag_s: float = 0.0
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._heartbeat_s = heartbeat_s
        self._replica_lag_s = replica_lag_s
        self._sent = {log: STREAM_MESSAGES.labels(log.lower()) for log in get_args(Log)}

    async def open(
        self, reading: Reading, allowed: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[bytes]:
        """Bytes for as long as the client listens, may do so, and there is more to come."""
        position = _Position(reading.after)
        with self._hub.mailbox(reading.topic, *reading.watched) as box:
            yield _OPENING
            while not box.closed and allowed():
                box.begin_again()
                left = box.rewound.pop(reading.log, position.reached)
                position.reached = min(position.reached, left)
                try:
                    ending = await self._ending(reading)
                    async for chunk in self._replay(reading, position):
                        yield chunk
                    if self._replica_lag_s:
                        # Whoever answered may have been behind by what came just before the mailbox.
                        await asyncio.sleep(self._replica_lag_s)
                        async for chunk in self._replay(reading, position):
                            yield chunk
                except StoreUnavailable:
                    yield HEARTBEAT
                    await box.take(_AWAY_S)
                    continue
                if ending:
                    yield ending
                    return
                async for chunk in self._live(reading, box, position, allowed):
                    yield chunk

    async def _ending(self, reading: Reading) -> bytes:
        """Asked before the stream is read: what was said before the end is then in what is read."""
        return await reading.ending() if reading.ending else b""

    async def _replay(self, reading: Reading, position: "_Position") -> AsyncIterator[bytes]:
        if reading.archive is not None:
            async for chunk in self._recall(reading, reading.archive, position):
                yield chunk
        elif position.reached:
            first = (await self._feed.state(reading.log)).first
            if position.reached + 1 < first:
                yield encode("gap", {"after": position.reached, "first": first})
                position.reached = first - 1
        subject, more = topic_filter(reading.topic, reading.log), True
        while more:
            messages, more = await self._feed.page(reading.log, subject, position.reached, PAGE)
            if messages:
                position.reached = messages[-1].sequence
                encoded = [reading.encode(message) for message in messages]
                if chunk := b"".join(encoded):
                    self._sent[reading.log].inc(sum(map(bool, encoded)))
                    yield chunk

    async def _recall(
        self, reading: Reading, archive: JobArchive, position: "_Position"
    ) -> AsyncIterator[bytes]:
        """What was archived, under the ids that it had in the stream."""
        async for recalled in archive.forgotten(position.reached, self._feed):
            if recalled.messages:
                position.reached = recalled.messages[-1].sequence
                encoded = [reading.encode(message) for message in recalled.messages]
                self._sent[reading.log].inc(sum(map(bool, encoded)))
                yield b"".join(encoded)
            if recalled.after:
                if recalled.lost and position.reached:
                    yield encode("gap", {"after": position.reached, "first": recalled.after + 1})
                position.reached = recalled.after

    async def _live(
        self,
        reading: Reading,
        box: Mailbox,
        position: "_Position",
        allowed: Callable[[], bool],
    ) -> AsyncIterator[bytes]:
        while not (box.lost or box.closed) and allowed():
            frames = await box.take(self._heartbeat_s)
            if not frames:
                yield HEARTBEAT
            fresh = [self._fresh(frame, reading, box, position) for frame in frames]
            if chunk := b"".join(fresh):
                self._sent[reading.log].inc(sum(map(bool, fresh)))
                yield chunk

    def _fresh(self, frame: Frame, reading: Reading, box: Mailbox, position: "_Position") -> bytes:
        subject = frame.message.subject
        if any(subject.startswith(topic) for topic in reading.watched):
            box.lose()  # it may be the end: read on to whatever was said before it
            return b""
        if frame.message.sequence <= position.reached:
            return b""
        position.reached = frame.message.sequence
        return frame.encoded(reading.encode)


@dataclass(slots=True)
class _Position:
    reached: int
