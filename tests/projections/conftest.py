"""Real servers: one NATS and one Postgres for all tests here, and an empty schema for each."""

from collections.abc import AsyncIterator

import pytest

from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from tests.projections.support import drop_everything


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    folder = tmp_path_factory.mktemp("projections")
    settings = Settings(data_dir=folder / "data", gateway=GatewaySettings(port=0))
    async with EmbeddedStack(settings) as running:
        yield running


@pytest.fixture
async def dsn(stack: EmbeddedStack) -> str:
    """A database without read models."""
    address = stack.settings.postgres_dsn
    await drop_everything(address)
    return address
