"""A stack of one's own in a temporary folder, of which nothing is left behind, however it ends."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Final

from finetrail.settings import PREFIX, GatewaySettings, Settings
from finetrail.stack.supervisor import AGENT, CORE, EmbeddedStack

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What the user may still choose; any other setting belongs to a stack that is not this one.
KEPT: Final = frozenset(PREFIX + name for name in ("AGENT__DEVICE", "AGENT__THREADS", "LOG_LEVEL"))


class Interrupted(BaseException):
    """A signal asked for the end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at the first signal; the next ones must not cut the cleaning up short."""
    raised = False

    def stop(signum: int, _frame: FrameType | None) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Interrupted(signum)

    former = {wanted: signal.signal(wanted, stop) for wanted in SIGNALS}
    try:
        yield
    finally:
        for wanted, handler in former.items():
            signal.signal(wanted, handler)


@contextmanager
def private_folder(*, keep: bool) -> Iterator[Path]:
    """A temporary folder that is also the current one, so that no `.env` or TOML here is read."""
    folder = Path(tempfile.mkdtemp(prefix="finetrail-demo-"))
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(here)
        if not keep:
            _surely(lambda: shutil.rmtree(folder, ignore_errors=True))


@contextmanager
def private_stack(folder: Path) -> Iterator[Settings]:
    """Start servers, core and agent with their data in ``folder``; end them all afterwards.

    Raises:
        StackError: They cannot be started.
    """
    with _own_environment(folder / "tmp"):
        running = _Running(Settings(data_dir=folder, gateway=GatewaySettings(port=0)))
        try:
            running.start()
            yield running.settings()
        finally:
            _surely(running.end)


@contextmanager
def _own_environment(temporary: Path) -> Iterator[None]:
    """Without the user's settings, and with a place for what libraries leave in `/tmp`."""
    former = dict(os.environ)
    temporary.mkdir(mode=0o700, parents=True)
    for name in former:
        if name.startswith(PREFIX) and name not in KEPT:
            del os.environ[name]
    os.environ["TMPDIR"] = str(temporary)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(former)


class _Running:
    """A stack in a thread with a loop of its own, so that a plain program can go on beside it."""

    def __init__(self, settings: Settings) -> None:
        self._stack = EmbeddedStack(settings, roles=(CORE, AGENT))
        self._ready: Future[Settings] = Future()
        self._loop = asyncio.new_event_loop()
        self._life = self._loop.create_task(self._live())
        self._thread = Thread(target=self._run, name="private stack", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def settings(self) -> Settings:
        """Wait until everything is ready."""
        return self._ready.result()

    def end(self) -> None:
        """Stop what runs or is being started, and wait until it is gone."""
        if self._thread.ident is None:
            return  # a signal came first
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._life.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(asyncio.wait({self._life}))
        finally:
            self._loop.close()

    async def _live(self) -> None:
        try:
            async with self._stack as stack:
                self._ready.set_result(stack.settings)
                await asyncio.Event().wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise


def _surely(action: Callable[[], None]) -> None:
    """Do it to its end though a signal comes in between; only the first one raises."""
    try:
        action()
    except Interrupted:
        action()
        raise
