"""How a role runs as a process: its log on standard error, its end by SIGINT or SIGTERM."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from adapters.nats_connection import end
from finetrail.compatibility import check_log
from finetrail.logs import log_to_stderr
from finetrail.metrics import served
from finetrail.owner import issue_key
from finetrail.settings import Settings
from finetrail.tracing import traced

Role = Callable[[Settings, asyncio.Event], Awaitable[None]]


def run_role(role: Role, name: str, settings: Settings) -> None:
    """Run until a signal asks for the end; an error ends the process, whose supervisor starts it anew."""
    log_to_stderr(name, settings)
    asyncio.run(_until_signalled(role, name, settings))


async def _until_signalled(role: Role, name: str, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, stop.set)
    figures = settings.metrics
    if not await _may_serve(name, settings, stop):
        return
    port = figures.agent_port if name == "agent" else figures.port
    with traced(name, settings.tracing.endpoint):
        async with served(figures.host, port):
            await role(settings, stop)


async def _may_serve(name: str, settings: Settings, stop: asyncio.Event) -> bool:
    """Whether the role is to start: the log is there and not a newer build's, and no signal came."""
    checking = asyncio.create_task(check_log(settings, name))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({checking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if checking.done():
            checking.result()
        return not stop.is_set()
    finally:
        await end(checking, stopping)


async def show_first_key(settings: Settings) -> None:
    """Make the first admin key and print it: it is kept nowhere."""
    text = await issue_key(settings, name="first admin", role="admin")
    print(f"admin key {text}  (shown this once; more: finetrail keys issue)", flush=True)
