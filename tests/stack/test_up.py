"""`finetrail up` as its own process: signals, a killed parent, a second start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetrail.stack.orphans import recorded
from finetrail.stack.state import StackPaths, load_endpoints
from tests.stack.support import alive, eventually

pytestmark = pytest.mark.infra

UP = """
import sys
from pathlib import Path
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from finetrail.stack.supervisor import run_stack
from tests.stack.support import settings_in, stand_ins

async def greet(settings: Settings) -> None:
    print("first start of", settings.agent_id, flush=True)

folder = Path(sys.argv[1])
try:
    sys.exit(
        run_stack(
            settings_in(folder),
            roles=stand_ins(folder),
            on_first_start=greet,
            report=lambda line: print(line, flush=True),
        )
    )
except StackError as error:
    sys.exit(str(error))
"""


@dataclass
class Up:
    """Starts `up` on one folder, any number of times, and knows every process it ever started."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    @property
    def paths(self) -> StackPaths:
        return StackPaths(self.folder / "data")

    async def start(self) -> subprocess.Popen[bytes]:
        parent = self.launch()
        await eventually(lambda: self._has_started(parent))
        self.seen |= {*recorded(self.paths).values(), int(self._child())}
        return parent

    def launch(self) -> subprocess.Popen[bytes]:
        self.paths.root.joinpath("child.pid").unlink(missing_ok=True)
        with self.log(len(self.started)).open("wb") as log:
            parent = subprocess.Popen(
                [sys.executable, "-c", UP, str(self.folder)],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        self.started.append(parent)
        return parent

    def log(self, number: int) -> Path:
        return self.folder / f"up-{number}.log"

    def said(self, number: int) -> str:
        return self.log(number).read_text()

    def _has_started(self, parent: subprocess.Popen[bytes]) -> bool:
        number = self.started.index(parent)
        assert parent.poll() is None, self.said(number)
        return "postgres  postgresql://" in self.said(number) and self._child() != ""

    def _child(self) -> str:
        file = self.paths.root / "child.pid"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    for parent in up.started:
        if parent.poll() is None:
            parent.terminate()
            parent.wait(30)


async def test_a_signal_while_starting_ends_everything(up: Up) -> None:
    parent = up.launch()
    await eventually(lambda: recorded(up.paths) != {})
    started = recorded(up.paths)

    parent.send_signal(signal.SIGTERM)
    status = parent.wait(30)

    assert status == 0, up.said(0)
    assert not any(alive(pid) for pid in started.values())


async def test_after_the_parent_alone_is_killed_a_second_start_goes_on(up: Up) -> None:
    first = await up.start()
    orphans, endpoints = set(up.seen), load_endpoints(up.paths)

    first.kill()
    first.wait()
    assert all(alive(pid) for pid in orphans)  # a training run is not lost with its supervisor
    second = await up.start()

    assert not any(alive(pid) for pid in orphans)
    assert load_endpoints(up.paths) == endpoints
    assert "first start of" in up.said(0)
    assert "first start of" not in up.said(1)
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 0
    assert not any(alive(pid) for pid in up.seen)


async def test_after_the_whole_tree_is_killed_a_second_start_goes_on(up: Up) -> None:
    first = await up.start()

    first.kill()
    for pid in up.seen:
        os.kill(pid, signal.SIGKILL)
    first.wait()
    await eventually(lambda: not any(alive(pid) for pid in up.seen))
    second = await up.start()

    second.send_signal(signal.SIGHUP)  # its terminal was closed
    assert second.wait(30) == 0
    assert not any(alive(pid) for pid in up.seen)


async def test_a_second_start_beside_the_first_is_refused(up: Up) -> None:
    first = await up.start()

    second = up.launch()

    assert second.wait(30) == 1
    assert f"process {first.pid} holds it" in up.said(1)
    assert all(alive(pid) for pid in recorded(up.paths).values())


async def test_a_signal_ends_everything(up: Up) -> None:
    parent = await up.start()
    assert len(up.seen) == 5  # nats, postgres, core, agent and what the agent has started

    parent.terminate()
    status = parent.wait(30)

    assert status == 0, up.said(0)
    assert not any(alive(pid) for pid in up.seen)
    assert not up.paths.endpoints.exists()
