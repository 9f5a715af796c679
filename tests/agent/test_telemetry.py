"""Telemetry is collected, bounded and never in the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from domain.blobs import BlobRef
from domain.telemetry import LogEmitted, MetricsLogged
from domain.work import StepDone
from gpu_agent import telemetry as telemetry_module
from gpu_agent.stderr import read_line
from gpu_agent.telemetry import Telemetry
from tests.agent.conftest import RunAgent
from tests.agent.core import Core, cancelled, spec_of, until


@dataclass
class FakeLink:
    """Takes telemetry, or does not."""

    away: bool = False
    messages: dict[str, LogEmitted | MetricsLogged] = field(default_factory=dict)
    tries: int = 0

    async def emit(
        self, subject: str, message: LogEmitted | MetricsLogged, message_id: str
    ) -> None:
        assert str(UUID(int=1)) in subject
        self.tries += 1
        if self.away:
            raise ConnectionError("away")
        self.messages.setdefault(message_id, message)

    @property
    def lines(self) -> list[str]:
        logs = [message for message in self.messages.values() if isinstance(message, LogEmitted)]
        return [line.message for message in logs for line in message.lines]


@asynccontextmanager
async def sending(link: FakeLink) -> AsyncIterator[Telemetry]:
    telemetry = Telemetry(link, "default", UUID(int=1), 1)
    task = asyncio.create_task(telemetry.run())
    try:
        yield telemetry
    finally:
        await cancelled([task])


def step(number: int) -> StepDone:
    return StepDone(
        step=number,
        epoch=1,
        loss=1,
        learning_rate=1,
        grad_norm=1,
        tokens_per_s=1,
        step_s=1,
        eta_s=1,
    )


async def test_lines_of_one_moment_travel_together() -> None:
    link = FakeLink()

    async with sending(link) as telemetry:
        for number in range(10):
            telemetry.log("INFO", f"line {number}")
        await telemetry.flush(5)

    assert len(link.messages) == 1
    assert link.lines == [f"line {number}" for number in range(10)]


async def test_a_message_stays_small_enough_for_the_log() -> None:
    link = FakeLink()

    async with sending(link) as telemetry:
        for _ in range(100):
            telemetry.log("INFO", "ü" * 10_000)
        await telemetry.flush(5)

    sizes = [len(message.model_dump_json().encode()) for message in link.messages.values()]
    assert max(sizes) <= 64 * 1024
    assert len(link.lines) == 100


async def test_what_was_not_taken_is_sent_again_under_the_same_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry_module, "RETRY_PAUSE_S", 0.01)
    link = FakeLink(away=True)

    async with sending(link) as telemetry:
        telemetry.log("INFO", "one")
        await until(lambda: link.tries > 2)
        link.away = False
        telemetry.log("INFO", "two")
        await telemetry.flush(5)

    assert link.lines == ["one", "two"]


async def test_too_much_for_too_long_drops_the_oldest_and_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry_module, "RETRY_PAUSE_S", 0.01)
    link = FakeLink(away=True)

    async with sending(link) as telemetry:
        telemetry.log("INFO", "in flight")
        await until(lambda: link.tries > 0)
        for number in range(2_005):
            telemetry.log("INFO", str(number))
        link.away = False
        await telemetry.flush(5)

    assert link.lines[0] == "in flight"
    assert link.lines[1].startswith("6 log lines and 0 step metrics were dropped")
    assert link.lines[2:] == [str(number) for number in range(6, 2_005)]


async def test_a_flush_gives_up_when_the_log_is_away() -> None:
    async with sending(FakeLink(away=True)) as telemetry:
        telemetry.log("INFO", "one")

        await asyncio.wait_for(telemetry.flush(0.05), 5)


async def test_steps_travel_fifty_at_a_time() -> None:
    link = FakeLink()

    async with sending(link) as telemetry:
        for number in range(1, 121):
            telemetry.step(step(number))
        await telemetry.flush(5)

    messages = [m for m in link.messages.values() if isinstance(m, MetricsLogged)]
    assert [len(message.steps) for message in messages] == [50, 50, 20]
    assert [s.step for message in messages for s in message.steps] == list(range(1, 121))


@pytest.mark.infra
async def test_a_fast_loop_sends_few_messages_and_every_step(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    job_id = core.submit(spec_of("steps-500", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))
        messages = await core.telemetry(job_id)
        steps = await core.steps(job_id)

    assert [step.step for step in steps] == list(range(1, 501))
    assert len(messages) < 50


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", None),
        (b"Loading weights:  45%|####      | 93/206 [00:01<00:02, 50.1it/s]", None),
        (b" 10%|#  | 1/10\r 20%|##  | 2/10\r", None),
        (b"Traceback (most recent call last):", ("ERROR", "Traceback (most recent call last):")),
        (b"ValueError: no", ("ERROR", "ValueError: no")),
        (b"x.py:3: FutureWarning: soon", ("WARNING", "x.py:3: FutureWarning: soon")),
        (b"hello \xff", ("INFO", "hello �")),
    ],
)
def test_lines_of_standard_error_get_a_level_or_are_left_out(
    raw: bytes, expected: tuple[str, str] | None
) -> None:
    assert read_line(raw) == expected
