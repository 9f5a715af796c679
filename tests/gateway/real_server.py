"""The gateway of a world behind a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.server import serve
from tests.gateway.world import World


@asynccontextmanager
async def listening(world: World) -> AsyncIterator[str]:
    """Gives the URL; leaving stops the server as a signal would."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(
            world.gateway.app,
            "127.0.0.1",
            0,
            stop,
            on_listening=port.set_result,
            on_stopping=world.gateway.drain,
        )
    )
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        stop.set()
        await serving
