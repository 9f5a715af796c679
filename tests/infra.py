"""A bare NATS server for tests: its own folder, a free port, the product's streams; killed by pid."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from pydantic import SecretStr

from finetrail.bootstrap import bootstrap_streams
from finetrail.settings import NatsRole, PostgresSettings
from finetrail.stack.nats_accounts import accounts
from finetrail.stack.nats_config import OWN
from finetrail.stack.nats_server import find_server, permissions

START_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class NatsServer:
    """One server on one folder; it may be killed and started again."""

    folder: Path
    agents: Sequence[str] = ()
    secured: bool = False  # then every user's password is the user's name
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        config = self.folder / "nats.conf"
        jetstream = {"store_dir": str(self.folder / "store"), "sync_interval": "always"}
        settings: dict[str, Any] = {"listen": f"127.0.0.1:{self.port}", "jetstream": jetstream}
        if self.secured:
            settings["accounts"] = self._accounts()
        config.write_text(json.dumps(settings))
        log = (self.folder / "nats.log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                str(find_server()), "-c", str(config), stdout=log, stderr=log
            )
        async with asyncio.timeout(START_S):
            while not await _greets(self.port):
                await asyncio.sleep(0.02)

    async def connect(self, user: str) -> Client:
        """As one of the roles, or as the agent of that id; only its own inbox may be listened on."""
        inbox = f"_INBOX_agent.{user}" if user in self.agents else f"_INBOX_{user}"
        if user == "subscriber":
            inbox = "_INBOX"
        login = {"user": user, "password": user} if self.secured else {}
        return await nats.connect(
            self.url, inbox_prefix=inbox, max_reconnect_attempts=-1, error_cb=_quiet, **login
        )

    def _accounts(self) -> dict[str, Any]:
        def user(name: str, role: NatsRole) -> dict[str, Any]:
            return {"user": name, "password": name, "permissions": permissions(role, name)}

        return accounts(
            [user(role, role) for role in OWN],
            [user(agent, "agent") for agent in self.agents],
            [user("subscriber", "subscriber")],
        )

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


# Where no database is: nothing but the keys of people is asked of it by the handlers.
NO_POSTGRES = PostgresSettings(dsn=SecretStr("postgresql://nobody@127.0.0.1:1/none"))


@asynccontextmanager
async def nats_server(
    folder: Path, *, agents: Sequence[str] = (), streams: bool = True, secured: bool = False
) -> AsyncIterator[NatsServer]:
    folder.mkdir(parents=True, exist_ok=True)
    server = NatsServer(folder, agents, secured)
    try:
        await server.start()
        if streams:
            nc = await server.connect("admin")
            try:
                await bootstrap_streams(nc, agents)
            finally:
                await nc.close()
        yield server
    finally:
        await server.kill()


async def _greets(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1):
            return (await reader.readline()).startswith(b"INFO ")
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


async def _quiet(_: Exception) -> None:
    """The calls that fail say so themselves."""
