"""Every setting of every process, read once; builders are handed a `Settings` and read nothing else.

Sources, strongest first: arguments, `FINETRAIL_…` environment variables (`__` between section and
name), `.env`, then `finetrail.toml` (another path by `FINETRAIL_CONFIG`).
"""

import os
import socket
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from domain.placement import DEFAULT_POOL, Pool
from domain.subjects import token

PREFIX: Final = "FINETRAIL_"
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound
NatsRole = Literal["admin", "gateway", "handlers", "projections", "delivery", "agent", "subscriber"]
Token = Annotated[str, AfterValidator(token)]


class SettingMissing(ValueError):
    """A process needs a setting that neither the user nor a running stack has given."""

    def __init__(self, name: str) -> None:
        variable = PREFIX + name.upper().replace(".", "__")
        super().__init__(
            f"{name} is not set: start the embedded stack with `finetrail up`, or set {variable}"
        )
        self.name = name


@dataclass(frozen=True, slots=True)
class NatsLogin:
    """What a client passes to NATS; ``inbox_prefix`` is the only inbox its role may listen on."""

    url: str
    user: str
    password: str | None
    inbox_prefix: bytes
    seed: str | None = None  # instead of user and password: the NKey of an agent that has joined


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _networks(text: str) -> str:
    for each in filter(None, map(str.strip, text.split(","))):
        ip_network(each, strict=False)
    return text


Networks = Annotated[str, AfterValidator(_networks)]


class GatewaySettings(_Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)  # 0: the stack picks a free one
    allowed_hosts: str = ""  # host names it answers to beside the loopback ones, by commas
    max_upload_bytes: int = Field(default=2 * 1024**3, gt=0)
    api_key_pepper: SecretStr | None = None
    link_minutes: int = Field(default=15, ge=1, le=1440)  # that a download link is good for
    record_addresses: bool = True  # of clients, in the log with what their requests led to
    trusted_proxies: Networks = ""  # by commas; whose word on a client's address is taken
    # Where others reach it, for links; the host that a request names if left out.
    public_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] | None = None


class NatsUser(_Section):
    user: str | None = None
    password: SecretStr | None = None


class NatsSettings(_Section):
    url: str | None = None
    listen: str = "127.0.0.1"  # of the embedded server; agents on other machines must reach it
    port: int = Field(default=0, ge=0, le=65535)  # likewise; 0: a free one
    public_url: str | None = None  # what agents that join are told; else drawn from the two
    replicas: int = Field(default=1, ge=1, le=5)
    events_max_bytes: int = Field(default=-1, ge=-1)
    admin: NatsUser = NatsUser()
    gateway: NatsUser = NatsUser()
    handlers: NatsUser = NatsUser()
    projections: NatsUser = NatsUser()
    delivery: NatsUser = NatsUser()
    agent: NatsUser = NatsUser()
    subscriber: NatsUser = NatsUser()  # other systems, which read the feed

    def of_role(self, role: NatsRole) -> NatsUser:
        user: NatsUser = getattr(self, role)
        return user


class PostgresSettings(_Section):
    dsn: SecretStr | None = None


class S3Settings(_Section):
    """A bucket of any S3 server."""

    endpoint: str = Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$")  # host or host:port, no scheme
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    access_key: str = Field(min_length=1)
    secret_key: SecretStr = Field(min_length=1)
    region: str = "us-east-1"
    secure: bool = True  # TLS
    # https://host[:port] by which browsers reach it; links are made for it
    public_endpoint: str | None = Field(default=None, pattern=r"^https?://[A-Za-z0-9.:-]+$")


class BlobSettings(_Section):
    folder: Path | None = None
    s3: S3Settings | None = None

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.folder is not None and self.s3 is not None:
            raise ValueError("blobs lie in blobs.folder or in blobs.s3, not in both")
        return self


class WebhookSettings(_Section):
    # Addresses that only this network can reach, and http; whoever adds webhooks could ask them.
    allow_private: bool = False


class MetricsSettings(_Section):
    """Prometheus; without a port a process serves none, and a gateway has `/metrics` anyway."""

    host: str = "127.0.0.1"
    port: int | None = Field(
        default=None, ge=1, le=65535
    )  # of core, gateway, handlers, projections
    agent_port: int | None = Field(default=None, ge=1, le=65535)  # it may share its machine


class TracingSettings(_Section):
    endpoint: str | None = None  # OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces


class AuditSettings(_Section):
    """What proves later that the log was not changed."""

    key_file: Path | None = None
    sign_seconds: float = Field(default=60, gt=0, le=86_400)  # a head is signed when this long or
    sign_events: int = Field(default=1000, ge=1, le=1_000_000)  # so many events are without one
    publish_folder: Path | None = None  # one more place for heads, such as another host's mount
    publish_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = (
        None  # another one, at the S3 server of blobs.s3
    )
    publish_lock_days: int = Field(default=365, ge=1, le=36_500)  # that a bucket must keep them


