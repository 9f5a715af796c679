"""Builds the agent process: one connection to NATS, blobs, a work folder and the children's commands."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

from nats.aio.client import Client
from nats.errors import Error as NatsError

from adapters.gateway_blobs import GatewayBlobs
from adapters.nats_agent_link import NatsAgentLink
from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import close, connect
from finetrail import metrics
from finetrail.blobs import open_blobs
from finetrail.settings import PREFIX, Settings
from finetrail.stack.orphans import MARKER
from gpu_agent.agent import Agent, Identity
from gpu_agent.attempt import Workshop
from gpu_agent.figures import FIGURES
from gpu_agent.machine import this_machine
from gpu_agent.ports import Blobs
from gpu_agent.serving_child import SERVING_FOLDER, Serving, ServingConfig

TRAINING = (sys.executable, "-m", "gpu_agent.child")
SERVING = (sys.executable, "-m", "gpu_agent.serving")
FLUSH_S = 2  # for the last acknowledgements


async def run_agent(
    settings: Settings,
    stop: asyncio.Event,
    *,
    training: tuple[str, ...] = TRAINING,
    serving: tuple[str, ...] = SERVING,
) -> None:
    """Run one agent until ``stop`` is set; NATS may be away, at the start as well.

    Args:
        training: program of the children that train and evaluate.
        serving: program of the child that predicts and generates.
    """
    nc = await _connected(settings, stop)
    if nc is None:
        return
    metrics.add(FIGURES)
    link = NatsAgentLink(nc, agent_id=settings.agent_id, workspace=settings.workspace)
    try:
        async with _open_blobs(settings, nc) as blobs:
            agent = await _build(settings, nc, link, blobs, training, serving)
            await agent.run(stop)
    finally:
        await link.close()
        if nc.is_connected:
            with suppress(NatsError, TimeoutError):
                await nc.flush(FLUSH_S)
        await close(nc)


@asynccontextmanager
async def _open_blobs(settings: Settings, nc: Client) -> AsyncIterator[Blobs]:
    """The store itself where this machine can reach it, or else the gateway's way to it."""
    url = settings.agent.gateway_url
    if url is not None and settings.blobs.s3 is None:
        who = {"workspace": settings.workspace, "agent_id": settings.agent_id}
        async with GatewayBlobs(nc, url, **who) as through_gateway:
            yield through_gateway
        return
    async with open_blobs(settings) as store:
        yield store


async def _build(
    settings: Settings,
    nc: Client,
    link: NatsAgentLink,
    blobs: Blobs,
    training: tuple[str, ...],
    serving: tuple[str, ...],
) -> Agent:
    device = settings.agent.device
    models_folder = settings.folder / "models"
    # A child needs none of our settings, and must not be able to read our passwords.
    # The marker is no secret: by it a stack finds what its agent has left running.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) or name == MARKER
    }
    workshop = Workshop(
        blobs=blobs,
        link=link,
        work_dir=settings.agent_work_dir,
        models_folder=models_folder,
        device=device,
        threads=settings.threads,
        environment=environment,
        command=training,
    )
    config = ServingConfig(
        agent_id=settings.agent_id,
        folder=settings.agent_work_dir / SERVING_FOLDER,
        models_folder=models_folder,
        made_folder=workshop.base_models,
        device=device,
        threads=settings.threads,
        environment=environment,
        command=serving,
    )
    identity = Identity(
        agent_id=UUID(settings.agent_id),
        name=settings.agent_name,
        workspace=settings.workspace,
        machine=await asyncio.to_thread(this_machine, device),
        slots=settings.agent.training_slots,
        boot_id=uuid4(),
        pool=settings.agent.pool,
    )
    return Agent(identity, link, NatsCommandBus(nc), workshop, Serving(config, blobs))


async def _connected(settings: Settings, stop: asyncio.Event) -> Client | None:
    login = settings.nats_login("agent")
    connecting = asyncio.create_task(
        connect(
            login.url,
            user=login.user,
            password=login.password,
            seed=login.seed,
            name=f"agent {settings.agent_id}",
            inbox_prefix=login.inbox_prefix,
        )
    )
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({connecting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if connecting.done():
        return await connecting
    connecting.cancel()
    with suppress(asyncio.CancelledError):
        await connecting
    return None
