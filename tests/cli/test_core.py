"""Several roles in one process end together, and a process does without what it does not need."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from domain.tracing import span
from finetrail.core import RoleEnded, run_together
from finetrail.metrics import served
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from finetrail.tracing import traced

ROOT = Path(__file__).parents[2]


class Waiting:
    """A role that does nothing but wait, and says how it ended."""

    def __init__(self) -> None:
        self.ended = ""

    async def __call__(self, _settings: Settings, stop: asyncio.Event) -> None:
        try:
            await stop.wait()
            self.ended = "asked"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def _fails(_settings: Settings, _stop: asyncio.Event) -> None:
    raise ConnectionError("away")


async def _ends(_settings: Settings, _stop: asyncio.Event) -> None:
    return


async def test_all_run_until_they_are_asked_to_stop() -> None:
    one, other, stop = Waiting(), Waiting(), asyncio.Event()
    running = asyncio.create_task(run_together((one, other), Settings(), stop))

    stop.set()
    await asyncio.wait_for(running, 5)

    assert (one.ended, other.ended) == ("asked", "asked")


async def test_one_that_fails_takes_the_others_with_it() -> None:
    one = Waiting()

    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(run_together((one, _fails), Settings(), asyncio.Event()), 5)

    assert raised.group_contains(ConnectionError, match="away")
    assert one.ended == "cancelled"


async def test_one_that_ends_by_itself_is_an_error() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(run_together((Waiting(), _ends), Settings(), asyncio.Event()), 5)

    assert raised.group_contains(RoleEnded, match="_ends")


def test_spans_that_nothing_can_send_are_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "adapters.opentelemetry_tracer", raising=False)

    with (
        pytest.raises(StackError, match=r"finetrail\[tracing\]"),
        traced("core", "http://127.0.0.1:1/v1/traces"),
    ):
        pass


def test_nothing_of_tracing_is_imported_where_nobody_traces() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None; import finetrail.core, finetrail.agent, "
        "finetrail.cli.running; from finetrail.tracing import traced\n"
        "with traced('core', None): pass"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-1500:]


async def test_a_collector_that_never_answers_does_not_keep_a_process_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = pytest.importorskip("adapters.opentelemetry_tracer", exc_type=ImportError)
    monkeypatch.setattr(tracer, "CLOSE_S", 0.1)

    def trace(port: int) -> None:
        with traced("core", f"http://127.0.0.1:{port}/v1/traces"), span("work"):
            pass

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        await asyncio.wait_for(asyncio.to_thread(trace, port), tracer.EXPORT_S - 1)

    assert "the last spans were not taken" in caplog.text


async def test_a_port_that_is_taken_costs_the_figures_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with served("127.0.0.1", taken.getsockname()[1]):
            pass

    assert "no metrics at 127.0.0.1" in caplog.text
