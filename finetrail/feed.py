"""The feed for whoever owns the data directory: its credentials, its last messages, a new start."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import BaseModel

from adapters.nats_connection import close, connect
from adapters.nats_event_source import LogMessage, NatsEventSource
from domain.errors import StoreUnavailable
from domain.feed import DOMAIN, SEQUENCE_HEADER, STREAM
from finetrail.bootstrap import admin_connection, bootstrap
from finetrail.client.errors import ServerUnreachable
from finetrail.settings import SettingMissing, Settings
from finetrail.stack.errors import StackError

API: Final = f"$JS.{DOMAIN}.API"  # as subscribers reach it
CONNECT_S: Final = 10.0
TIMEOUT_S: Final = 5.0


class Credentials(BaseModel):
    """What another system needs to subscribe."""

    url: str
    user: str
    password: str


class FeedEntry(BaseModel):
    """A message of the feed; ``data`` is as it was published, also of a type that is not known here."""

    sequence: int  # of the feed, to start from
    log_sequence: int | None  # of the event log
    subject: str
    id: str
    type: str
    version: str
    time: str
    actor: str
    data: Any


def credentials(settings: Settings) -> Credentials:
    """How other systems log in.

    Raises:
        SettingMissing: The NATS server is not ours, and its user for subscribers is not set.
    """
    login = settings.nats_login("subscriber")
    if login.password is None:
        raise SettingMissing("nats.subscriber.password")
    return Credentials(url=login.url, user=login.user, password=login.password)


async def tail(
    settings: Settings, subject: str, since: int | datetime | None
) -> AsyncGenerator[FeedEntry, None]:
    """Messages on ``subject`` from a sequence or a time on, or from now on; it goes on for ever.

    Raises:
        ServerUnreachable: There is no server, or it refuses the login.
        StackError: There is no feed.
    """
    async with _subscriber(settings) as nc:
        source = NatsEventSource(nc, STREAM, subject, api=API)
        try:
            after = await _before(nc, source, since)
        except StoreUnavailable as error:
            raise StackError(
                f"The feed does not answer: {error}.",
                "Is the stack running? Try `finetrail doctor`.",
            ) from error
        async with contextlib.aclosing(source.follow(after)) as batches:
            async for batch in batches:
                for message in batch:
                    yield _entry(message)


async def rebuild(settings: Settings) -> None:
    """Throw the feed away, with every consumer on it; it is written anew from the whole log.

    Raises:
        StackError: There is no connection, or the server refuses.
    """
    async with admin_connection(settings) as nc:
        try:
            await nc.request(f"$JS.API.STREAM.DELETE.{STREAM}", b"", timeout=TIMEOUT_S)
        except NatsError as error:
            raise StackError(f"{STREAM} cannot be removed: {error}.", "Try again.") from error
    await bootstrap(settings)


@asynccontextmanager
async def _subscriber(settings: Settings) -> AsyncIterator[Client]:
    login = settings.nats_login("subscriber")
    try:
        async with asyncio.timeout(CONNECT_S):
            nc = await connect(
                login.url,
                user=login.user,
                password=login.password,
                name="finetrail feed tail",
                inbox_prefix=login.inbox_prefix,
            )
    except (TimeoutError, OSError, NatsError) as error:
        raise ServerUnreachable(login.url, str(error) or "no answer") from error
    try:
        yield nc
    finally:
        await close(nc)


async def _before(nc: Client, source: NatsEventSource, since: int | datetime | None) -> int:
    """The sequence behind which to begin."""
    if isinstance(since, int):
        return max(since - 1, 0)
    last = await source.last()
    if since is None:
        return last
    asked = json.dumps({"next_by_subj": "feed.>", "start_time": since.isoformat()}).encode()
    try:
        reply = await nc.request(f"{API}.DIRECT.GET.{STREAM}", asked, timeout=TIMEOUT_S)
    except (NatsError, OSError) as error:
        raise StoreUnavailable(f"{STREAM} does not answer: {error!r}") from error
    found = (reply.headers or {}).get("Nats-Sequence")
    return int(found) - 1 if found else last  # nothing is that young yet


def _entry(message: LogMessage) -> FeedEntry:
    headers = message.headers
    position = headers.get(SEQUENCE_HEADER, "")
    return FeedEntry(
        sequence=message.sequence,
        log_sequence=int(position) if position.isdecimal() else None,
        subject=message.subject,
        id=headers.get("ce-id", ""),
        type=headers.get("ce-type", ""),
        version=headers.get("ce-schemaversion", ""),
        time=headers.get("ce-time", ""),
        actor=headers.get("ce-actor", ""),
        data=_data(message.data),
    )


def _data(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
