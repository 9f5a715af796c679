"""A real agent whose children are stand-ins."""

import asyncio
import sys

from finetrail.agent import run_agent
from finetrail.cli import session
from finetrail.cli.running import run_role
from finetrail.settings import Settings

TRAINING = (sys.executable, "-m", "tests.queueing.child")
SERVING = (sys.executable, "-m", "tests.agent.stand_in_serving")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    await run_agent(settings, stop, training=TRAINING, serving=SERVING)


if __name__ == "__main__":
    run_role(run, "agent", session.resolved_settings())
