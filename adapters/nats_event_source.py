"""Follows a stream from a sequence on: an ephemeral pull consumer that is made anew when in doubt.

nats-py has no continuous pull: its `fetch` awaits message by message. Here a tap collects what comes,
while two requests overlap so that the server never waits for us.
"""

import asyncio
import contextlib
import json
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from adapters.nats_tap import headers_of, tap, untap
from domain.errors import StoreUnavailable

BATCH: Final = 2000  # messages of one batch: where throughput stops growing
BATCH_BYTES: Final = 8 * 1024 * 1024  # of one request; bounds what lies in memory
LINGER_S: Final = 0.02  # at most this long a batch waits to grow
IDLE_S: Final = 0.002  # it stops growing as soon as this long nothing comes
REQUEST_S: Final = 20.0  # a request that found nothing is made again
HEARTBEAT_S: Final = 1.0
SILENCE_S: Final = 3.0  # three heartbeats missed: the consumer or the server is gone
INACTIVE_S: Final = 30.0  # the server forgets a consumer that nobody asks for this long
RETRY_S: Final = 0.5

# As nearly everybody writes it; else the headers are read.
_TYPE: Final = re.compile(rb"\r\nce-type: ([^\r]*)\r\n")

_log = logging.getLogger(__name__)


@dataclass(slots=True)  # frozen would take three times as long to make
class LogMessage:
    """A message as it stands in the stream; ``pending`` more lay behind it.

    Its headers are read when they are first asked for: it takes as long as all that is done for a
    message that no view wants.
    """

    sequence: int
    subject: str
    block: bytes  # the headers as they stand on the wire, the server's own too
    data: bytes
    pending: int
    _headers: Mapping[str, str] | None = field(default=None, init=False, compare=False)

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            self._headers = headers_of(self.block)
        return self._headers

    @property
    def type(self) -> str:
        if found := _TYPE.search(self.block):
            return found[1].decode("utf-8", "replace")
        return self.headers.get("ce-type", "")


