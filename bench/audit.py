"""How fast the log is archived and chained, and how fast it is verified.

python -m bench.audit [EVENTS]

The last line is one JSON object; its rates are events a second.
"""

import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from adapters.nats_connection import connect
from bench.projections import append, synthetic
from finetrail.audit import offline
from finetrail.audit.archiving import build_archiver
from finetrail.audit.export import Wanted, export
from finetrail.audit.verify import verify_log
from finetrail.projections import collect_seldom
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack


async def archive(settings: Settings, last: int) -> float:
    """Seconds from an empty archive to the log's end, with a head every thousand events."""
    login = settings.nats_login("projections")
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="bench",
        inbox_prefix=login.inbox_prefix,
    )
    archiver = build_archiver(nc, settings)
    start = time.perf_counter()
    working = asyncio.create_task(archiver.run())
    while archiver.state.sequence < last and not working.done():  # noqa: ASYNC110 - it only looks
        await asyncio.sleep(0.002)
    took = time.perf_counter() - start
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await nc.close()
    if archiver.state.sequence < last:
        raise SystemExit(f"the archive stopped: {archiver.state.error}")
    return took


async def measure(number: int) -> dict[str, Any]:
    collect_seldom()
    logging.getLogger("projections").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        given = Settings(data_dir=Path(folder) / "data", gateway=GatewaySettings(port=0))
        async with EmbeddedStack(given) as stack:
            await append(stack.settings, synthetic(number))
            took = await archive(stack.settings, number)
            found = await verify_log(stack.settings, (), lambda _events, _of: None)
            start = time.perf_counter()
            bundle = await export(stack.settings, Wanted(), Path(folder) / "evidence.zip")
            exported = time.perf_counter() - start
            start = time.perf_counter()
            report = offline.verify(bundle.path)
            offline_s = time.perf_counter() - start
            assert found.holds
            assert report.holds
            assert found.proven == report.proven
            size = bundle.path.stat().st_size
    return {
        "events": number,
        "archive_events_per_s": round(number / took),
        "verify_events_per_s": round(number / found.seconds),
        "export_events_per_s": round(number / exported),
        "offline_verify_events_per_s": round(number / offline_s),
        "heads": found.heads,
        "bundle_bytes_per_event": round(size / number),
    }


if __name__ == "__main__":
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(json.dumps(asyncio.run(measure(events))))
