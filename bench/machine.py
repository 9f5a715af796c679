"""What the machine itself gives right now: arithmetic, its disk, its loopback, and how busy it is."""

import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from bench.main_job import calibration

DISK_S: Final = 1.0
ROUND_TRIPS: Final = 3000
BLOCK: Final = b"x" * 4096


def machine() -> dict[str, Any]:
    return {
        **calibration(),
        "fsync_per_s": round(fsync_per_s()),
        "loopback_us": round(loopback_us(), 1),
        "cores": len(os.sched_getaffinity(0)),
    }


def fsync_per_s() -> float:
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "file").open("wb") as file:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < DISK_S:
            file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())
            done += 1
        return done / (time.perf_counter() - began)


def loopback_us() -> float:
    """A byte there and back over TCP: the median of many."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        echo = threading.Thread(target=_echo, args=(server,), daemon=True)
        echo.start()
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            took = []
            for _ in range(ROUND_TRIPS):
                began = time.perf_counter()
                client.sendall(b"x")
                client.recv(1)
                took.append(time.perf_counter() - began)
        echo.join()
    return statistics.median(took) * 1e6


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(1):
            connection.sendall(data)
