"""Random commands, repeats, races and deaths against real servers leave log, folds and rows in step."""

from pathlib import Path

import pytest

from tests.log.machine import run

pytestmark = [pytest.mark.infra, pytest.mark.slow]


def test_log_folds_and_rows_agree_after_every_step(tmp_path: Path) -> None:
    run(tmp_path, examples=6, steps=15)
