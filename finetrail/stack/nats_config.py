"""A NATS server's configuration file: who listens where, and who may come in."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from finetrail.settings import NatsRole
from finetrail.stack.errors import StackError
from finetrail.stack.nats_accounts import CORE, accounts, agent_users
from finetrail.stack.nats_server import MAX_PAYLOAD, MAX_STORE, permissions
from finetrail.stack.state import Secrets, StackPaths, write_private

OWN: Final[tuple[NatsRole, ...]] = (
    "admin",
    "gateway",
    "handlers",
    "projections",
    "delivery",
)

AT_ONCE: Final = "always"  # an acknowledged append survives a power cut

_keys: Final = TypeAdapter(dict[str, str])


def write_config(
    paths: StackPaths,
    known: Secrets,
    agent_id: str,
    host: str,
    port: int,
    *,
    sync_interval: str = AT_ONCE,
) -> None:
    """Write it with the agents that have joined by now; a running server reads it at SIGHUP."""
    # The server's configuration language contains JSON.
    config = server_config(
        known.nats.of_role, agent_id, f"{host}:{port}", str(paths.nats), read_joined(paths)
    )
    config["jetstream"]["sync_interval"] = sync_interval
    write_private(paths.nats_config, json.dumps(config, indent=2))


def read_joined(paths: StackPaths) -> dict[str, str]:
    """Public keys by agent, as the log had them when a stack last looked."""
    try:
        return _keys.validate_json(paths.joined_agents.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise StackError(
            f"{paths.joined_agents} cannot be read.", "Remove it: it is made anew from the log."
        ) from error


def write_joined(paths: StackPaths, joined: Mapping[str, str]) -> None:
    write_private(paths.joined_agents, json.dumps(dict(sorted(joined.items())), indent=2))


def take_over_store(store: Path) -> None:
    """Move the streams of a server that had one account for all to the account that has them now."""
    before, now = store / "jetstream" / "$G", store / "jetstream" / CORE
    if before.is_dir() and not now.exists():
        before.rename(now)


def server_config(
    password: Callable[[NatsRole], str],
    agent_id: str,
    listen: str,
    store: str,
    joined: Mapping[str, str],
) -> dict[str, Any]:
    """What any server for Finetrail is told: the embedded one, and one of your own."""

    def user(role: NatsRole) -> dict[str, Any]:
        return {
            "user": role,
            "password": password(role),
            "permissions": permissions(role, agent_id),
        }

    agents = [user("agent"), *agent_users(joined)]
    return {
        "server_name": "finetrail",
        "listen": listen,
        "max_payload": MAX_PAYLOAD,
        "jetstream": {
            "store_dir": store,
            "sync_interval": AT_ONCE,
            "max_file_store": MAX_STORE,
        },
        "accounts": accounts([user(role) for role in OWN], agents, [user("subscriber")]),
    }
