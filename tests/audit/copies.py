"""Copies of a log on another server, in which somebody has changed something."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import nats
from nats.js.api import StreamConfig

from adapters.nats_event_source import LogMessage
from finetrail.settings import NatsSettings, Settings
from tests.infra import NatsServer


async def publish(
    url: str,
    messages: Sequence[LogMessage],
    *,
    user: str | None = None,
    password: str | None = None,
) -> None:
    login = {"user": user, "password": password} if user else {}
    nc = await nats.connect(url, inbox_prefix=f"_INBOX_{user or 'copy'}", **login)
    try:
        js = nc.jetstream()
        for message in messages:
            # Not as one that is there: who copies a log leaves the server's own headers out.
            own = {"Nats-Msg-Id": f"{message.sequence} {message.headers['ce-id']}"}
            await js.publish(message.subject, message.data, headers={**message.headers, **own})
    finally:
        await nc.close()


@asynccontextmanager
async def copied(
    server: NatsServer, settings: Settings, messages: Sequence[LogMessage], gone: Sequence[int] = ()
) -> AsyncIterator[Settings]:
    """Settings of the same installation whose log is this copy; ``gone`` are deleted from it."""
    nc = await server.connect("admin")
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="EVENTS", subjects=["events.>"], duplicate_window=1))
    try:
        await publish(server.url, messages)
        for sequence in gone:
            await js.delete_msg("EVENTS", sequence)
        elsewhere = NatsSettings(url=server.url)
        yield settings.model_copy(update={"nats": elsewhere})
    finally:
        await js.delete_stream("EVENTS")
        await nc.close()
