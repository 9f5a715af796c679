"""Looks at a running stack every few seconds: memory, tasks, connections and files of each process, bytes on disk."""

import asyncio
import json
import os
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import psutil

from finetrail.bootstrap import admin_connection
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from finetrail.stack.state import resolve_settings
from gpu_agent.attempt_files import BASE_MODELS_FOLDER
from gpu_agent.serving_child import SERVING_FOLDER
from projections.postgres import AWAY
from tests.e2e.harness import Stack
from tests.soak.verdict import Point

EVERY_S: Final = 3.0
FILES_EVERY: Final = 4  # samples; walking through all files costs more than the rest
ANSWER_S: Final = 3.0
TASKS: Final = re.compile(rb"^finetrail_tasks ([0-9.e+]+)$", re.MULTILINE)
CHILDREN: Final = {"gpu_agent.serving": "serving", "gpu_agent.child": "training"}
LASTING: Final = ("lock", SERVING_FOLDER, BASE_MODELS_FOLDER)  # below an agent's folder
DATABASE: Final = """
    SELECT pg_database_size(current_database()) AS bytes,
        (SELECT count(*) FROM pg_namespace WHERE nspname ~ '^finetrail_') AS schemas,
        (SELECT count(*) FROM pg_namespace WHERE nspname ~ '^finetrail_' AND nspname NOT IN
            (SELECT schema FROM finetrail.projection_view)) AS unread_schemas,
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS advisory_locks
"""
CONNECTED: Final = """
    SELECT application_name, count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1
"""


@dataclass(slots=True)
class _Life:
    pid: int
    number: int
    since: float


@dataclass
class Samples:
    """What was seen, by role and measure."""

    series: dict[tuple[str, str], list[Point]] = field(default_factory=lambda: defaultdict(list))
    began: float = field(default_factory=time.monotonic)
    _lives: dict[str, _Life] = field(default_factory=dict)

    def now(self) -> float:
        return time.monotonic() - self.began

    def saw(self, role: str, pid: int, figures: Mapping[str, float]) -> None:
        """What a process of this role has now; another pid is another life."""
        now, life = self.now(), self._lives.get(role)
        if life is None or life.pid != pid:
            life = self._lives[role] = _Life(pid, life.number + 1 if life else 1, now)
        for measure, value in figures.items():
            point = Point(now, life.number, now - life.since, value)
            self.series[role, measure].append(point)

    def noted(self, role: str, figures: Mapping[str, float]) -> None:
        """What outlives processes."""
        for measure, value in figures.items():
            self.series[role, measure].append(Point(self.now(), 0, self.now(), value))


class Sampler:
    """A thread that looks until it is told to stop; what does not answer just then has no sample."""

    def __init__(self, stack: Stack, ports: Mapping[str, int], scratch: Path) -> None:
        self.samples = Samples()
        self.errors: Counter[str] = Counter()
        self._stack = stack
        self._ports = ports
        self._scratch = scratch
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            began = time.monotonic()
            self._look(files=number % FILES_EVERY == 0)
            number += 1
            self._stopped.wait(max(0.1, EVERY_S - (time.monotonic() - began)))

    def _look(self, *, files: bool) -> None:
        try:
            self._processes()
        except (psutil.Error, OSError) as error:
            self.errors[f"processes: {type(error).__name__}"] += 1
        settings = resolve_settings(Settings())
        for what in (_database, _log):
            try:
                for role, figures in asyncio.run(what(settings)).items():
                    self.samples.noted(role, figures)
            except (*AWAY, ValueError, StackError, TimeoutError) as error:
                self.errors[f"{what.__name__[1:]}: {type(error).__name__}"] += 1
        if files:
            self.samples.noted("disk", files_of(self._stack.folder, self._scratch))

    def _processes(self) -> None:
        pids = self._stack.pids()
        found: dict[str, list[psutil.Process]] = defaultdict(list)
        known = {pid: name for name, pid in pids.items()}
        for process in self._stack.processes():
            role = known.get(process.pid) or _child(process)
            if role:
                found[role].append(process)
        for role, processes in found.items():
            main = next((one for one in processes if one.pid == pids.get(role)), processes[0])
            figures = Counter[str]()
            for process in processes:
                with suppress(psutil.Error, OSError):
                    figures.update(_figures(process))
            if (tasks := self._tasks(role)) is not None:
                figures["tasks"] = tasks
            self.samples.saw(role, main.pid, figures)

    def _tasks(self, role: str) -> int | None:
        if role not in self._ports:
            return None
        try:
            url = f"http://127.0.0.1:{self._ports[role]}/metrics"
            page = httpx.get(url, timeout=ANSWER_S, trust_env=False).content
        except httpx.TransportError:
            return None
        found = TASKS.search(page)
        return round(float(found[1])) if found else None


