"""The log's streams as the server itself writes and reads them: snapshots over the wire.

They keep every sequence, gap and position of a durable consumer. What they do not keep is the server's
table of message ids: nothing may depend on it for longer than the window that it has anyway.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from finetrail.stack.errors import StackError

CHUNK: Final = 512 * 1024  # bytes a message: half of what the server takes
# Of a restore. The server writes what it is given to the disk at once (`sync_interval: always`) and
# gives up on a piece that takes more than 5 s, which half a megabyte can on a busy disk.
PIECE: Final = 32 * 1024
ASK_S: Final = 30.0  # a large stream is looked through before the first chunk comes
SILENCE_S: Final = 60.0  # without a chunk; a slow disk takes its time
NOT_FOUND: Final = 404

# In the order in which what is said moves on from one to the next, so that nothing slips by: a
# command is decided into EVENTS, an event is repeated in FEED only after it is there. Telemetry
# comes last: events may say up to where it was archived, and its sequences must be as far.
STREAMS: Final = (
    "COMMANDS",
    "RETRY",
    "WORK",
    "SCHEDULE",
    "DEAD",
    "FEED",
    "EVENTS",
    "TELEMETRY",
)


class StreamRefused(StackError):
    """The server's own answer to a request."""

    def __init__(self, request: str, code: int, description: str) -> None:
        super().__init__(f"NATS refuses {request}: {description}.")
        self.code = code


class Snapshot:
    """What the server said of a stream, and its bytes as they come."""

    def __init__(self, nc: Client, config: dict[str, Any], state: dict[str, Any]) -> None:
        self.config = config
        self.state = state
        self._nc = nc
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()

    async def take(self, msg: Msg) -> None:
        self._arrived.put_nowait(msg)

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it; each is acknowledged once it was taken, so that the server waits for the disk.

        Raises:
            StackError: The server has fallen silent, or broken it off.
        """
        name = self.config["name"]
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    msg = await self._arrived.get()
            except TimeoutError as error:
                raise StackError(
                    f"The snapshot of {name} broke off.", "Make the backup again."
                ) from error
            if not msg.data:
                status = (msg.headers or {}).get("Status", "204")
                if status != "204":
                    why = (msg.headers or {}).get("Description", "")
                    raise StackError(f"The snapshot of {name} broke off: {status} {why}.")
                return
            yield msg.data
            if msg.reply:
                await self._nc.publish(msg.reply)


@asynccontextmanager
async def snapshot(nc: Client, stream: str) -> AsyncIterator[Snapshot]:
    """A stream with its durable consumers, as it is now; writers go on meanwhile.

    Raises:
        StreamRefused: The server gives none.
    """
    inbox = nc.new_inbox()
    found = Snapshot(nc, {}, {})
    subscription = await nc.subscribe(
        inbox, cb=found.take, pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    try:
        answer = await ask(
            nc, f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox, "chunk_size": CHUNK}
        )
        found.config, found.state = answer["config"], answer["state"]
        yield found
    finally:
        await subscription.unsubscribe()


async def restore(
    nc: Client, config: Mapping[str, Any], state: Mapping[str, Any], chunks: AsyncIterator[bytes]
) -> dict[str, Any]:
    """Make a stream from a snapshot; gives what the server says of it then.

    Raises:
        StreamRefused: It is there already, or the server cannot read the snapshot.
    """
    name = str(config["name"])
    answer = await ask(nc, f"STREAM.RESTORE.{name}", {"config": config, "state": state})
    subject = str(answer["deliver_subject"])
    async for chunk in chunks:
        reply = await _request(nc, subject, chunk, name)
        if reply:
            _checked(f"STREAM.RESTORE.{name}", json.loads(reply))
    done = await _request(nc, subject, b"", name)
    return _checked(f"STREAM.RESTORE.{name}", json.loads(done))


async def stream_info(nc: Client, stream: str) -> dict[str, Any] | None:
    """Configuration and state; None where there is no such stream."""
    try:
        return await ask(nc, f"STREAM.INFO.{stream}", {})
    except StreamRefused as error:
        if error.code == NOT_FOUND:
            return None
        raise


async def delete_empty(nc: Client, stream: str) -> None:
    """Remove a stream that never held anything.

    Raises:
        StackError: It holds something, or did.
    """
    info = await stream_info(nc, stream)
    if info is None:
        return
    if info["state"]["last_seq"]:
        raise StackError(
            f"The stream {stream} is not empty: it reaches to {info['state']['last_seq']}.",
            "Restore into an empty stack: another FINETRAIL_DATA_DIR, or a NATS account of its own.",
        )
    await ask(nc, f"STREAM.DELETE.{stream}", {})


async def acknowledged(nc: Client, stream: str, consumer: str) -> int:
    """Up to which sequence a durable consumer has dealt with everything; 0 if there is none."""
    try:
        info = await ask(nc, f"CONSUMER.INFO.{stream}.{consumer}", {})
    except StreamRefused as error:
        if error.code == NOT_FOUND:
            return 0
        raise
    floor: int = info["ack_floor"]["stream_seq"]
    return floor


async def rewind(nc: Client, stream: str, consumer: str, after: int) -> None:
    """Let a durable consumer deliver once more whatever is behind a sequence."""
    await ask(nc, f"CONSUMER.RESET.{stream}.{consumer}", {"seq": after + 1})


async def reserve(nc: Client, stream: str, subject: str, through: int) -> None:
    """See that the next message's sequence is above ``through``: sequences below have a meaning."""
    info = await stream_info(nc, stream)
    last = info["state"]["last_seq"] if info else 0
    while last < through:
        ack = await nc.jetstream().publish(subject, b"", timeout=ASK_S)
        last = ack.seq
        await ask(nc, f"STREAM.MSG.DELETE.{stream}", {"seq": last, "no_erase": True})


async def ask(nc: Client, request: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One request to the server's own interface.

    Raises:
        StreamRefused: It says no.
        StackError: It says nothing.
    """
    data = await _request(nc, f"$JS.API.{request}", json.dumps(body).encode(), request)
    return _checked(request, json.loads(data))


async def _request(nc: Client, subject: str, data: bytes, what: str) -> bytes:
    try:
        reply = await nc.request(subject, data, timeout=ASK_S)
    except NatsError as error:
        raise StackError(f"NATS does not answer {what}: {error!r}.", "Try it again.") from error
    return reply.data


def _checked(request: str, answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        error = answer["error"]
        raise StreamRefused(request, error["code"], error.get("description", "no reason given"))
    return answer
