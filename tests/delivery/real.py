"""A real receiver and a real log, for deliveries as they are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from nats.aio.client import Client

from domain.messages import Command, Envelope, Event, StreamId
from domain.subjects import Aggregate
from domain.wire import encode_event

BATCH = 500


@dataclass(frozen=True)
class Posted:
    headers: dict[str, str]
    body: bytes
    at: datetime  # by the receiver's clock


@dataclass
class Receiver:
    """An HTTP server that keeps what it took; `answer` is what it says, None for nothing at all."""

    answer: Callable[[], str | None] = lambda: "200 OK"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    taken: list[Posted] = field(default_factory=list)
    turned_away: int = 0
    port: int = 0
    slow: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _request(reader, self.clock):
                if self.slow is not None:
                    await self.slow.wait()
                said = self.answer()
                if said is None:
                    self.turned_away += 1
                    return
                if said.startswith("2"):
                    self.taken.append(request)
                extra = "" if "\r\n" in said else "\r\n"
                writer.write(f"HTTP/1.1 {said}{extra}Content-Length: 2\r\n\r\nok".encode())
                await writer.drain()
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader, clock: Callable[[], datetime]) -> Posted | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:-2]
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
    return Posted(headers, await reader.readexactly(int(headers["content-length"])), clock())


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[Receiver]:
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


async def append(
    nc: Client, events: Sequence[tuple[Aggregate, UUID, Event]], space: UUID
) -> list[UUID]:
    """Put events into the log by atomic batches, as quickly as it goes; give their ids."""
    ids: list[UUID] = []
    for first in range(0, len(events), BATCH):
        some = events[first : first + BATCH]
        name = nc.new_inbox().rpartition(".")[2]
        for number, (aggregate, id_, event) in enumerate(some, 1):
            ids.append(uuid5(space, str(len(ids))))
            stream = StreamId("default", aggregate, id_)
            headers, body = encode_event(
                event, event_id=ids[-1], cause=_cause(stream, ids[-1]), recorded_at=NOW
            )
            headers |= {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number)}
            if number < len(some):
                await nc.publish(stream.subject, body, headers=headers)
                continue
            headers["Nats-Batch-Commit"] = "1"
            reply = await nc.request(stream.subject, body, timeout=10, headers=headers)
            assert b"error" not in reply.data, reply.data
    return ids


NOW = datetime.now(UTC) - timedelta(minutes=1)


def _cause(stream: StreamId, id_: UUID) -> Envelope[Command]:
    return Envelope(
        id=id_,
        stream=stream,
        source="gateway",
        actor="key:Ab3dEf7h",
        correlation_id=id_,
        causation_id=None,
        sent_at=NOW,
        command=Command(),
    )


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def working(task: "asyncio.Task[None]") -> AsyncIterator[None]:
    """The task for the length of the block, unless it fails before."""
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
