"""Log lines and step metrics of one attempt: collected for a moment, sent in order, never in the way."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID, uuid4

from domain.subjects import telemetry_subject
from domain.telemetry import Level, LogEmitted, LogLine, MetricsLogged, StepMetrics
from domain.work import StepDone
from gpu_agent.ports import TelemetryLog

COLLECT_S: Final = 0.15  # live to the eye, and a fast loop still sends only seven messages a second
RETRY_PAUSE_S: Final = 0.5
MAX_STEPS: Final = 50  # of one message
MAX_BYTES: Final = 60 * 1024  # of one message's lines, which leaves room for what is around them
MAX_LINE: Final = 4000  # characters
# What is kept while the log is away: minutes of it, and a few megabytes at most.
KEPT_LINES: Final = 2_000
KEPT_STEPS: Final = 10_000

Source = Literal["worker", "kernel", "system"]

_log = logging.getLogger(__name__)


class Telemetry:
    """`run` sends what `log` and `step` have put aside; when it cannot, the oldest is dropped."""

    def __init__(self, link: TelemetryLog, workspace: str, work_id: UUID, attempt: int) -> None:
        self._link = link
        self._log_subject = telemetry_subject(workspace, "log", work_id, attempt)
        self._metrics_subject = telemetry_subject(workspace, "metrics", work_id, attempt)
        # Nobody can guess it: a message with an id that was there before is passed over.
        self._id = f"{work_id}.{attempt}.{uuid4().hex}"
        self._sent = 0
        self._lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self._steps: deque[StepMetrics] = deque(maxlen=KEPT_STEPS)
        self._dropped_lines = 0
        self._dropped_steps = 0
        self._waiting = asyncio.Event()
        self._hurry = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def log(self, level: Level, message: str, source: Source = "worker") -> None:
        self._dropped_lines += len(self._lines) == KEPT_LINES
        text = message if len(message) <= MAX_LINE else message[: MAX_LINE - 1] + "…"
        self._lines.append(
            LogLine(time=datetime.now(UTC), level=level, message=text, source=source)
        )
        self._arrived()

    def step(self, done: StepDone) -> None:
        self._dropped_steps += len(self._steps) == KEPT_STEPS
        self._steps.append(
            StepMetrics(
                step=done.step,
                epoch=done.epoch,
                loss=done.loss,
                learning_rate=done.learning_rate,
                grad_norm=done.grad_norm,
                tokens_per_s=done.tokens_per_s,
                eta_s=done.eta_s,
                time=datetime.now(UTC),
            )
        )
        self._arrived()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._waiting.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), COLLECT_S)
            while message := self._next():
                await self._deliver(message)
            self._waiting.clear()
            self._empty.set()

    async def flush(self, within_s: float) -> None:
        """Wait until all is stored, but no longer than this."""
        self._hurry.set()
        try:
            await asyncio.wait_for(self._empty.wait(), within_s)
        except TimeoutError:
            _log.warning("telemetry of %s is not stored after %.0f s", self._id, within_s)
        finally:
            self._hurry.clear()

    def _arrived(self) -> None:
        self._empty.clear()
        self._waiting.set()

    def _next(self) -> LogEmitted | MetricsLogged | None:
        if self._dropped_lines or self._dropped_steps:
            self._lines.appendleft(self._confession())
        if self._lines:
            return LogEmitted(lines=tuple(self._take_lines()))
        if self._steps:
            count = min(MAX_STEPS, len(self._steps))
            return MetricsLogged(steps=tuple(self._steps.popleft() for _ in range(count)))
        return None

    def _take_lines(self) -> list[LogLine]:
        taken: list[LogLine] = []
        size = 0
        while self._lines:
            size += len(self._lines[0].model_dump_json().encode())
            if taken and size > MAX_BYTES:
                break
            taken.append(self._lines.popleft())
        return taken

    def _confession(self) -> LogLine:
        if len(self._lines) == KEPT_LINES:
            self._lines.popleft()  # makes room
            self._dropped_lines += 1
        message = (
            f"{self._dropped_lines} log lines and {self._dropped_steps} step metrics were dropped: "
            "the log could not take them in time"
        )
        self._dropped_lines = self._dropped_steps = 0
        time = self._lines[0].time if self._lines else datetime.now(UTC)
        return LogLine(time=time, level="WARNING", message=message, source="system")

    async def _deliver(self, message: LogEmitted | MetricsLogged) -> None:
        self._sent += 1
        is_log = isinstance(message, LogEmitted)
        subject = self._log_subject if is_log else self._metrics_subject
        while True:
            try:
                await self._link.emit(subject, message, f"{self._id}.{self._sent}")
            except ConnectionError as problem:
                _log.debug("telemetry of %s is sent again: %s", self._id, problem)
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                return
