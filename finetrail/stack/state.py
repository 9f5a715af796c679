"""What a stack keeps in its data directory: secrets, addresses, and where everything else lies."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from uuid_utils.compat import uuid7

from finetrail.settings import EVERYWHERE, NatsRole, NatsUser, Settings
from finetrail.stack.errors import StackError

DATABASE = "finetrail"  # database and the role that owns it; it is no superuser


@dataclass(frozen=True, slots=True)
class StackPaths:
    """The layout of a data directory."""

    root: Path

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def format(self) -> Path:
        """Says which build used the directory last."""
        return self.root / "format.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def first_start_done(self) -> Path:
        return self.root / "first-start-done"

    @property
    def run(self) -> Path:
        """Holds only what a running stack needs."""
        return self.root / "run"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def endpoints(self) -> Path:
        return self.run / "endpoints.json"

    @property
    def processes(self) -> Path:
        return self.run / "processes.json"

    @property
    def joined_agents(self) -> Path:
        """Public keys of the agents on other machines that may come in."""
        return self.root / "nats-agents.json"

    @property
    def joined(self) -> Path:
        """On another machine: which agent it is, and whose."""
        return self.root / "agent.json"

    @property
    def agent_seed(self) -> Path:
        """Likewise: the agent's private key, which never leaves its machine."""
        return self.root / "agent.seed"

    @property
    def nats_config(self) -> Path:
        return self.run / "nats.conf"


def _password() -> str:
    return secrets.token_hex(32)


class NatsPasswords(BaseModel):
    model_config = ConfigDict(frozen=True)

    admin: str = Field(default_factory=_password)
    gateway: str = Field(default_factory=_password)
    handlers: str = Field(default_factory=_password)
    projections: str = Field(default_factory=_password)
    delivery: str = Field(default_factory=_password)
    agent: str = Field(default_factory=_password)
    subscriber: str = Field(default_factory=_password)

    def of_role(self, role: NatsRole) -> str:
        return str(getattr(self, role))


class Secrets(BaseModel):
    """Made once per data directory; a field that an older file lacks is made when it is read."""

    model_config = ConfigDict(frozen=True)

    stack_id: str = Field(default_factory=lambda: secrets.token_hex(16))
    agent_id: str = Field(default_factory=lambda: str(uuid7()))
    nats: NatsPasswords = Field(default_factory=NatsPasswords)
    postgres: str = Field(default_factory=_password)
    api_key_pepper: str = Field(default_factory=_password)


class Endpoints(BaseModel):
    """Loopback ports of a running stack; None where the server is somebody else's."""

    model_config = ConfigDict(frozen=True)

    nats_port: int | None = None
    postgres_port: int | None = None
    gateway_port: int


def load_secrets(paths: StackPaths) -> Secrets:
    """Read the secrets of this data directory, making what is not there yet."""
    if not paths.secrets.exists():
        _create_private(paths.secrets, Secrets().model_dump_json(indent=2))
    text = paths.secrets.read_text()
    try:
        known = Secrets.model_validate_json(text)
    except ValidationError as error:
        raise StackError(
            f"{paths.secrets} cannot be read as this stack's secrets.",
            "Restore it from a backup: the log and the database are locked with it.",
        ) from error
    if known.model_dump_json(indent=2) != text:
        write_private(paths.secrets, known.model_dump_json(indent=2))
    return known


def load_endpoints(paths: StackPaths) -> Endpoints | None:
    try:
        return Endpoints.model_validate_json(paths.endpoints.read_text())
    except (FileNotFoundError, ValidationError):
        return None


class JoinedAgent(BaseModel):
    """What a machine that has joined was told."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    name: str
    workspace: str
    nats_url: str
    gateway_url: str


def load_joined(paths: StackPaths) -> JoinedAgent | None:
    try:
        return JoinedAgent.model_validate_json(paths.joined.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StackError(
            f"{paths.joined} cannot be read.",
            "Join again with a new token and another data directory.",
        ) from error


def as_joined(settings: Settings, paths: StackPaths, joined: JoinedAgent) -> Settings:
    agent = settings.agent.model_copy(
        update={
            "id": settings.agent.id or joined.agent_id,
            "name": settings.agent.name or joined.name or None,
            "seed_file": settings.agent.seed_file or paths.agent_seed,
            "gateway_url": settings.agent.gateway_url or joined.gateway_url,
        }
    )
    nats = settings.nats.model_copy(update={"url": settings.nats.url or joined.nats_url})
    return settings.model_copy(update={"workspace": joined.workspace, "nats": nats, "agent": agent})


def resolve_settings(settings: Settings) -> Settings:
    """Fill in what the user left to the embedded stack: addresses, credentials, the agent's id.

    On a machine that has joined another's stack they come from what `finetrail agent join` wrote.
    What the user has set stays as it is. Addresses are there only while a stack runs or was
    killed; a process that needs one that is missing fails with `SettingMissing`.
    """
    paths = StackPaths(settings.folder)
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not paths.secrets.exists() and (joined := load_joined(paths)):
        return as_joined(settings, paths, joined)
    return fill_in(settings, load_secrets(paths), load_endpoints(paths))


def fill_in(settings: Settings, known: Secrets, endpoints: Endpoints | None) -> Settings:
    nats, postgres, gateway = settings.nats, settings.postgres, settings.gateway
    if nats.url is None:
        port = endpoints and endpoints.nats_port
        users: dict[str, NatsUser] = {
            role: NatsUser(user=role, password=SecretStr(known.nats.of_role(role)))
            for role in get_args(NatsRole)
        }
        url = f"nats://{reachable(nats.listen)}:{port}" if port else None
        nats = nats.model_copy(update={"url": url, **users})
    if postgres.dsn is None and endpoints and endpoints.postgres_port:
        place = f"127.0.0.1:{endpoints.postgres_port}/{DATABASE}"
        dsn = SecretStr(f"postgresql://{DATABASE}:{known.postgres}@{place}")
        postgres = postgres.model_copy(update={"dsn": dsn})
    gateway = gateway.model_copy(
        update={
            "port": gateway.port or (endpoints.gateway_port if endpoints else 0),
            "api_key_pepper": gateway.api_key_pepper or SecretStr(known.api_key_pepper),
        }
    )
    agent = settings.agent.model_copy(update={"id": settings.agent.id or known.agent_id})
    return settings.model_copy(
        update={"nats": nats, "postgres": postgres, "gateway": gateway, "agent": agent}
    )


def reachable(listen: str) -> str:
    """Where this machine reaches a server of its own that listens there."""
    return EVERYWHERE.get(listen, listen)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    _write_new(aside, text)
    aside.replace(path)


def _create_private(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    _write_new(aside, text)
    try:
        path.hardlink_to(aside)  # unlike a rename this never replaces what another process made
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def _write_new(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
