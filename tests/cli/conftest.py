"""A fake server, and the command line pointed at it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from finetrail.cli import app
from finetrail.client import Client
from tests.cli.fake_server import FakeServer

Cli = Callable[..., Result]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer().serving() as serving:
        yield serving


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.url, "fpk_key", patience_s=1.0) as connected:
        yield connected


@pytest.fixture
def cli(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command; the environment names the fake server, and nothing else is near."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINETRAIL_URL", server.url)
    monkeypatch.setenv("FINETRAIL_API_KEY", "fpk_key")
    runner = CliRunner()

    def run(*arguments: str, text: str | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=text)

    return run
