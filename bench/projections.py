"""How fast the log becomes rows: replays job streams into Postgres and compares with a raw COPY.

python -m bench.projections [EVENTS]
"""

import asyncio
import json
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import asyncpg
import nats

from adapters.nats_connection import connect
from adapters.nats_event_source import NatsEventSource
from domain.messages import Event
from domain.models.events import ModelCreated
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from projections.projection import registry
from projections.run import Runner
from projections.schema import ensure_tables
from tests.projections import histories as h

WINDOW = 2000  # appends in flight


def synthetic(number: int) -> list[h.Stored]:
    """Whole lives of jobs, one after the other, of fifty models."""
    events: list[Event] = []
    for n in count():
        if len(events) >= number:
            return h.Log().add(*events[:number]).messages
        life = h.whole_life(f"job {n}", model=f"model {n % 50}", number=n // 50 + 1, epochs=3)
        events += (event for event in life if n < 50 or not isinstance(event, ModelCreated))
    raise AssertionError


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


async def replay(settings: Settings, last: int) -> float:
    login = settings.nats_login("projections")
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="bench",
        inbox_prefix=login.inbox_prefix,
    )
    runner = Runner(registry, NatsEventSource(nc, "EVENTS", "events.>"), settings.postgres_dsn)
    start = time.perf_counter()
    working = asyncio.create_task(runner.run())
    while runner.state.sequence < last and not working.done():  # noqa: ASYNC110 - it only looks
        await asyncio.sleep(0.005)
    took = time.perf_counter() - start
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await nc.close()
    return took


async def measure(number: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        given = Settings(data_dir=Path(folder) / "data", gateway=GatewaySettings(port=0))
        async with EmbeddedStack(given) as stack:
            await append(stack.settings, synthetic(number))
            connection = await asyncpg.connect(stack.settings.postgres_dsn)
            await ensure_tables(connection, registry, replace=True)
            took = await replay(stack.settings, number)
            rows = {
                view.table.name: await connection.fetchval(
                    f"SELECT count(*) FROM {view.table.fullname}"  # noqa: S608 - our own name
                )
                for view in registry.views
            }
            copied = await copy(connection)
            await connection.close()
    return {
        "events": number,
        "seconds": round(took, 2),
        "events_per_s": round(number / took),
        "rows": rows,
        "copy_rows_per_s": round(number / copied),
        "ratio_to_copy": round(copied / took, 3),
    }


async def copy(connection: "asyncpg.Connection[asyncpg.Record]") -> float:
    """Seconds to COPY the timeline's rows into a bare table, without an index."""
    records = [tuple(r) for r in await connection.fetch("SELECT * FROM finetrail.timeline")]
    await connection.execute("CREATE TABLE bare (LIKE finetrail.timeline)")
    start = time.perf_counter()
    await connection.copy_records_to_table("bare", records=records)
    return time.perf_counter() - start


if __name__ == "__main__":
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(json.dumps(asyncio.run(measure(events)), indent=2))
