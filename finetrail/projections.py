"""The process that turns events into rows and feeds them to others: runners that share one connection."""

import asyncio
import gc
import logging
from collections.abc import Sequence
from typing import Any, Final

from nats.aio.client import Client

from adapters.claimed_telemetry import ClaimedSource
from adapters.jetstream_feed_log import JetStreamFeedLog
from adapters.nats_connection import close, connect, end
from adapters.nats_event_source import NatsEventSource
from finetrail import metrics
from finetrail.audit.archiving import build_archiver
from finetrail.settings import Settings
from projections.archive import Archiver
from projections.feed import Feeder
from projections.figures import FIGURES
from projections.postgres import AWAY
from projections.projection import registry, step_metrics
from projections.rebuild import Rebuilder
from projections.run import Runner
from projections.run import connect as connect_postgres
from projections.schema import ensure_tables

BUG_S: Final = 30.0  # a bug that comes again every time is said often enough
RETRY_S: Final = 1.0  # Postgres may start later than we do

# Every event makes a dozen objects that live for one batch. By default the collector looks for
# cycles after 700 of them, in vain, which takes a quarter of a replay's time.
COLLECT_AFTER: Final = 20_000

_log = logging.getLogger(__name__)


async def create_tables(dsn: str) -> None:
    """Make what this build reads and writes; beside what another build left, which is read until then."""
    connection = await connect_postgres(dsn)
    try:
        for projection in (registry, step_metrics):
            await ensure_tables(connection, projection, replace=True)
    finally:
        await connection.close()


async def run_projections(settings: Settings, stop: asyncio.Event) -> None:
    """Keep the read model up to date until ``stop`` is set, through absences of NATS and Postgres."""
    metrics.add(FIGURES)
    collect_seldom()
    working = asyncio.create_task(_project(settings), name="projections")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()  # a setting is missing, or a login is refused
            await stop.wait()  # both projections have stopped and said why; the rest goes on
    finally:
        await end(working, stopping)


def collect_seldom() -> None:
    """Leave alone what is loaded by now, and look at the rest once there is much of it."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


async def _project(settings: Settings) -> None:
    login, dsn = settings.nats_login("projections"), settings.postgres_dsn
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="finetrail projections",
        inbox_prefix=login.inbox_prefix,
    )
    try:
        feeder = Feeder(NatsEventSource(nc, "EVENTS"), JetStreamFeedLog(nc))
        archiver = build_archiver(nc, settings)
        await asyncio.gather(_run(feeder), _run(archiver), _project_views(nc, dsn))
    finally:
        await close(nc)


async def _project_views(nc: Client, dsn: str) -> None:
    await _create_tables_when_there(dsn)
    events = NatsEventSource(nc, "EVENTS")
    telemetry = ClaimedSource(nc, "TELEMETRY", "telemetry.*.metrics.>")
    work: Sequence[Runner[Any] | Rebuilder[Any]] = (
        Runner(registry, events, dsn),
        Runner(step_metrics, telemetry, dsn),
        Rebuilder(registry, events, dsn),
        Rebuilder(step_metrics, telemetry, dsn),
    )
    await asyncio.gather(*map(_run, work))


async def _create_tables_when_there(dsn: str) -> None:
    while True:
        try:
            return await create_tables(dsn)
        except AWAY as error:
            _log.warning("the read model waits for Postgres: %s", error)
            await asyncio.sleep(RETRY_S)


async def _run(runner: Runner[Any] | Rebuilder[Any] | Feeder | Archiver) -> None:
    """A bug in one projection must not stop the other, nor whatever else runs in this process."""
    while True:
        try:
            return await runner.run()
        except Exception as error:  # noqa: BLE001 - the top of this process
            _log.critical("projection %s died of a bug", runner.state.name, exc_info=error)
            await runner.stop(error)
        await asyncio.sleep(BUG_S)  # what brought it out may have been the moment
