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

from bench.projections import append, seconds_until, synthetic
from finetrail.audit import offline
from finetrail.audit.archiving import build_archiver
from finetrail.audit.export import Wanted, export
from finetrail.audit.verify import verify_log
from finetrail.projections import collect_seldom
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack


async def archive(settings: Settings, last: int) -> float:
    """Seconds from an empty archive to the log's end, with a head every thousand events."""
    return await seconds_until(settings, lambda nc: build_archiver(nc, settings), last)


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
