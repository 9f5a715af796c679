"""How fast a stack is backed up and restored: `python -m bench.backup`.

A stack of its own with a given number of events and bytes of blobs; nothing but the servers runs.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID, uuid4

from adapters.local_blobs import LocalBlobs
from finetrail.backup import Wanted, create
from finetrail.backup_files import BackupReader
from finetrail.backup_restore import restore
from finetrail.bootstrap import admin_connection
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack

BLOB_BYTES = 16 * 1024 * 1024
IN_FLIGHT = 500
MB = 1e6


async def measure(folder: Path, *, events: int, megabytes: int) -> dict[str, float]:
    """MB/s of each step, and seconds."""
    given = Settings(data_dir=folder / "data", gateway=GatewaySettings(port=0))
    passphrase = str(uuid4())
    async with EmbeddedStack(given) as stack:
        refs = await _blobs(stack.settings, megabytes)
        await _events(stack.settings, events, refs)
        made = await create(
            stack.settings, folder / "backup", Wanted(passphrase=passphrase), lambda _line: None
        )
    size = made.manifest.size / MB
    log = sum(file.size for file in made.manifest.files if file.path.startswith("log/")) / MB
    backup = BackupReader(folder / "backup")
    began = time.monotonic()
    await backup.check(lambda _line: None)
    verified = time.monotonic() - began
    fresh = Settings(data_dir=folder / "fresh", gateway=GatewaySettings(port=0))
    began = time.monotonic()
    await restore(fresh, backup, lambda _line: None, passphrase=passphrase)
    restored = time.monotonic() - began
    return {
        "events": events,
        "log_mb": round(log, 1),
        "backup_mb": round(size, 1),
        "create_s": round(made.seconds, 2),
        "create_mb_per_s": round(size / made.seconds, 1),
        "verify_mb_per_s": round(size / verified, 1),
        "restore_s": round(restored, 2),  # with starting and ending the servers
        "restore_mb_per_s": round(size / restored, 1),
    }


async def _blobs(settings: Settings, megabytes: int) -> list[dict[str, object]]:
    store, found = LocalBlobs(settings.blobs_folder), []
    for _ in range(max(1, round(megabytes * MB / BLOB_BYTES))):
        async with store.writer() as writer:
            await writer.write(os.urandom(BLOB_BYTES))
            found.append((await writer.commit()).model_dump())
    return found


async def _events(settings: Settings, count: int, refs: list[dict[str, object]]) -> None:
    async with admin_connection(settings) as nc:
        js = nc.jetstream(publish_async_max_pending=IN_FLIGHT)
        for number in range(count):
            id_ = uuid4()
            body = {
                "link_id": str(id_),
                "resource": "dataset",
                "resource_id": str(UUID(int=number)),
            }
            body |= {
                "expires_at": "2030-01-01T00:00:00Z",
                "padding": os.urandom(90).hex(),
            }
            if number < len(refs):
                body["blob"] = refs[number]  # type: ignore[assignment]
            headers = {"ce-type": "LinkIssued", "ce-id": str(id_), "Nats-Msg-Id": str(id_)}
            _ = await js.publish_async(
                f"events.default.link.{id_}", json.dumps(body).encode(), headers=headers
            )
        await js.publish_async_completed()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetrail-backup-") as folder:
        found = asyncio.run(measure(Path(folder), events=chosen.events, megabytes=chosen.megabytes))
    print(json.dumps(found) if chosen.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
