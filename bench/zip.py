"""How fast a version's ZIP comes beside a plain file of the same size, through the real server.

    python -m bench.zip [--mib N] [--runs N]

The server is a process of its own with what stands before every route; the client reads to the end and
throws away. The plain file is the framework's own file response, which neither hashes what it reads nor
knows ranges. Runs alternate, and the best of each are compared: a neighbour on the machine only ever slows
one down. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.response import File, Stream

from adapters.local_blobs import LocalBlobs, blob_path
from domain.blobs import BlobRef
from gateway.front import front
from gateway.observing import observed
from gateway.ranged import Content, blob_content, ranged
from gateway.server import serve
from gateway.zip_layout import ZipEntry, ZipLayout

MIB = 512
RUNS = 5
PIECE = 1024 * 1024
ROUTES = ("plain", "zip", "file")


def zip_ratio(mib: int = MIB, runs: int = RUNS) -> float:
    """The ZIP's rate over the plain file's."""
    rates = rates_mb_s(mib, runs)
    return rates["zip"] / rates["plain"]


def rates_mb_s(mib: int = MIB, runs: int = RUNS) -> dict[str, float]:
    """Of the plain file, of the ZIP, and of the same bytes as one file of a version."""
    with tempfile.TemporaryDirectory(prefix="finetrail-bench-") as name:
        ref = asyncio.run(_stored(Path(name), mib))
        with _serving(Path(name), ref) as port:
            for route in ROUTES:
                _rate(port, route)  # the first reads of a process are slower
            found: dict[str, list[float]] = {route: [] for route in ROUTES}
            for _ in range(runs):
                for route in ROUTES:
                    found[route].append(_rate(port, route))
    return {route: max(rates) for route, rates in found.items()}


async def _stored(folder: Path, mib: int) -> BlobRef:
    piece = os.urandom(PIECE)
    async with LocalBlobs(folder).writer() as writer:
        for _ in range(mib):
            await writer.write(piece)
        return await writer.commit()


def _rate(port: int, route: str) -> float:
    """Megabytes a second of one answer, its first byte awaited before the clock starts."""
    buffer = bytearray(PIECE)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        request = f"GET /{route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        began, done = time.perf_counter(), 0
        while got := connection.recv_into(buffer):
            done += got
        seconds = time.perf_counter() - began
    if done < PIECE:
        raise RuntimeError(f"/{route} was answered with {done} bytes")
    return done / 1e6 / seconds


@contextmanager
def _serving(folder: Path, ref: BlobRef) -> Iterator[int]:
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    server = processes.Process(target=_server, args=(folder, ref, theirs))
    server.start()
    try:
        if not ours.poll(60):
            raise RuntimeError("the server did not start")
        yield ours.recv()
    finally:
        server.terminate()
        server.join()


def _server(folder: Path, ref: BlobRef, ready: Connection) -> None:
    asyncio.run(_run(folder, ref, ready))


async def _run(folder: Path, ref: BlobRef, ready: Connection) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = observed(front(_app(folder, ref)), "default", lambda *_: None)
    await serve(app, "127.0.0.1", 0, stop, on_listening=ready.send)


def _app(folder: Path, ref: BlobRef) -> Litestar:
    blobs = LocalBlobs(folder)
    card = b"# a card\n"
    entries = [
        ZipEntry("model.safetensors", ref, ref.size, ref.crc32),
        ZipEntry("README.md", card, len(card), zlib.crc32(card)),
    ]
    layout = ZipLayout(entries)
    read = partial(layout.read, blobs.read)
    archive = Content(layout.size, '"1"', "model.zip", "application/zip", read)
    file = blob_content(blobs, ref.sha256, ref.size, "model.safetensors")

    @get("/plain")
    async def plain() -> File:
        return File(blob_path(folder, ref.sha256), chunk_size=PIECE)

    @get("/zip")
    async def as_zip(request: Request[Any, Any, Any]) -> Response[None] | Stream:
        return ranged(request, archive)

    @get("/file")
    async def as_file(request: Request[Any, Any, Any]) -> Response[None] | Stream:
        return ranged(request, file)

    return Litestar([plain, as_zip, as_file], logging_config=None, openapi_config=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=MIB)
    parser.add_argument("--runs", type=int, default=RUNS)
    asked = parser.parse_args()
    rates = rates_mb_s(asked.mib, asked.runs)
    ratio = rates["zip"] / rates["plain"]
    figures = {f"{route}_mb_s": round(rate) for route, rate in rates.items()}
    print(json.dumps(figures | {"zip_ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
