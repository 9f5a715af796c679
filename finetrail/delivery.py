"""The process that tells webhooks what happens."""

import asyncio
import random
from contextlib import AsyncExitStack

from adapters.clock import SystemTimer
from adapters.jetstream_publisher import JetStreamPublisher
from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import close, connect, end
from adapters.nats_feed import NatsFeed
from adapters.postgres_webhook_store import PostgresWebhookStore
from adapters.webhook_sender import WebhookSender
from finetrail import metrics
from finetrail.settings import Settings
from handlers.courier import Means
from handlers.dead_letters import DeadLetters
from handlers.dispatch import Dispatch
from handlers.metrics import REGISTRY


async def run_delivery(settings: Settings, stop: asyncio.Event) -> None:
    """Deliver until ``stop`` is set, through absences of NATS, Postgres and receivers."""
    login = settings.nats_login("delivery")
    metrics.add(REGISTRY)
    async with AsyncExitStack() as stack:
        nc = await connect(
            login.url,
            user=login.user,
            password=login.password,
            name="finetrail delivery",
            inbox_prefix=login.inbox_prefix,
        )
        stack.push_async_callback(close, nc)
        store = PostgresWebhookStore(settings.postgres_dsn)
        stack.push_async_callback(store.close)
        sender = WebhookSender(allow_private=settings.webhooks.allow_private)
        stack.push_async_callback(sender.close)
        means = Means(
            workspace=settings.workspace,
            log=NatsFeed(nc),
            store=store,
            sender=sender,
            letters=DeadLetters(JetStreamPublisher(nc)),
            timer=SystemTimer(),
            random=random.random,
            api_url=(settings.gateway.public_url or settings.gateway_url).rstrip("/"),
            bus=NatsCommandBus(nc),
        )
        working = asyncio.create_task(Dispatch(means).run(), name="delivery")
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            await end(working, stopping)