class LogSettings(_Section):
    """What jobs say while they run."""

    archive_seconds: float = Field(default=30, gt=0, le=3600)  # between chunks that are kept


class AgentSettings(_Section):
    id: Token | None = None
    name: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    training_slots: int = Field(default=1, ge=1)
    pool: Pool = DEFAULT_POOL
    threads: int | None = Field(default=None, ge=1)
    work_dir: Path | None = None
    seed_file: Path | None = None  # the private key of an agent that has joined
    gateway_url: str | None = None  # by which such an agent reads and writes blobs


class Settings(BaseSettings):
    """All settings; the properties give what a process needs, and say so when it is missing."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        dotenv_filtering="match_prefix",  # a .env is often shared with other tools
    )

    data_dir: Path = Path(".finetrail")
    workspace: Token = "default"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    gateway: GatewaySettings = GatewaySettings()
    nats: NatsSettings = NatsSettings()
    postgres: PostgresSettings = PostgresSettings()
    blobs: BlobSettings = BlobSettings()
    agent: AgentSettings = AgentSettings()
    webhooks: WebhookSettings = WebhookSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    audit: AuditSettings = AuditSettings()
    logs: LogSettings = LogSettings()

    @override
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_config_file())
        return init_settings, env_settings, dotenv_settings, toml

    @model_validator(mode="after")
    def _external_servers_need_an_address_each(self) -> Self:
        if self.nats.url is None and self.nats.replicas != 1:
            raise ValueError("nats.replicas above 1 needs a cluster of your own in nats.url")
        return self

    @model_validator(mode="after")
    def _heads_go_to_the_server_of_the_blobs(self) -> Self:
        if self.audit.publish_bucket is not None and self.blobs.s3 is None:
            raise ValueError("audit.publish_bucket needs an S3 server in blobs.s3")
        return self

    @property
    def folder(self) -> Path:
        """The data directory as an absolute path."""
        return self.data_dir.expanduser().absolute()

    @property
    def blobs_folder(self) -> Path:
        return (self.blobs.folder or self.folder / "blobs").expanduser().absolute()

    @property
    def agent_work_dir(self) -> Path:
        return (self.agent.work_dir or self.folder / "agent").expanduser().absolute()

    @property
    def agent_id(self) -> str:
        if self.agent.id is None:
            raise SettingMissing("agent.id")
        return self.agent.id

    @property
    def agent_name(self) -> str:
        return self.agent.name or socket.gethostname()

    @property
    def threads(self) -> int:
        """Threads for arithmetic: as set, or the cores that this process may run on."""
        return self.agent.threads or available_cores()

    @property
    def postgres_dsn(self) -> str:
        """`postgresql://user:password@host:port/database`, without a driver's name."""
        if self.postgres.dsn is None:
            raise SettingMissing("postgres.dsn")
        return self.postgres.dsn.get_secret_value()

    @property
    def api_key_pepper(self) -> bytes:
        return _secret(self.gateway.api_key_pepper, "gateway.api_key_pepper")

    @property
    def gateway_url(self) -> str:
        """Where this machine reaches the gateway."""
        return f"http://{EVERYWHERE.get(self.gateway.host, self.gateway.host)}:{self.gateway.port}"

    def nats_login(self, role: NatsRole) -> NatsLogin:
        if self.nats.url is None:
            raise SettingMissing("nats.url")
        chosen = self.nats.of_role(role)
        inbox = f"_INBOX_agent.{self.agent_id}" if role == "agent" else f"_INBOX_{role}"
        if role == "subscriber":  # may be any client, which has this one unless told otherwise
            inbox = "_INBOX"
        return NatsLogin(
            url=self.nats.url,
            user=chosen.user or role,
            password=chosen.password.get_secret_value() if chosen.password else None,
            inbox_prefix=inbox.encode(),
            seed=self._agent_seed() if role == "agent" else None,
        )

    def _agent_seed(self) -> str | None:
        path = self.agent.seed_file
        return path.expanduser().read_text().strip() if path else None


def available_cores() -> int:
    """Cores that this process may use, which in a container or under taskset are not all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def as_environment(settings: Settings) -> dict[str, str]:
    """Environment variables from which a child process reads the same settings."""
    return dict(_variables(PREFIX, settings))


def _variables(prefix: str, section: BaseModel) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        variable = prefix + name.upper()
        if isinstance(value, BaseModel):
            pairs += _variables(f"{variable}__", value)
        elif isinstance(value, SecretStr):
            pairs.append((variable, value.get_secret_value()))
        elif value is not None:
            pairs.append((variable, str(value)))
    return pairs


def _config_file() -> Path:
    named = os.environ.get(PREFIX + "CONFIG")
    if named is None:
        return Path("finetrail.toml")
    if not Path(named).is_file():
        raise ValueError(f"{PREFIX}CONFIG names {named}, which is not a file")
    return Path(named)


def _secret(value: SecretStr | None, name: str) -> bytes:
    if value is None:
        raise SettingMissing(name)
    return value.get_secret_value().encode()
