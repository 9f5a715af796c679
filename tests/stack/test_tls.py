"""A NATS server with a certificate of a private authority: who trusts it connects, others say why not."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.nats_connection import close, connect, end
from finetrail.deployment import COMPOSE_AGENT, MONITOR, environment
from finetrail.settings import Settings
from finetrail.stack.nats_server import find_server
from finetrail.stack.supervisor import EmbeddedStack, Role
from tests.certificates import make_certificate
from tests.infra import free_port
from tests.stack.support import eventually

pytestmark = [
    pytest.mark.infra,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="it needs openssl"),
]

FINETRAIL = (sys.executable, "-m", "finetrail")
WITHIN_S = 60
UNTRUSTED = "its certificate is not trusted: unable to get local issuer certificate"


@dataclass
class SecuredNats:
    """A server as `finetrail deploy nats-config` has it, and what our processes are told of it."""

    folder: Path
    port: int = field(default_factory=free_port)
    monitor: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        make_certificate(self.folder)
        secrets = [line.split("=", 1) for line in environment().splitlines() if "=" in line]
        self.secrets = dict(secrets)

    @property
    def url(self) -> str:
        return f"tls://localhost:{self.port}"

    def told(self, *, trusting: bool = True) -> dict[str, str]:
        """Environment of a process of ours."""
        more = {
            "FINETRAIL_NATS__URL": self.url,
            "FINETRAIL_AGENT__ID": COMPOSE_AGENT,
            "FINETRAIL_DATA_DIR": str(self.folder / "data"),
            "FINETRAIL_GATEWAY__PORT": "0",
            "FINETRAIL_POSTGRES__DSN": "postgresql://nobody@127.0.0.1:9/none",
        }
        trust = {"SSL_CERT_FILE": str(self.folder / "ca.pem")} if trusting else {}
        given = {name: text for name, text in os.environ.items() if name != "SSL_CERT_FILE"}
        return given | self.secrets | more | trust

    def cli(
        self, *words: str, trusting: bool = True, more: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*FINETRAIL, *words],
            env={**self.told(trusting=trusting), **(more or {})},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    def configure(self, *words: str) -> None:
        files = ("--tls-cert", str(self.folder / "server.pem"))
        key = ("--tls-key", str(self.folder / "server.key"))
        place = ("--listen", f"127.0.0.1:{self.port}", "--store", str(self.folder / "store"))
        printed = self.cli("deploy", "nats-config", *place, *files, *key, *words)
        assert printed.returncode == 0, printed.stderr
        text = printed.stdout.replace(MONITOR, f"127.0.0.1:{self.monitor}")
        (self.folder / "nats.conf").write_text(text)

    def start(self) -> None:
        with (self.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(find_server()), "-c", str(self.folder / "nats.conf")],
                env={**os.environ, **self.secrets},
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def said(self) -> str:
        return (self.folder / "nats.log").read_text()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredNats]:
    server = SecuredNats(tmp_path_factory.mktemp("tls"))
    server.configure()
    server.start()
    try:
        made = server.cli("deploy", "streams")  # it gives up at once where nothing listens yet
        for _ in range(20):
            if made.returncode == 0:
                break
            made = server.cli("deploy", "streams")
        assert made.returncode == 0, made.stderr + server.said()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize(
    "role", ["core", "gateway", "handlers", "projections", "delivery", "agent"]
)
def test_a_role_that_does_not_trust_the_certificate_ends_and_says_why(
    secured: SecuredNats, role: str
) -> None:
    ended = secured.cli(role, trusting=False)

    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: NATS connection ")
    assert f"{UNTRUSTED}; SSL_CERT_FILE" in last


def test_streams_are_not_made_on_a_server_whose_certificate_is_not_trusted(
    secured: SecuredNats,
) -> None:
    ended = secured.cli("deploy", "streams", trusting=False)

    assert ended.returncode == 1
    assert f"{UNTRUSTED}; SSL_CERT_FILE" in ended.stderr


def test_a_certificate_for_another_name_is_refused(secured: SecuredNats) -> None:
    ended = secured.cli(
        "deploy", "streams", more={"FINETRAIL_NATS__URL": f"tls://127.0.0.1:{secured.port}"}
    )

    assert ended.returncode == 1
    assert "IP address mismatch" in ended.stderr


async def test_no_password_is_sent_to_a_server_that_offers_no_encryption(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"x","version":"2","max_payload":9,"auth_required":true}\r\n'
        )
        with suppress(asyncio.CancelledError, ConnectionError):
            while part := await reader.read(65536):
                heard.append(part)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        connecting = asyncio.create_task(
            connect(
                f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}",
                user="gateway",
                password="the-password",
                name="test",
                inbox_prefix="_INBOX",
            )
        )
        await eventually(lambda: "it does not begin with TLS" in caplog.text or connecting.done())
        await end(connecting)

    assert "it does not begin with TLS" in caplog.text
    assert heard
    assert not any(b"the-password" in each or b"CONNECT" in each for each in heard)


@pytest.fixture
async def running_stack(
    secured: SecuredNats, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EmbeddedStack]:
    """Postgres of the stack, NATS of our own, and a real core."""
    for name, value in secured.told().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FINETRAIL_POSTGRES__DSN")
    monkeypatch.setenv("FINETRAIL_GATEWAY__PORT", str(free_port()))
    core = Role("core", (*FINETRAIL, "core"), serves_http=True)
    async with EmbeddedStack(Settings(), roles=(core,)) as stack:
        yield stack


async def test_the_roles_and_an_agent_that_joins_connect_with_the_private_authority(
    secured: SecuredNats, running_stack: EmbeddedStack
) -> None:
    url, elsewhere = running_stack.settings.gateway_url, secured.folder / "elsewhere"

    def finetrail(*words: str) -> str:
        more = {
            "FINETRAIL_GATEWAY__PORT": url.rpartition(":")[2],
            "FINETRAIL_POSTGRES__DSN": running_stack.settings.postgres_dsn,
        }
        done = secured.cli(*words, more=more)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    token = json.loads(await asyncio.to_thread(finetrail, "agents", "token", "--json"))["token"]
    words = ("agent", "join", url, token, "--name", "far", "--data-dir", str(elsewhere))
    alone = {name: text for name, text in secured.told().items() if name[:9] != "FINETRAIL"}
    joined = await asyncio.to_thread(_run, words, alone)
    assert joined.returncode == 0, joined.stderr
    assert "Authorization Violation" in joined.stderr  # this server must be told first

    await asyncio.to_thread(secured.configure, "--joined")
    assert secured.process is not None
    secured.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(finetrail, "deploy", "streams")
    with (secured.folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [*FINETRAIL, "agent", "--data-dir", str(elsewhere)], env=alone, stdout=log, stderr=log
        )
    try:

        def connected() -> bool:
            assert agent.poll() is None, (secured.folder / "agent.log").read_text()
            agents = json.loads(finetrail("agents", "--json"))
            return any(each["name"] == "far" and each["connected"] for each in agents)

        await _until(connected)
    finally:
        agent.terminate()
        assert agent.wait(WITHIN_S) == 0


def _run(words: tuple[str, ...], told: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*FINETRAIL, *words],
        env=told,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.1)


async def test_a_connection_comes_back_when_the_server_does(
    secured: SecuredNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.folder / "ca.pem"))
    back = asyncio.Event()

    async def on_reconnect() -> None:
        back.set()

    nc = await connect(
        secured.url,
        user="gateway",
        password=secured.secrets["FINETRAIL_NATS__GATEWAY__PASSWORD"],
        name="test",
        inbox_prefix="_INBOX_gateway",
        on_reconnect=on_reconnect,
    )
    try:
        secured.stop()
        await eventually(lambda: not nc.is_connected)
        secured.start()
        async with asyncio.timeout(WITHIN_S):
            await back.wait()
        await nc.flush()
    finally:
        await close(nc)
