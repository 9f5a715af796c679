"""The process that turns commands into events, follows up on them, and gives work to agents."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final
from uuid import UUID

from faststream.nats import NatsBroker
from faststream.nats.security import NatsSecurity, NatsUserPassword
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from adapters.claimed_telemetry import ClaimedSource
from adapters.clock import utc_now
from adapters.jetstream_event_store import JetStreamEventStore
from adapters.jetstream_publisher import JetStreamPublisher
from adapters.log_scan import LogScan
from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import (
    PENDING_BYTES,
    RECONNECT_WAIT_S,
    close,
    connect,
    encryption,
    servers,
)
from adapters.nats_feed import NatsFeed
from adapters.nats_letter_box import NatsLetterBox
from adapters.postgres_person_keys import PostgresPersonKeys
from domain.subjects import AGGREGATES
from domain.work import Presence
from finetrail import metrics
from finetrail.blobs import open_blobs
from finetrail.settings import NatsLogin, Settings
from handlers.commands import CommandDesk, command_subscribers, durable_pull
from handlers.consume import consume
from handlers.dead_letters import DeadLetters
from handlers.follow_ups import World
from handlers.forgetting import keep_forgotten
from handlers.histories import Histories
from handlers.log_archive import LogArchiver
from handlers.metrics import REGISTRY
from handlers.observing import deciding, observed, reacting
from handlers.react import Reactor
from handlers.retries import Retries, settle_retry
from handlers.scheduler import Scheduler
from handlers.settle import settle_command, settle_event

COMMAND_WORKERS: Final = 16  # for each aggregate; they wait for the log, not for the processor
REACTION_WORKERS: Final = 16  # some of them may be reading a large dataset
RETRY_WORKERS: Final = 4  # what a person asked for, now and then
CONNECT_S: Final = 5.0
RETRY_S: Final = (0.5, 1.0, 2.0, 5.0)

_log = logging.getLogger(__name__)


async def run_handlers(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set, through absences of NATS at the start and later."""
    failures = 0
    while not stop.is_set():
        try:
            await _serve(settings, stop)
            failures = 0
        except (NatsError, OSError, TimeoutError) as problem:
            reason = str(problem) or type(problem).__name__
            _log.warning("the handlers cannot serve and try again: %s", reason)
            pause = RETRY_S[min(failures, len(RETRY_S) - 1)]
            failures += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()


async def _serve(settings: Settings, stop: asyncio.Event) -> None:
    """One life of the connections: it ends with ``stop``, or when NATS closes one for good."""
    login = settings.nats_login("handlers")
    over = asyncio.Event()
    async with (
        _connection(login) as nc,
        _broker(login, over) as broker,
        open_blobs(settings) as blobs,
        contextlib.aclosing(PostgresPersonKeys(settings.postgres_dsn)) as person_keys,
    ):
        store = JetStreamEventStore(nc, replicated=settings.nats.replicas > 1)
        histories = Histories(store)
        bus = NatsCommandBus(nc)
        publish = JetStreamPublisher(nc)
        dead_letters = DeadLetters(publish)
        desk = CommandDesk(histories, utc_now)
        scheduler = Scheduler(
            settings.workspace, store, histories, bus, utc_now, uptime=time.monotonic
        )
        scan = LogScan(NatsFeed(nc))
        world = World(store, blobs, person_keys, scan)
        retries = Retries(NatsLetterBox(nc), publish)
        lines = f"telemetry.{settings.workspace}.log.>"
        archiver = LogArchiver(
            settings.workspace,
            ClaimedSource(nc, "TELEMETRY", lines),
            blobs,
            histories,
            bus,
            utc_now,
            begin=partial(_archived_through, NatsFeed(nc), settings.workspace),
            every_s=settings.logs.archive_seconds,
        )
        reactor = Reactor(world, bus, publish, retries, scheduler.wake, archiver.wake)

        metrics.add(REGISTRY)
        decide, react = deciding(desk.decide), reacting(reactor.react)
        command = partial(
            settle_command, decide=decide, reply=nc.publish, dead_letters=dead_letters
        )
        event = partial(settle_event, react=react, dead_letters=dead_letters)
        again = partial(
            settle_retry,
            decide=decide,
            react=react,
            reply=nc.publish,
            dead_letters=dead_letters,
        )
        commands = command_subscribers(broker, login.inbox_prefix)
        reactions = durable_pull(broker, "EVENTS", "reactions", "events.>", login.inbox_prefix)
        retried = durable_pull(broker, "RETRY", "retries", "retry.*", login.inbox_prefix)
        await broker.start()
        await nc.subscribe("presence.*", cb=partial(_on_presence, scheduler))
        _log.info("handlers serve workspace %s at %s", settings.workspace, login.url)
        async with asyncio.TaskGroup() as serving:
            for name, subscriber in zip(AGGREGATES, commands, strict=True):
                handle = observed(f"{name}-commands", command)
                serving.create_task(consume(subscriber, handle, over, workers=COMMAND_WORKERS))
            handle = observed("reactions", event)
            serving.create_task(consume(reactions, handle, over, workers=REACTION_WORKERS))
            handle = observed("retries", again)
            serving.create_task(consume(retried, handle, over, workers=RETRY_WORKERS))
            serving.create_task(scheduler.run(over))
            serving.create_task(archiver.run(over))
            serving.create_task(keep_forgotten(settings.workspace, scan, person_keys, over))
            serving.create_task(_watch(nc, scheduler, over))
            await _first(stop, over)
            over.set()
    if not stop.is_set():
        raise ConnectionError("NATS has closed a connection for good")


