"""Which processes belong to a stack, and that no other is ever touched."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetrail.stack.orphans import (
    MARKER,
    StackProcesses,
    end_leftovers,
    lock_holder,
    locked,
    record,
    recorded,
)
from finetrail.stack.state import StackPaths
from tests.stack.support import alive


@pytest.fixture
def family(tmp_path: Path) -> StackProcesses:
    return StackProcesses(f"id:{tmp_path}", tmp_path / "postgres")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def sleeper(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], env={"PATH": os.defpath, **environment})


async def test_what_carries_the_mark_is_ended(
    family: StackProcesses, started: list[subprocess.Popen[bytes]]
) -> None:
    recorded_one, unrecorded = (sleeper({MARKER: family.marker}) for _ in range(2))
    started += [recorded_one, unrecorded]

    await end_leftovers(family, {"agent": recorded_one.pid}, lambda _: None)

    assert recorded_one.wait(5) == -signal.SIGTERM
    assert unrecorded.wait(5) == -signal.SIGKILL


async def test_a_recorded_pid_that_now_is_another_process_is_left_alone(
    family: StackProcesses, started: list[subprocess.Popen[bytes]]
) -> None:
    stranger, copy = sleeper({}), sleeper({MARKER: f"{family.marker}-copied"})
    started += [stranger, copy]

    await end_leftovers(family, {"nats": stranger.pid, "core": copy.pid}, lambda _: None)
    family.send(stranger.pid, signal.SIGKILL)

    assert alive(stranger.pid)
    assert alive(copy.pid)


def test_a_process_that_has_gone_can_be_signalled_without_harm(family: StackProcesses) -> None:
    gone = sleeper({MARKER: family.marker})
    gone.kill()
    gone.wait()

    family.send(gone.pid, signal.SIGTERM)

    assert family.running() == []


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path)
    paths.run.mkdir()

    with locked(paths):
        assert lock_holder(paths) == os.getpid()

    assert lock_holder(paths) is None


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path)
    paths.run.mkdir()
    record(paths, {"nats": 7})
    assert recorded(paths) == {"nats": 7}

    paths.processes.write_text('{"nats": ')

    assert recorded(paths) == {}
