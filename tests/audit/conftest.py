"""A stack whose log was archived and signed by the process that projects, and is at rest."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from finetrail.settings import AuditSettings, GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from tests.audit.copies import publish
from tests.projections.archiving import history, signed
from tests.projections.support import eventually
from tests.projections.test_process import process


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "elsewhere").mkdir()
    settings = Settings(
        data_dir=folder / "data",
        gateway=GatewaySettings(port=0),
        audit=AuditSettings(sign_events=30, sign_seconds=0.3, publish_folder=folder / "elsewhere"),
    )
    async with EmbeddedStack(settings) as running:
        yield running


@pytest.fixture(scope="session")
async def archived(stack: EmbeddedStack) -> Settings:
    """Settings of the stack, after all events were archived and the last one signed."""
    settings = stack.settings
    login, log = settings.nats_login("admin"), history()
    async with process(settings):
        for start in range(0, len(log), 30):
            part = log[start : start + 30]
            await publish(login.url, part, user=login.user, password=login.password)

            async def is_signed(last: int = part[-1].sequence) -> bool:
                try:
                    return last in await signed(settings.postgres_dsn)
                except asyncpg.PostgresError:
                    return False  # the schema is not there yet

            await eventually(is_signed)
    return settings
