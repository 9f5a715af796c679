"""Three real NATS servers on loopback that keep one log, from the configuration that we print."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from finetrail import deployment
from finetrail.settings import (
    AgentSettings,
    LogSettings,
    NatsRole,
    NatsSettings,
    NatsUser,
    Settings,
)
from finetrail.stack.errors import StackError
from finetrail.stack.nats_server import find_server
from tests.infra import NO_POSTGRES, free_port

READY_S = 180.0  # a node that was away reads its disk first, and two cores serve all three
STREAMS = ("COMMANDS", "EVENTS")


@dataclass
class Node:
    name: str
    folder: Path
    port: int
    route: int
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        environment = {deployment.password_variable(role): role for role in get_args(NatsRole)}
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(find_server()),
                "-c",
                str(self.folder / "nats.conf"),
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def wipe(self) -> None:
        """Lose the disk."""
        await self.kill()
        shutil.rmtree(self.folder / "store")


class Cluster:
    def __init__(self, folder: Path, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.settings = Settings(
            data_dir=folder / "data",
            nats=NatsSettings(
                url=",".join(f"nats://127.0.0.1:{node.port}" for node in nodes),
                replicas=3,
                **{role: NatsUser(user=role, password=role) for role in get_args(NatsRole)},
            ),
            postgres=NO_POSTGRES,
            logs=LogSettings(archive_seconds=1),
            agent=AgentSettings(id=deployment.COMPOSE_AGENT),
        )

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    async def connect(self, role: NatsRole) -> Client:
        login = self.settings.nats_login(role)
        return await nats.connect(
            login.url.split(","),
            user=login.user,
            password=login.password,
            inbox_prefix=login.inbox_prefix,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            error_cb=_quiet,
        )

    async def state(self, nc: Client, stream: str) -> dict[str, Any] | None:
        """What the leader says of a stream; None while there is no leader."""
        try:
            reply = await nc.request(f"$JS.API.STREAM.INFO.{stream}", b"{}", timeout=2)
        except (NatsError, OSError):
            return None
        answer: dict[str, Any] = json.loads(reply.data)
        return None if "error" in answer else answer

    async def leader(self, nc: Client, stream: str = "EVENTS") -> Node:
        async with asyncio.timeout(READY_S):
            while True:
                found = await self.state(nc, stream)
                if found and found["cluster"].get("leader"):
                    return self.node(found["cluster"]["leader"])
                await asyncio.sleep(0.05)

    async def whole(self, nc: Client) -> None:
        """Wait until every node has everything."""
        async with asyncio.timeout(READY_S):
            for stream in STREAMS:
                while not _is_whole(await self.state(nc, stream)):
                    await asyncio.sleep(0.1)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """Three nodes with the product's streams, three replicas of each."""
    names = [f"nats-{number}" for number in (1, 2, 3)]
    nodes = [Node(name, folder / name, free_port(), free_port()) for name in names]
    routes = [f"127.0.0.1:{node.route}" for node in nodes]
    for node, route in zip(nodes, routes, strict=True):
        node.folder.mkdir(parents=True)
        text = deployment.nats_config(
            deployment.COMPOSE_AGENT,
            {},
            listen=f"127.0.0.1:{node.port}",
            store=str(node.folder / "store"),
            node=deployment.ClusterNode("finetrail", node.name, route, routes),
            monitor=f"127.0.0.1:{free_port()}",
        )
        (node.folder / "nats.conf").write_text(text)
    found = Cluster(folder, nodes)
    try:
        for node in nodes:
            await node.start()
        await _meet(found)
        yield found
    finally:
        for node in nodes:
            await node.kill()


async def _meet(found: Cluster) -> None:
    """Make the streams once the nodes have a leader."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                return await deployment.make_streams(found.settings)
            except StackError:  # there is no leader yet
                await asyncio.sleep(0.2)


def _is_whole(answer: dict[str, Any] | None) -> bool:
    if answer is None or not answer["cluster"].get("leader"):
        return False
    replicas = answer["cluster"].get("replicas", [])
    return len(replicas) == 2 and all(
        each["current"] and not each.get("offline") and not each.get("lag") for each in replicas
    )


async def _quiet(_: Exception) -> None:
    """The calls that fail say so themselves."""
