"""How a role runs as a process: its log on standard error, its end by SIGINT or SIGTERM."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable

from finetrail.owner import issue_key
from finetrail.settings import Settings

Role = Callable[[Settings, asyncio.Event], Awaitable[None]]

LINE = "%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(name)s: %(message)s"
CHATTY = ("httpx", "httpcore", "nats", "asyncio")  # a line a request, or a line a poll


def run_role(role: Role, name: str, settings: Settings) -> None:
    """Run until a signal asks for the end; an error ends the process, whose supervisor starts it anew."""
    log_to_stderr(name, settings.log_level)
    asyncio.run(_until_signalled(role, settings))


async def _until_signalled(role: Role, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, stop.set)
    await role(settings, stop)


def log_to_stderr(name: str, level: str) -> None:
    """One line an entry: time in UTC, level, process, where, what."""
    formatter = logging.Formatter(LINE.format(name=name), "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))


async def show_first_key(settings: Settings) -> None:
    """Make the first admin key and print it: it is kept nowhere."""
    text = await issue_key(settings, name="first admin", role="admin")
    print(f"admin key {text}  (shown this once; more: finetrail keys issue)", flush=True)
