"""A gateway in memory behind a real socket, in a thread of its own, so that plain functions can ask it."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from finetrail.logs import formatter
from finetrail.redaction import Redaction, Redactor
from gateway.tickets import ticket_key
from tests.fuzz import hostile
from tests.fuzz.leaks import Leaks, secrets_of_keys
from tests.fuzz.properties import Target
from tests.fuzz.wire import Wire
from tests.gateway.real_server import listening
from tests.gateway.world import PEPPER, World, running_world

# Audit events of the interpreter; those but the first change what is there.
CHANGES: Final = frozenset(
    {
        "open",
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
    }
)
START_S: Final = 20.0
CANARY: Final = b"whoever reads this has left the store"


class Served:
    """The world, its address and what it logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self.canary = folder / hostile.CANARY
        self.canary.write_bytes(CANARY)
        self.lines: list[str] = []
        self.touched = _Touched()
        self.world: World
        self.url = ""
        self.real: dict[str, str] = {}
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="served world")

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(START_S)
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with running_world(self.folder / "blobs") as world, listening(world) as url:
            job = await world.trained("intents")
            dataset = await world.uploaded()
            self.world, self.url = world, url
            self.real = {
                "name": "intents",
                "number": "1",
                "job_id": job["id"],
                "dataset_id": dataset["id"],
            }
            self._ready.set()
            await self._stop.wait()

    @property
    def leaks(self) -> Leaks:
        keys = secrets_of_keys({role: key.text for role, key in self.world.keys.items()})
        return Leaks(
            {
                **keys,
                **{f"the hash of {role}": key.secret_hmac for role, key in self.world.keys.items()},
                "the pepper": PEPPER.decode(),
                "the key of tickets": ticket_key(PEPPER).hex(),
                "the data directory": str(self.folder),
            }
        )


class _Touched:
    """Which files the process opens or changes, but for those of the thread that asks."""

    def __init__(self) -> None:
        self.paths: list[tuple[str, Path, bool]] = []
        self._asking: int | None = None

    def watch(self) -> None:
        self._asking = threading.get_ident()

    def rest(self) -> None:
        self._asking = None

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._asking in {None, threading.get_ident()} or event not in CHANGES:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes):
                writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
                self.paths.append((event, Path(os.fsdecode(path)), writes))
            return
        self.paths += [
            (event, Path(os.fsdecode(one)), True)
            for one in arguments
            if isinstance(one, str | bytes | os.PathLike)
        ]


class _Lines(logging.Handler):
    """Keeps what is logged, as a gateway would write it."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines
        self.setFormatter(formatter("gateway", "json"))
        self.addFilter(Redaction(Redactor([PEPPER.decode()])))

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@contextmanager
def served_world(folder: Path, examples: int) -> Iterator[tuple[Served, Target]]:
    served, root = Served(folder), logging.getLogger()
    handler, level = _Lines(served.lines), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)  # as a gateway is set up
    sys.addaudithook(served.touched.hear)  # for as long as the process lives
    try:
        served.start()
        served.touched.watch()
        wire = Wire(served.url, served.world.keys["admin"].text)
        try:
            yield served, Target(wire, served.leaks, CANARY, served.real, examples)
        finally:
            wire.close()
            served.touched.rest()
            served.stop()
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
