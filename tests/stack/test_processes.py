"""A supervised process that runs for long."""

import sys
from pathlib import Path

import pytest

from finetrail.stack import processes
from finetrail.stack.processes import ProcessSpec, SupervisedProcess
from tests.stack.support import eventually

TALKS = "import itertools\nfor n in itertools.count(): print(f'line {n:012}', flush=True)"


async def test_the_log_of_a_process_that_goes_on_and_on_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOOK_AT_LOG_S", 0.02)
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 10_000)
    log = tmp_path / "talker.log"
    earlier = tmp_path / "talker.log.1"
    command = (sys.executable, "-c", TALKS)
    spec = ProcessSpec("talker", command, environment={}, log=log, folder=tmp_path)
    said: list[str] = []
    talker = SupervisedProcess(spec, said.append, lambda: None)

    async def at_once() -> bool:
        return True

    await talker.start(at_once, 10)
    try:
        await eventually(lambda: earlier.exists() and first_line(earlier) > 0)  # the second time
    finally:
        await talker.stop()

    assert said == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talker.log", "talker.log.1"]
    assert b"\0" not in log.read_bytes() + earlier.read_bytes()


def first_line(log: Path) -> int:
    """Its number; 0 while it is just being copied."""
    return int(log.read_bytes()[5:17] or 0)
