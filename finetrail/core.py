"""Every role but the agent in one process: what a small installation needs beside one."""

import asyncio
from collections.abc import Awaitable, Callable

from finetrail.delivery import run_delivery
from finetrail.gateway import run_gateway
from finetrail.handlers import run_handlers
from finetrail.projections import run_projections
from finetrail.settings import Settings

Role = Callable[[Settings, asyncio.Event], Awaitable[None]]
ROLES: tuple[Role, ...] = (run_projections, run_handlers, run_delivery, run_gateway)


class RoleEnded(RuntimeError):
    """A role came to its end though nobody had asked it to; the process must be started anew."""


async def run_core(settings: Settings, stop: asyncio.Event) -> None:
    """Run them until ``stop``; the first that fails takes the others with it."""
    await run_together(ROLES, settings, stop)


async def run_together(roles: tuple[Role, ...], settings: Settings, stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        for role in roles:
            group.create_task(_until_stopped(role, settings, stop))


async def _until_stopped(role: Role, settings: Settings, stop: asyncio.Event) -> None:
    await role(settings, stop)
    if not stop.is_set():
        raise RoleEnded(f"{getattr(role, '__name__', role)} ended by itself")
