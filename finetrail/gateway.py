"""Builds and runs the gateway: its adapters, its application, its server."""

import asyncio
import logging
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from adapters.claimed_telemetry import ClaimedFeed
from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import close, connect, end
from adapters.nats_fleet import NatsFleet
from adapters.nats_inference import NatsInference
from adapters.postgres_person_keys import PostgresPersonKeys
from adapters.postgres_request_store import PostgresRequestStore
from adapters.postgres_webhook_store import PostgresWebhookStore
from adapters.webhook_sender import WebhookSender
from adapters.xchacha_sealer import XChaChaSealer
from finetrail import metrics
from finetrail.blobs import open_blobs
from finetrail.settings import EVERYWHERE, GatewaySettings, Settings
from gateway.app import Config, Gateway
from gateway.front import LOOPBACK
from gateway.joining import HOST
from gateway.metrics import REGISTRY
from gateway.server import serve
from projections.queries import open_queries

REPLICA_LAG_S = 0.25  # replicas of one data centre apply an append within milliseconds

_log = logging.getLogger(__name__)


async def run_gateway(settings: Settings, stop: asyncio.Event) -> None:
    """Serve HTTP until ``stop`` is set; open streams end then, and come back with their last id.

    Raises:
        PortTaken: Something else listens on the gateway's port.
    """
    login = settings.nats_login("gateway")
    async with AsyncExitStack() as stack:
        nc = await connect(
            login.url,
            user=login.user,
            password=login.password,
            name="gateway",
            inbox_prefix=login.inbox_prefix,
        )
        stack.push_async_callback(close, nc)
        queries = await stack.enter_async_context(open_queries(settings.postgres_dsn))
        inference = NatsInference(nc)
        webhooks = PostgresWebhookStore(settings.postgres_dsn)
        stack.push_async_callback(webhooks.close)
        person_keys = PostgresPersonKeys(settings.postgres_dsn)
        stack.push_async_callback(person_keys.aclose)
        sender = WebhookSender(allow_private=settings.webhooks.allow_private)
        stack.push_async_callback(sender.close)
        gateway = Gateway(
            Config(
                workspace=settings.workspace,
                pepper=settings.api_key_pepper,
                max_upload_bytes=settings.gateway.max_upload_bytes,
                allowed_hosts=_hosts(settings.gateway),
                link_minutes=settings.gateway.link_minutes,
                public_url=settings.gateway.public_url,
                record_addresses=settings.gateway.record_addresses,
                trusted_proxies=_names(settings.gateway.trusted_proxies),
                nats_url=_nats_for_agents(settings),
                replica_lag_s=REPLICA_LAG_S if settings.nats.replicas > 1 else 0,
                private_webhooks=settings.webhooks.allow_private,
            ),
            bus=NatsCommandBus(nc),
            queries=queries,
            feed=ClaimedFeed(nc),
            blobs=await stack.enter_async_context(open_blobs(settings)),
            inference=inference,
            requests=PostgresRequestStore(settings.postgres_dsn),
            webhooks=webhooks,
            sender=sender,
            marks=webhooks,
            person_keys=person_keys,
            sealer=XChaChaSealer(),
            metrics=metrics.page,
        )
        metrics.add(REGISTRY)
        await inference.tell_in_service(settings.workspace, gateway.catalog.in_service)
        fleet = NatsFleet(nc)
        await fleet.hear_presences(gateway.presences.hear)
        await fleet.answer_tickets(settings.workspace, gateway.agent_blobs.answer)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(gateway.run(), name="gateway feed")
            await serve(
                gateway.app,
                settings.gateway.host,
                settings.gateway.port,
                stop,
                on_listening=lambda port: _log.info(
                    "listening on %s:%s", settings.gateway.host, port
                ),
                on_stopping=gateway.drain,
            )
            await end(following)
            await gateway.statistics.close()


def _hosts(settings: GatewaySettings) -> tuple[str, ...]:
    return (*LOOPBACK, *_names(f"{settings.host},{settings.allowed_hosts}"))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _nats_for_agents(settings: Settings) -> str:
    """Where an agent on another machine finds NATS."""
    nats, login = settings.nats, settings.nats_login("gateway")
    if nats.public_url is not None:
        return nats.public_url
    if nats.listen in EVERYWHERE:  # by whatever name it has reached this gateway
        return f"nats://{HOST}:{urlsplit(login.url).port}"
    return login.url
