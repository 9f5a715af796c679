"""How fast the log becomes rows: replays a log into Postgres, each view alone and all of them together.

python -m bench.projections [EVENTS]

The log is that of jobs of which eight run at a time, with their datasets, agents and keys. The last
line is one JSON object; its rates are events of the log a second.
"""

import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
import nats
from nats.aio.client import Client

from adapters.nats_connection import connect
from adapters.nats_event_source import NatsEventSource
from domain.messages import Event
from domain.models.events import ModelCreated
from finetrail.projections import collect_seldom
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from projections.projection import Projection, registry
from projections.run import ProjectionState, Runner
from projections.schema import ensure_tables
from tests.projections import histories as h

AT_ONCE: Final = 8  # jobs
MODELS: Final = 50
WINDOW: Final = 2000  # appends in flight


def synthetic(number: int) -> list[h.Stored]:
    lives = (_life(n) for n in count())
    running = deque(next(lives) for _ in range(AT_ONCE))
    events: list[Event] = []
    while len(events) < number:
        life = running.popleft()
        event = next(life, None)
        if event is None:
            life = next(lives)
        else:
            events.append(event)
        running.append(life)
    return h.Log().add(*events).messages


def _life(n: int) -> Iterator[Event]:
    if n % 5 == 0:
        yield h.dataset_registered(f"data {n}")
        yield h.dataset_validated(f"data {n}")
    if n % MODELS == 0:
        yield h.key_issued()
        yield h.enrolled()
    model, version = f"model {n % MODELS}", n // MODELS + 1
    for event in h.whole_life(f"job {n}", model=model, number=version, epochs=3):
        if n < MODELS or not isinstance(event, ModelCreated):
            yield event


async def append(settings: Settings, messages: list[h.Stored]) -> None:
    login = settings.nats_login("admin")
    nc = await nats.connect(
        login.url, user=login.user, password=login.password, inbox_prefix=login.inbox_prefix
    )
    js = nc.jetstream()
    for start in range(0, len(messages), WINDOW):
        window = messages[start : start + WINDOW]
        await asyncio.gather(
            *(js.publish(m.subject, m.data, headers=m.headers, timeout=60) for m in window)
        )
    await nc.close()


async def drop_everything(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    ours = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^finetrail'"
    for (schema,) in await connection.fetch(ours):
        await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    await connection.close()


class Following(Protocol):
    @property
    def state(self) -> ProjectionState: ...
    async def run(self) -> None: ...


async def replay(settings: Settings, projection: Projection[Any], last: int) -> float:
    """Seconds from empty tables to the log's end."""
    await drop_everything(settings.postgres_dsn)
    connection = await asyncpg.connect(settings.postgres_dsn)
    await ensure_tables(connection, projection, replace=True)
    await connection.close()
    return await seconds_until(
        settings,
        lambda nc: Runner(projection, NatsEventSource(nc, "EVENTS"), settings.postgres_dsn),
        last,
    )


async def seconds_until(
    settings: Settings, make: Callable[[Client], Following], last: int
) -> float:
    """Seconds that what ``make`` makes takes to come as far as ``last``."""
    login = settings.nats_login("projections")
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="bench",
        inbox_prefix=login.inbox_prefix,
    )
    runner = make(nc)
    start = time.perf_counter()
    working = asyncio.create_task(runner.run())
    while runner.state.sequence < last and not working.done():  # noqa: ASYNC110 - it only looks
        await asyncio.sleep(0.002)
    took = time.perf_counter() - start
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await nc.close()
    if runner.state.sequence < last:
        raise SystemExit(f"{runner.state.name} stopped: {runner.state.error}")
    return took


async def rates(settings: Settings, last: int) -> dict[str, Any]:
    """Events a second of each view by itself, and of all of them in one transaction."""
    views: dict[str, int] = {}
    for view in registry.views:
        alone = replace(registry, name=view.table.name, views=(view,))
        views[view.table.name] = round(last / await replay(settings, alone, last))
    return {
        "slowest_view": min(views.values()),
        "median_view": round(statistics.median(views.values())),
        "all_views": round(last / await replay(settings, registry, last)),
        "views": views,
    }


async def measure(number: int) -> dict[str, Any]:
    collect_seldom()
    logging.getLogger("projections").setLevel(logging.ERROR)  # tables made anew are no news here
    with tempfile.TemporaryDirectory() as folder:
        given = Settings(data_dir=Path(folder) / "data", gateway=GatewaySettings(port=0))
        async with EmbeddedStack(given) as stack:
            await append(stack.settings, synthetic(number))
            measured = await rates(stack.settings, number)  # the last one filled all tables
            connection = await asyncpg.connect(stack.settings.postgres_dsn)
            rows = {
                view.table.name: await connection.fetchval(
                    f"SELECT count(*) FROM {view.table.fullname}"  # noqa: S608 - our own name
                )
                for view in registry.views
            }
            copied = await copy(connection)
            await connection.close()
    return {"events": number, **measured, "rows": rows, "copy_rows_per_s": round(number / copied)}


async def copy(connection: "asyncpg.Connection[asyncpg.Record]") -> float:
    """Seconds to COPY the timeline's rows into a bare table, without an index."""
    records = [tuple(r) for r in await connection.fetch("SELECT * FROM finetrail.timeline")]
    await connection.execute("CREATE TABLE bare (LIKE finetrail.timeline)")
    start = time.perf_counter()
    await connection.copy_records_to_table("bare", records=records)
    return time.perf_counter() - start


if __name__ == "__main__":
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(json.dumps(asyncio.run(measure(events))))
