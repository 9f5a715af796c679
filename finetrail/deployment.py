"""What servers of your own are given: NATS its configuration, a `.env` its secrets, the log its streams."""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from domain.subjects import derived_id
from finetrail import bootstrap
from finetrail.settings import PREFIX, NatsRole, Settings
from finetrail.stack.fleet import joined_agents
from finetrail.stack.nats_config import server_config

# The agent of docker-compose.yml. An agent's permissions name it, so it must be known beforehand.
COMPOSE_AGENT: Final = str(derived_id("agent", "compose"))
LISTEN: Final = "0.0.0.0:4222"  # of a container's own network, or behind a firewall
MONITOR: Final = "127.0.0.1:8222"  # for health checks inside the container
STORE: Final = "/data"
# Our processes begin with TLS; whoever waits for the server's greeting instead gets it after this.
HANDSHAKE: Final = "1s"
# Bare: the server replaces it by the environment variable of that name.
_VARIABLE: Final = re.compile(r'"(\$[A-Z_]+)"')


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One server of several that keep the log together.

    Routes carry everything, so whoever may open one is a server like the others: keep their port on
    a network of the nodes' own, or name a CA, by which the nodes know each other.
    """

    cluster: str
    name: str
    listen: str  # where the other nodes reach this one: HOST:PORT
    routes: Sequence[str]  # HOST:PORT of all nodes; this one may be among them
    ca: str | None = None

    def config(self, certificate: tuple[str, str] | None) -> dict[str, Any]:
        cluster: dict[str, Any] = {
            "name": self.cluster,
            "listen": self.listen,
            "routes": [f"nats-route://{route}" for route in self.routes],
        }
        if self.ca is not None and certificate is not None:
            cert, key = certificate
            cluster["tls"] = {
                "cert_file": cert,
                "key_file": key,
                "ca_file": self.ca,
                "verify": True,
            }
        return {"server_name": self.name, "cluster": cluster}


def password_variable(role: NatsRole) -> str:
    return f"{PREFIX}NATS__{role.upper()}__PASSWORD"


def nats_config(
    agent_id: str,
    joined: dict[str, str],
    *,
    listen: str = LISTEN,
    store: str = STORE,
    certificate: tuple[str, str] | None = None,
    node: ClusterNode | None = None,
    monitor: str = MONITOR,
) -> str:
    """The configuration, with passwords taken from the environment of the server.

    Args:
        node: which of a cluster's servers it is; None is a server by itself.
        certificate: file of the server's certificate and file of its private key; None is no TLS.
    """
    config: dict[str, Any] = {
        **server_config(
            lambda role: f"${password_variable(role)}", agent_id, listen, store, joined
        ),
        "http": monitor,
    }
    if certificate is not None:
        cert, key = certificate
        config["tls"] = {"cert_file": cert, "key_file": key, "handshake_first": HANDSHAKE}
    if node is not None:
        config |= node.config(certificate)
    return _VARIABLE.sub(r"\1", json.dumps(config, indent=2)) + "\n"


def environment() -> str:
    """A `.env` for `docker-compose.yml`, with secrets that were made for it."""
    variables = [password_variable(role) for role in get_args(NatsRole)]
    variables += [f"{PREFIX}GATEWAY__API_KEY_PEPPER", "POSTGRES_PASSWORD", "S3_SECRET_KEY"]
    lines = [f"{name}={_secret()}" for name in variables]
    return "\n".join(
        ["# Keep it: the log, the database and the API keys depend on it.", *lines, ""]
    )


async def joined(settings: Settings) -> dict[str, str]:
    """Public keys by id of the agents on other machines that have joined."""
    async with bootstrap.admin_connection(settings) as nc:
        return await joined_agents(nc)


async def make_streams(settings: Settings) -> None:
    """Create or update every stream and consumer, also those of agents that have joined.

    Raises:
        StackError: A stream exists in another form, or a newer build has used the log.
    """
    await bootstrap.bootstrap(settings)
    async with bootstrap.admin_connection(settings) as nc:
        for agent_id in await joined_agents(nc):
            await bootstrap.ensure_agent(nc, agent_id)


def _secret() -> str:
    # The NATS server reads a variable as a value of its language: all digits would be a number.
    return "s" + secrets.token_hex(31)