class NatsEventSource:
    """What a stream holds of ``subject``, or all of it.

    All of it should be asked for without a subject: where the server has one to compare, even one
    that fits everything, it takes six times as long for a message.
    """

    def __init__(
        self, nc: Client, stream: str, subject: str | None = None, *, api: str = "$JS.API"
    ) -> None:
        self._nc = nc
        self._js = nc.jetstream(prefix=api)
        self._api = api
        self._stream = stream
        self._subject = subject

    async def last(self) -> int:
        """Sequence of the stream's newest message; 0 when there never was one.

        Raises:
            StoreUnavailable: No answer, or the stream is not there yet.
        """
        try:
            info = await self._js.stream_info(self._stream)
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"{self._stream} does not answer: {error!r}") from error
        return info.state.last_seq

    async def follow(self, after: int) -> AsyncGenerator[Sequence[LogMessage], None]:
        """All messages behind ``after``, in order, without a gap, for ever.

        A batch is empty when nothing came for a second.

        Raises:
            ConnectionClosedError: The connection was closed on this side.
        """
        said = False
        while True:
            try:
                async with contextlib.aclosing(self._consume(after)) as batches:
                    async for batch in batches:
                        yield batch
                        after, said = batch[-1].sequence if batch else after, False
                _log.info("following %s anew behind %d", self._stream, after)
            except ConnectionClosedError:
                raise
            except (NatsError, OSError) as error:
                if not said:
                    _log.warning("%s cannot be followed: %r; trying again", self._stream, error)
                said = True
            await asyncio.sleep(RETRY_S)

    async def _consume(self, after: int) -> AsyncGenerator[Sequence[LogMessage], None]:
        """One consumer's messages, until it falls silent or loses one."""
        consumer = await self._js.add_consumer(
            self._stream,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after + 1,
                ack_policy=AckPolicy.NONE,
                filter_subject=self._subject,
                inactive_threshold=INACTIVE_S,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        pull = _Pull(self._nc, f"{self._api}.CONSUMER.MSG.NEXT.{self._stream}.{consumer.name}")
        await pull.open()
        try:
            while (batch := await pull.batch()) is not None:
                yield batch
        finally:
            await pull.close()


class _Pull:
    """Keeps about two batches asked for, and collects what the server sends to one inbox."""

    def __init__(self, nc: Client, subject: str) -> None:
        self._nc = nc
        self._subject = subject
        self._inbox = nc.new_inbox()
        self._raw: list[tuple[bytes, bytes, bytes, bytes]] = []  # as the server sent them
        self._arrived: deque[LogMessage] = deque()
        self._change = asyncio.Event()  # something came
        self._asked = 0  # messages that the server may still send unasked
        self._delivered = 0  # by this consumer, counted from 1 without a gap
        self._heard = 0.0
        self._broken = False

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._subscription = await self._nc.subscribe(self._inbox, cb=_unheard)
        tap(self._nc, self._subscription, self._told)

    async def close(self) -> None:
        untap(self._nc, self._subscription)
        with contextlib.suppress(NatsError):
            await self._subscription.unsubscribe()

    async def batch(self) -> list[LogMessage] | None:
        """What has come, perhaps nothing yet; None when this consumer is of no more use."""
        self._sort()
        await self._ask()
        if not self._arrived:
            if self._broken or self._loop.time() - self._heard > SILENCE_S:
                return None
            await self._wait(HEARTBEAT_S)
            self._sort()
        until = self._loop.time() + LINGER_S
        while 0 < len(self._arrived) < BATCH and self._loop.time() < until:
            # More is on its way where much is pending; else whoever waits for this should have it.
            if not await self._wait(IDLE_S) and self._arrived[-1].pending < BATCH:
                break
            self._sort()
        return [self._arrived.popleft() for _ in range(min(BATCH, len(self._arrived)))]

    async def _ask(self) -> None:
        if self._asked > BATCH or len(self._arrived) > BATCH:
            return
        request = {
            "batch": BATCH,
            "max_bytes": BATCH_BYTES,
            "expires": int(REQUEST_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        self._asked += BATCH
        await self._nc.publish(self._subject, json.dumps(request).encode(), reply=self._inbox)

    async def _wait(self, timeout_s: float) -> bool:
        """Whether something came in that time."""
        self._change.clear()
        try:
            # Unlike wait_for in Python 3.11, this never loses a cancellation that comes with a message.
            async with asyncio.timeout(timeout_s):
                await self._change.wait()
        except TimeoutError:
            return False
        return True

    def _told(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        self._heard = self._loop.time()
        self._raw.append((subject, reply, headers, data))
        self._change.set()

    def _sort(self) -> None:
        """Tell messages from what the server says about the requests."""
        raw, self._raw = self._raw, []
        for subject, reply, headers, data in raw:
            status = headers.startswith(b"NATS/1.0 ")
            if status:
                self._on_status(headers.split(maxsplit=2)[1], headers_of(headers))
            else:
                self._on_delivery(subject.decode(), reply.decode(), headers, data)

    def _on_status(self, status: bytes, headers: Mapping[str, str]) -> None:
        """A heartbeat, or the end of a request with what it left undelivered."""
        if status == b"100":
            return
        left = headers.get("Nats-Pending-Messages")
        if left is None:  # consumer deleted, leadership changed: start over
            self._broken = True
        else:
            self._asked -= int(left)

    def _on_delivery(self, subject: str, reply: str, block: bytes, data: bytes) -> None:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>;
        # with a domain the first two are <domain>.<account>.<stream>.<consumer> and a token follows.
        tokens = reply.split(".")
        offset = 5 if len(tokens) == 9 else 7
        sequence, number, _, pending = tokens[offset : offset + 4]
        self._delivered += 1
        if int(number) != self._delivered:
            self._broken = True
        if not self._broken:
            self._asked -= 1
            self._arrived.append(LogMessage(int(sequence), subject, block, data, int(pending)))


async def _unheard(_: Msg) -> None:
    """The subscription is tapped; what came before it was is asked for again."""
