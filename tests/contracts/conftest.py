"""One S3 server for all suites of this folder."""

from collections.abc import Iterator

import pytest

from tests.seaweed import SeaweedServer, seaweed_server


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as running:
        yield running
