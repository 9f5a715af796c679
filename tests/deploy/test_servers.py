"""The servers of the compose file without Docker: the same programs, files, arguments and health checks."""

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from typer.testing import CliRunner

from adapters.s3_blobs import S3Blobs
from adapters.s3_requests import S3Access
from domain.blobs import BlobRef
from finetrail import deployment, metrics
from finetrail.bootstrap import admin_connection, differences
from finetrail.cli import app
from finetrail.settings import NatsRole, Settings
from finetrail.stack.nats_server import find_server
from finetrail.stack.postgres_programs import find_install
from finetrail.stack.supervisor import EmbeddedStack
from tests.deploy.compose import ROOT, environment_of, secrets, services
from tests.gateway.real_server import listening
from tests.gateway.world import running_world
from tests.infra import free_port
from tests.stack.support import settings_in

pytestmark = pytest.mark.infra

START_S = 30.0
WEED = Path(sys.executable).with_name("weed")


@dataclass(frozen=True)
class Nats:
    port: int
    monitor: int

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


@contextmanager
def program(
    command: list[str], folder: Path, environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def healthy(service: str, ports: Mapping[int, int]) -> bool:
    """Run the health check of a service, with other ports; `wget` and `python` are this one's."""
    _, *command = services()[service]["healthcheck"]["test"]
    for published, port in ports.items():
        command = [word.replace(f":{published}", f":{port}") for word in command]
    if command[0] == "wget":
        return _answers(command[-1])
    assert command[0] == "python"
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, check=False)
    return done.returncode == 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own file's
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until_healthy(
    service: str, process: "subprocess.Popen[bytes]", log: Path, ports: Mapping[int, int]
) -> None:
    deadline = time.monotonic() + START_S
    while not healthy(service, ports):
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def nats_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server as the container has it, but for its ports and its folder."""
    folder = tmp_path_factory.mktemp("nats")
    found = Nats(free_port(), free_port())
    text = (ROOT / "deploy/nats.conf").read_text()
    for wanted, here in (
        (deployment.LISTEN, f"127.0.0.1:{found.port}"),
        (deployment.MONITOR, f"127.0.0.1:{found.monitor}"),
        (f'"{deployment.STORE}"', f'"{folder}/data"'),
    ):
        assert text.count(wanted) == 1
        text = text.replace(wanted, here)
    config = folder / "nats.conf"
    config.write_text(text)
    flag, _ = services()["nats"]["command"]
    command = [str(find_server()), flag, str(config)]
    with program(command, folder, environment_of("nats")) as process:
        wait_until_healthy("nats", process, folder / "log", {8222: found.monitor})
        yield found


@pytest.fixture
def in_compose(nats_container: Nats, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The settings of the one-shot service, with the server of this test."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment_of("streams").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FINETRAIL_NATS__URL", nats_container.url)
    monkeypatch.setenv("FINETRAIL_DATA_DIR", str(tmp_path / "data"))
    return Settings()


async def test_the_streams_are_made_by_the_command_of_the_service(in_compose: Settings) -> None:
    command = services()["streams"]["command"]

    first = await asyncio.to_thread(CliRunner().invoke, app, command)
    again = await asyncio.to_thread(CliRunner().invoke, app, command)

    assert (first.exit_code, again.exit_code) == (0, 0), first.output
    async with admin_connection(in_compose) as nc:
        assert await differences(nc, [deployment.COMPOSE_AGENT]) == []


@pytest.mark.parametrize("role", get_args(NatsRole))
async def test_each_role_logs_in_with_its_secret_and_with_no_other(
    in_compose: Settings, role: NatsRole
) -> None:
    login = in_compose.nats_login(role)
    nc = await nats.connect(
        login.url,
        user=login.user,
        password=secrets()[deployment.password_variable(role)],
        inbox_prefix=login.inbox_prefix,
        allow_reconnect=False,
    )
    await nc.close()

    stranger = Client()
    with pytest.raises(NatsError, match=r"(?i)authorization"):
        await stranger.connect(
            login.url, user=login.user, password="wrong", allow_reconnect=False, error_cb=_quiet
        )
    await stranger.close()  # a login that is refused leaves the socket open


async def test_agents_that_have_joined_come_in_by_a_configuration_that_is_printed_anew(
    in_compose: Settings,
) -> None:
    await asyncio.to_thread(CliRunner().invoke, app, ["deploy", "streams"])

    printed = await asyncio.to_thread(
        CliRunner().invoke, app, ["deploy", "nats-config", "--joined"]
    )

    assert printed.exit_code == 0, printed.output
    assert printed.stdout == (ROOT / "deploy/nats.conf").read_text()  # none has


async def test_the_object_store_takes_blobs_with_its_secret_and_with_no_other(
    tmp_path: Path,
) -> None:
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [
        word.replace("-dir=/data", f"-dir={tmp_path}/data")
        .replace("-ip=objectstore", "-ip=127.0.0.1")
        .replace("-ip.bind=0.0.0.0", "-ip.bind=127.0.0.1")
        for word in services()["objectstore"]["command"]
        if not word.startswith("-s3.port=")
    ]
    command += [f"-{part}.port={port}" for part, port in ports.items()]
    command += [f"-{part}.port.grpc={free_port()}" for part in ports]
    command += [f"-filer.localSocket={tmp_path}/filer.sock"]
    (tmp_path / "data").mkdir()
    environment = {**environment_of("objectstore"), "HOME": str(tmp_path)}
    ours = environment_of("gateway")
    with program([str(WEED), "-logtostderr=true", *command], tmp_path, environment) as process:
        await asyncio.to_thread(
            wait_until_healthy, "objectstore", process, tmp_path / "log", {8333: ports["s3"]}
        )

        def access(secret: str) -> S3Access:
            return S3Access(
                endpoint=f"127.0.0.1:{ports['s3']}",
                bucket=ours["FINETRAIL_BLOBS__S3__BUCKET"],
                access_key=ours["FINETRAIL_BLOBS__S3__ACCESS_KEY"],
                secret_key=secret,
                secure=False,
            )

        async with S3Blobs(
            access(ours["FINETRAIL_BLOBS__S3__SECRET_KEY"]), tmp_path / "a"
        ) as blobs:
            await _eventually_ready(blobs)
            async with blobs.writer() as writer:
                await writer.write(b"kept")
                ref: BlobRef = await writer.commit()
            assert [part async for part in blobs.read(ref.sha256)] == [b"kept"]
        async with S3Blobs(access("wrong"), tmp_path / "b") as stranger:
            with pytest.raises(OSError):
                await stranger.size(ref.sha256)


async def _eventually_ready(blobs: S3Blobs) -> None:
    """The port answers a moment before the volumes do."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            return await blobs.check()
        except OSError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    async with EmbeddedStack(settings_in(tmp_path_factory.mktemp("database"))) as stack:
        yield stack


