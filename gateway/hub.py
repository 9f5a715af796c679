"""One live subscription per stream and process, and a bounded mailbox for each open response.

The live copy of a stream is at-most-once. But it is of the whole stream, so a sequence that does not
follow the one before it tells that something was missed; a look at the stream's end now and then
tells what a jump cannot. Then every mailbox is told to read the stream itself again.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from domain.errors import StoreUnavailable
from gateway.ports import Feed, FeedMessage, Log

MAILBOX_FRAMES: Final = 256  # behind a reader that is slower than this, the stream itself waits
TAIL_CHECK_S: Final = 2.0  # how long the loss of the very last message can stay unnoticed
RETRY_S: Final = 0.5

Encoder = Callable[[FeedMessage], bytes]

_log = logging.getLogger(__name__)


class Frame:
    """A message and its encodings, each made once for all who read it."""

    __slots__ = ("_encoded", "message")

    def __init__(self, message: FeedMessage) -> None:
        self.message = message
        self._encoded: dict[Encoder, bytes] = {}

    def encoded(self, encode: Encoder) -> bytes:
        known = self._encoded.get(encode)
        if known is None:
            known = self._encoded[encode] = encode(self.message)
        return known


class Mailbox:
    """What came for one reader since it looked last."""

    def __init__(self) -> None:
        self.lost = False  # something is missing: read the stream again
        self.closed = False  # the process is about to end
        self.rewound: dict[Log, int] = {}  # streams that lost their end, and what is left of them
        self._frames: deque[Frame] = deque()
        self._news = asyncio.Event()

    def put(self, frame: Frame) -> None:
        if len(self._frames) >= MAILBOX_FRAMES:
            self.lose()
        elif not self.lost:
            self._frames.append(frame)
            self._news.set()

    def lose(self) -> None:
        self._frames.clear()  # the stream has them all
        self.lost = True
        self._news.set()

    def rewind(self, log: Log, to: int) -> None:
        self.rewound[log] = min(to, self.rewound.get(log, to))
        self.lose()

    def close(self) -> None:
        self.closed = True
        self._news.set()

    def begin_again(self) -> None:
        """From here on nothing is missing; to be called before the stream is read."""
        self.lost = False

    async def take(self, timeout_s: float) -> Sequence[Frame]:
        """All that is there, after waiting for the first; nothing when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        frames = tuple(self._frames)
        self._frames.clear()
        if not self.closed:
            self._news.clear()
        return frames


class Hub:
    """Hands live messages to mailboxes by topic: a whole subject, or the tokens it begins with."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._boxes: defaultdict[str, set[Mailbox]] = defaultdict(set)
        self._reached: dict[Log, int] = {}  # all up to here was delivered, or told to be missing
        self._heard: dict[Log, int] = {}  # the last that the live copy brought
        self._closed = False

    @property
    def readers(self) -> int:
        return len(set().union(*self._boxes.values()))

    @contextlib.contextmanager
    def mailbox(self, *topics: str) -> Iterator[Mailbox]:
        box = Mailbox()
        for topic in topics:
            self._boxes[topic].add(box)
        if self._closed:
            box.close()
        try:
            yield box
        finally:
            for topic in topics:
                self._boxes[topic].discard(box)
                if not self._boxes[topic]:
                    del self._boxes[topic]

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for log in ("EVENTS", "TELEMETRY"):
                tasks.create_task(self._listen(log))
                tasks.create_task(self._watch_tail(log))

    def close(self) -> None:
        """End every open response; the clients come back with the last id they saw."""
        self._closed = True
        for box in self._all():
            box.close()

    def deliver(self, log: Log, message: FeedMessage) -> None:
        if message.sequence <= self._heard.get(log, 0):
            self._rewind(log, message.sequence - 1)
        self._heard[log] = message.sequence
        reached = self._reached.get(log)
        if reached is not None and message.sequence <= reached:
            return
        if reached is not None and message.sequence > reached + 1:
            self._miss(log)
        self._reached[log] = message.sequence
        frame: Frame | None = None
        for topic in _prefixes(message.subject):
            for box in self._boxes.get(topic, ()):
                frame = frame or Frame(message)
                box.put(frame)

    async def _listen(self, log: Log) -> None:
        while True:
            try:
                async with self._feed.live(log) as messages:
                    self._heard[log] = 0
                    self._reached[log] = (await self._feed.state(log)).last
                    self._miss(log)  # whatever came while nobody listened
                    async for message in messages:
                        self.deliver(log, message)
            except StoreUnavailable as error:
                _log.info("no live copy of %s yet: %s", log, error)
            await asyncio.sleep(RETRY_S)

    async def _watch_tail(self, log: Log) -> None:
        while True:
            await asyncio.sleep(TAIL_CHECK_S)
            before = self._reached.get(log)
            if before is None or not self._boxes:
                continue
            with contextlib.suppress(StoreUnavailable):
                last = (await self._feed.state(log)).last
                # A message on its way is delivered within this moment; a lost one is not.
                await asyncio.sleep(RETRY_S)
                if last < before:
                    self._rewind(log, last)
                elif last > self._reached[log]:
                    self._reached[log] = last
                    self._miss(log)

    def _rewind(self, log: Log, to: int) -> None:
        """A server that died took with it what it had not yet written; its numbers come again."""
        _log.info("%s ends at %s now", log, to)
        self._reached[log] = self._heard[log] = to
        for box in self._all(log.lower()):
            box.rewind(log, to)

    def _miss(self, log: Log) -> None:
        _log.debug("the live copy of %s has a gap", log)
        for box in self._all(log.lower()):
            box.lose()

    def _all(self, first_token: str = "") -> set[Mailbox]:
        chosen = (boxes for topic, boxes in self._boxes.items() if topic.startswith(first_token))
        return set().union(*chosen)


def _prefixes(subject: str) -> Iterator[str]:
    """``events.default.job.<id>``, then ``events.default.job``, … without copying it each time."""
    end = len(subject)
    while end > 0:
        yield subject[:end]
        end = subject.rfind(".", 0, end)


def topic_filter(topic: str, log: Log) -> str:
    """The subject filter for the same messages."""
    tokens = {"EVENTS": 4, "TELEMETRY": 5}[log]
    return topic if topic.count(".") == tokens - 1 else f"{topic}.>"