async def _archived_through(feed: NatsFeed, workspace: str) -> int:
    """Up to which telemetry sequence log lines are known to be archived.

    Raises:
        StoreUnavailable: The log is away.
    """
    last = await feed.last("EVENTS", f"events.{workspace}.job_log.*")
    through = int(json.loads(last.data)["through"]) if last else 0
    first = (await feed.state("TELEMETRY")).first
    if last and first > through + 1:
        _log.error(
            "telemetry %d to %d is gone; log lines among it were not archived",
            through + 1,
            first - 1,
        )
    return through


async def _watch(nc: Client, scheduler: Scheduler, over: asyncio.Event) -> None:
    """While this process hears nobody, nobody is silent."""
    while not over.is_set():
        if nc.is_closed:
            over.set()
        elif not nc.is_connected:
            scheduler.connected()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await over.wait()


async def _on_presence(scheduler: Scheduler, msg: Msg) -> None:
    try:
        presence = Presence.model_validate_json(msg.data)
        UUID(presence.agent_id)
    except ValueError as problem:
        _log.warning("%s says what cannot be read: %s", msg.subject, problem)
        return
    if msg.subject == f"presence.{presence.agent_id}":  # the subject is pinned, the body is not
        scheduler.saw(presence)
    else:
        _log.warning("%s speaks for agent %s", msg.subject, presence.agent_id)


@contextlib.asynccontextmanager
async def _connection(login: NatsLogin) -> AsyncIterator[Client]:
    async with asyncio.timeout(CONNECT_S):
        nc = await connect(
            login.url,
            user=login.user,
            password=login.password,
            name="finetrail handlers",
            inbox_prefix=login.inbox_prefix,
        )
    try:
        yield nc
    finally:
        await close(nc)


@contextlib.asynccontextmanager
async def _broker(login: NatsLogin, over: asyncio.Event) -> AsyncIterator[NatsBroker]:
    """FastStream with a connection of its own, from which messages are pulled."""

    async def closed() -> None:
        over.set()

    async def ignore(_problem: Exception) -> None:
        """The other connection to the same server says it already."""

    tls = encryption(login.url).get("tls")
    broker = NatsBroker(
        servers(login.url),
        security=NatsUserPassword(
            login.user, login.password, ssl_context=tls, tls_handshake_first=tls is not None
        )
        if login.password
        else NatsSecurity(ssl_context=tls, tls_handshake_first=tls is not None),
        name="finetrail handlers: pull",
        inbox_prefix=login.inbox_prefix,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # any number of seconds
        pending_size=PENDING_BYTES,
        closed_cb=closed,
        error_cb=ignore,
        logger=None,
    )
    async with asyncio.timeout(CONNECT_S):
        nc = await broker.connect()
    try:
        yield broker
    finally:
        with contextlib.suppress(NatsError, OSError):  # it may be away at this very moment
            await broker.stop()
        await close(nc)


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiting:
            waiter.cancel()
