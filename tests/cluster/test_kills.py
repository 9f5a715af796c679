"""The short form of `make test-cluster`: one leader dies, and nobody's command is lost."""

from pathlib import Path

import pytest

from tests.cluster.kills import measure

pytestmark = [pytest.mark.infra, pytest.mark.slow]


async def test_no_acknowledged_command_is_lost_or_doubled_when_the_leader_dies(
    tmp_path: Path,
) -> None:
    outcome = await measure(tmp_path, commands=200, kills=1, wipe=False)

    assert outcome.good, outcome
    assert outcome.events == 200
    assert outcome.kills == 1
