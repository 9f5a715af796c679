"""Many readers of one job's log in a process of their own: how long each line was under way.

python -m bench.sse_clients URL KEY CLIENTS LINES

Each line holds the moment it was written, by a clock that all processes of a machine share. It says
`ready` once all clients are connected, and ends with one JSON object.
"""

import asyncio
import json
import re
import sys
import time
from typing import Final
from urllib.parse import urlsplit

SENT: Final = re.compile(rb"sent=(\d+\.\d+)")
PATIENCE_S: Final = 60.0


async def read_lines(url: str, key: str, lines: int, connected: asyncio.Barrier) -> list[float]:
    """Seconds that each of so many lines took to come here."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    request = (
        f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nAccept: text/event-stream\r\n\r\n"
    )
    writer.write(request.encode())
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{url} answers {status.decode().strip()}")
    await reader.readuntil(b"\r\n\r\n")
    await connected.wait()
    took: list[float] = []
    while len(took) < lines and (line := await reader.readline()):
        now = time.monotonic()
        took += [now - float(sent) for sent in SENT.findall(line)]
    writer.close()
    return took


async def main(url: str, key: str, clients: int, lines: int) -> None:
    connected = asyncio.Barrier(clients + 1)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        readers = [
            group.create_task(read_lines(url, key, lines, connected)) for _ in range(clients)
        ]
        await connected.wait()
        print("ready", flush=True)
    took = sorted(one for reader in readers for one in reader.result())
    print(
        json.dumps(
            {
                "arrived": len(took),
                "p50_ms": round(took[len(took) // 2] * 1e3, 2),
                "p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 2),
                "max_ms": round(took[-1] * 1e3, 2),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
