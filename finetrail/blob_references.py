"""Which blobs the log speaks of: what `finetrail doctor --blobs` expects and `blobs collect` spares.

Messages are read as plain JSON, so that nothing depends on knowing their types: events of a newer
build, and commands that nobody has decided yet, count like all others.
"""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError
from typing_extensions import override

from adapters.nats_feed import FeedMessage, NatsFeed
from domain.blobs import BlobRef
from domain.errors import StoreUnavailable
from finetrail.bootstrap import admin_connection
from finetrail.forgotten_blobs import forgotten
from finetrail.settings import Settings
from finetrail.stack.errors import StackError

PAGE: Final = 500  # events of one request
TIMEOUT_S: Final = 5.0
NO_MESSAGE: Final = 404
# In the order in which what is said moves on from one to the next, so that nothing slips by.
# TELEMETRY says nothing that lasts, FEED repeats EVENTS, and SCHEDULE names no blobs.
STREAMS: Final = ("WORK", "COMMANDS", "DEAD", "RETRY", "EVENTS")
HASH: Final = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Reference:
    """One place in the log that names a blob."""

    blob: BlobRef
    sequence: int
    event: str  # its type
    subject: str
    purpose: str  # the field, and the path in its manifest: "adapter: adapter_model.safetensors"

    @override
    def __str__(self) -> str:
        return f"event {self.sequence} {self.event}, {self.purpose}"


class LogIncomplete(StackError):
    """Nobody can say what is not referred to while a part of the log is missing."""


@asynccontextmanager
async def open_log(settings: Settings) -> AsyncIterator[Client]:
    """A connection that may read every stream.

    Raises:
        BootstrapError: There is no server, or it refuses the login.
        StackError: It went away while it was read.
    """
    try:
        async with admin_connection(settings) as nc:
            yield nc
    except (StoreUnavailable, NatsError) as error:
        raise StackError(f"The log cannot be read: {error}.", "Try it again.") from error


async def referenced(nc: Client) -> AsyncIterator[Reference]:
    """Every reference of every event, oldest first, but those to what is of forgotten people."""
    gone = await forgotten(nc)
    async for message in _events(nc):
        for blob, purpose in blobs_in(gone.without_theirs(message.data)):
            type_ = message.headers.get("ce-type", "")
            yield Reference(blob, message.sequence, type_, message.subject, purpose)


async def mentioned(nc: Client) -> set[str]:
    """Every SHA-256 that stands anywhere in the log or in what is still to be decided or done.

    Where it is said of the blob of a forgotten person it does not count.

    Raises:
        LogIncomplete: EVENTS is missing, or some of it.
    """
    found: set[str] = set()
    await _check_events(nc)
    gone = await forgotten(nc)
    for stream in STREAMS:
        async for data in _messages(nc, stream):
            said = gone.without_theirs(data)
            found.update(digest.decode() for digest in HASH.findall(said))
    return found


def blobs_in(data: bytes) -> Iterator[tuple[BlobRef, str]]:
    """The references in a message and what each is for; none in what is no JSON."""
    try:
        payload = json.loads(data)
    except ValueError:
        return
    yield from _walk(payload, "")


def _walk(value: object, place: str) -> Iterator[tuple[BlobRef, str]]:
    match value:
        case {"sha256": str(), "size": int()}:
            try:
                yield BlobRef.model_validate(value), place
            except ValidationError:  # it only looks like one
                return
        case {"path": str(path), "blob": blob}:
            yield from _walk(blob, f"{place}: {path}")
        case dict():
            for name, inner in value.items():
                yield from _walk(inner, f"{place}.{name}".lstrip("."))
        case list():
            for inner in value:
                yield from _walk(inner, place)
        case _:
            return


async def _events(nc: Client) -> AsyncIterator[FeedMessage]:
    feed, after, more = NatsFeed(nc), 0, True
    while more:
        page, more = await feed.page("EVENTS", "events.>", after, PAGE)
        for message in page:
            after = message.sequence
            yield message


async def _messages(nc: Client, stream: str) -> AsyncIterator[bytes]:
    if stream == "EVENTS":
        async for event in _events(nc):
            yield event.data
        return
    sequence = 1  # the others are short, and not all of them give pages
    while (message := await _next(nc, stream, sequence)) is not None:
        sequence = int(message["seq"]) + 1
        yield base64.b64decode(message.get("data", ""))


async def _next(nc: Client, stream: str, sequence: int) -> dict[str, Any] | None:
    """The first message at or behind ``sequence``."""
    body = {"seq": sequence, "next_by_subj": ">"}
    answer = await _ask(nc, f"STREAM.MSG.GET.{stream}", body)
    if "error" not in answer:
        message: dict[str, Any] = answer["message"]
        return message
    if answer["error"]["code"] == NO_MESSAGE:
        return None
    raise LogIncomplete(f"{stream} cannot be read: {answer['error'].get('description')}.")


async def _check_events(nc: Client) -> None:
    answer = await _ask(nc, "STREAM.INFO.EVENTS", {})
    if "error" in answer:
        raise LogIncomplete(f"EVENTS cannot be read: {answer['error'].get('description')}.")
    state = answer["state"]
    if state["last_seq"] == 0:
        raise LogIncomplete(
            "There are no events yet.", "Check that these are the settings of the right stack."
        )
    if state["first_seq"] != 1 or state["messages"] != state["last_seq"]:
        raise LogIncomplete(
            f"EVENTS holds {state['messages']} of {state['last_seq']} events.",
            "Restore the log from a backup: what the missing ones refer to is not known.",
        )


async def _ask(nc: Client, request: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = await nc.request(f"$JS.API.{request}", json.dumps(body).encode(), timeout=TIMEOUT_S)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer
