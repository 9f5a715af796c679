"""The progress of a job as it goes: a bar on a terminal, a line at every tenth anywhere else."""

import sys
from types import TracebackType
from typing import Final, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from finetrail.client.models import Job
from finetrail.render import clean, number, percent, seconds

TENTH: Final = 10  # percent
BAR: Final = 20  # characters


class LiveJob(Protocol):
    """Told of a job's state and of lines to show; both may come from different threads."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(self, job: Job) -> None: ...

    def line(self, text: str) -> None: ...


def live_job(stream: TextIO | None = None) -> LiveJob:
    """Show on standard error, so that what is on standard output stays a result."""
    chosen = stream or sys.stderr
    return TerminalJob(chosen) if chosen.isatty() else PlainJob(chosen)


class PlainJob:
    """Lines only: for files, pipes and continuous integration."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def update(self, job: Job) -> None:
        now = (job.status, int(job.progress.percent or 0) // TENTH)
        if now != self._said:
            self._said = now
            self.line(f"{job.status}  {position(job)}".rstrip())

    def line(self, text: str) -> None:
        self._stream.write(clean(text) + "\n")
        self._stream.flush()


class TerminalJob:
    """A bar that stays at the bottom while lines scroll above it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        console = Console(file=self._stream, highlight=False)
        self._width = console.width - BAR - len("cancelling") - 3  # blanks between columns
        self._progress = Progress(
            TextColumn("{task.fields[status]}"),
            BarColumn(BAR),
            TextColumn("{task.fields[position]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, status="", position="")
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def update(self, job: Job) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task,
                total=100 if job.progress.steps else None,
                completed=job.progress.percent or 0,
                status=job.status,
                position=position(job, self._width),
            )

    def line(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.out(clean(text), highlight=False)


def position(job: Job, width: int | None = None) -> str:
    """Where a job is, as in `epoch 2/3  step 40/111  loss 0.312  8.1 s left`.

    What does not fit into ``width`` is left out, the least wanted first.
    """
    at = job.progress
    if not at.steps:
        return ""
    validated = [epoch.get("validation_accuracy") for epoch in job.epochs]
    accuracy = next((share for share in reversed(validated) if share is not None), None)
    left = at.eta_s if not job.ended else None
    by_place = [  # how much it is wanted, 1 most; in the order of reading
        (4, f"epoch {at.epoch}/{at.epochs}"),
        (1, f"step {at.step}/{at.steps}"),
        (3, f"loss {number(job.loss)}" if job.loss is not None else ""),
        (5, f"validation accuracy {percent(accuracy)}" if accuracy is not None else ""),
        (6, f"{job.tokens_per_s:,.0f} tokens/s" if job.tokens_per_s else ""),
        (2, f"{seconds(left)} left" if left else ""),
    ]
    parts = [part for part in by_place if part[1]]
    while width is not None and len(_joined(parts)) > width and len(parts) > 1:
        parts.remove(max(parts))
    return _joined(parts)


def _joined(parts: list[tuple[int, str]]) -> str:
    return "  ".join(text for _, text in parts)
