"""One death of everybody from the crash matrix; `make test-crash` goes through a hundred."""

from pathlib import Path

import pytest

from tests.crash.matrix import VICTIMS, is_clean, run

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_kill_of_everybody_under_load_loses_nothing_doubles_nothing_and_changes_no_byte(
    tmp_path: Path,
) -> None:
    found = run(
        tmp_path / "data",
        moments=len(VICTIMS),
        seed=4,
        seeds=1,
        longest_wait_s=1.5,
        wait_for_work=False,
    )

    assert is_clean(found), found
    assert all(found["victims"][victim]["kills"] for victim in VICTIMS)
    assert found["jobs"] >= 2
    assert found["acknowledged"] > 10