def _child(process: psutil.Process) -> str | None:
    """Role of what is nobody's direct child: backends of Postgres, and what an agent starts."""
    try:
        if process.name() == "postgres":
            return "postgres"
        command = process.cmdline()
    except psutil.Error:
        return None
    return next((role for module, role in CHILDREN.items() if module in command), None)


def _figures(process: psutil.Process) -> dict[str, int]:
    """Memory that is a process' own: pages of files and Postgres' shared buffers are not counted."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    kilobytes = {
        name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", rollup, re.MULTILINE)
    }
    return {
        "memory": kilobytes["Pss_Anon"] * 1024,
        "pss": kilobytes["Pss"] * 1024,
        "rss": kilobytes["Rss"] * 1024,
        "threads": process.num_threads(),
        "fds": process.num_fds(),
        "connections": sum(
            one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp")
        ),
        "processes": 1,
    }


async def _database(settings: Settings) -> dict[str, dict[str, float]]:
    async with asyncio.timeout(ANSWER_S):
        connection = await asyncpg.connect(settings.postgres_dsn)
        try:
            (row,) = await connection.fetch(DATABASE)
            rows = await connection.fetch(CONNECTED)
        finally:
            connection.terminate()
    return {
        "database": {**dict(row), "connections": sum(one["count"] for one in rows)},
        "connections": {one["application_name"] or "unnamed": one["count"] for one in rows},
    }


async def _log(settings: Settings) -> dict[str, dict[str, float]]:
    async with asyncio.timeout(ANSWER_S), admin_connection(settings) as nc:
        reply = await nc.request("$JS.API.STREAM.LIST", b"", timeout=ANSWER_S)
        streams: list[dict[str, Any]] = json.loads(reply.data).get("streams") or []
    states = {one["config"]["name"]: one["state"] for one in streams}
    if not states:
        raise StackError("JetStream lists no streams")
    figures: dict[str, float] = {
        "consumers": sum(state["consumer_count"] for state in states.values()),
        "bytes": sum(state["bytes"] for state in states.values()),
        "messages": sum(state["messages"] for state in states.values()),
        "events": states["EVENTS"]["last_seq"],
        "telemetry": states["TELEMETRY"]["last_seq"],
    }
    return {
        "log": figures,
        "consumers": {name: state["consumer_count"] for name, state in states.items()},
    }


def files_of(data: Path, scratch: Path) -> dict[str, float]:
    """Bytes by place, and the number of files where there should be none for long."""
    sizes: Counter[str] = Counter()
    for path, size in _walk(data):
        first, *more = path.relative_to(data).parts
        if first == "postgres":
            first = "wal" if "pg_wal" in more else "postgres"
        if first == "blobs" and more[0] == "tmp":
            sizes["unfinished blobs"] += 1
        if first == "agent" and more[0] not in LASTING:
            sizes["attempt files"] += 1
        sizes[f"{first} bytes"] += size
    sizes["temporary files"] += sum(1 for _ in _walk(scratch))
    served = data / "agent" / SERVING_FOLDER
    sizes["served adapters"] += sum(1 for _ in served.iterdir()) if served.is_dir() else 0
    return {**dict.fromkeys(("unfinished blobs", "attempt files"), 0), **sizes}


def _walk(folder: Path) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    waiting = [folder]
    while waiting:
        with suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    else:
                        found.append((Path(entry.path), entry.stat(follow_symlinks=False).st_size))
    return found