async def test_the_check_of_the_database_tells_one_that_answers(database: EmbeddedStack) -> None:
    _, name, *arguments = services()["postgres"]["healthcheck"]["test"]
    dsn = database.settings.postgres_dsn
    port = re.search(r":(\d+)/", dsn)
    assert port is not None
    command = [str(find_install() / "bin" / name), *arguments]

    up = await asyncio.to_thread(subprocess.run, [*command, "-p", port[1]], check=False)
    down = await asyncio.to_thread(subprocess.run, [*command, "-p", str(free_port())], check=False)

    assert (up.returncode, down.returncode) == (0, 2)


async def test_the_check_of_the_gateway_tells_one_that_is_ready(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world, listening(world) as url:
        port = int(url.rpartition(":")[2])
        await _until(lambda: healthy("gateway", {8420: port}))
        world.queries.away = True
        away = await asyncio.to_thread(healthy, "gateway", {8420: port})

    assert not away
    assert not await asyncio.to_thread(healthy, "gateway", {8420: port})


@pytest.mark.parametrize("service", ["handlers", "projections", "delivery", "agent"])
async def test_the_check_of_the_other_roles_tells_one_that_runs(service: str) -> None:
    port = free_port()
    async with metrics.served("127.0.0.1", port):
        up = await asyncio.to_thread(healthy, service, {9464: port})

    assert up
    assert not await asyncio.to_thread(healthy, service, {9464: port})
    variable = "METRICS__AGENT_PORT" if service == "agent" else "METRICS__PORT"
    assert environment_of(service)[f"FINETRAIL_{variable}"] == "9464"


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def _quiet(_: Exception) -> None:
    """The call that is refused says so itself."""
