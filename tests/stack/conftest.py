"""A stack below pytest's temporary folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from finetrail.settings import Settings
from finetrail.stack.supervisor import EmbeddedStack
from tests.stack.support import settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture(scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    """Servers that tests share, as long as they leave the streams as they found them."""
    async with EmbeddedStack(settings_in(tmp_path_factory.mktemp("running"))) as stack:
        yield stack
