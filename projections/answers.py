"""What queries answer where one table's row is not enough."""

from dataclasses import dataclass
from datetime import datetime
from math import ceil
from uuid import UUID

from domain.queues.state import Assigned, Ledger, Queue
from projections.access_keys import AccessKeyRow
from projections.datasets import DatasetRow
from projections.evaluations import EvaluationRow
from projections.jobs import JobRow
from projections.metrics import StepRow
from projections.model_versions import VersionRow
from projections.queue_ledger import QueueLedgerRow
from projections.work_items import WorkItemRow


@dataclass(frozen=True, slots=True)
class Progress:
    epoch: int  # the one under way, from 1; 0 before the first step
    epochs: int
    step: int  # done
    steps: int | None  # known once an attempt has started
    percent: float | None
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the log tells it, and what telemetry last said about it."""

    row: JobRow
    progress: Progress
    loss: float | None
    tokens_per_s: float | None  # while it runs


@dataclass(frozen=True, slots=True)
class Version:
    """``evaluation`` is the last that was completed, or else the last that was asked for."""

    row: VersionRow
    evaluation: EvaluationRow | None


@dataclass(frozen=True, slots=True)
class Activation:
    """What was put into service, and what came after it, if anything has."""

    sequence: int
    number: int
    version_id: UUID
    activated_at: datetime
    activated_by: str
    until_sequence: int | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    row: EvaluationRow
    version_number: int | None


@dataclass(frozen=True, slots=True)
class QueueStanding:
    """What is assigned and what waits, in order of arrival, and what decisions depend on beside it."""

    items: list[WorkItemRow]
    ledger: QueueLedgerRow | None  # None before anything has happened

    @property
    def sequence(self) -> int:
        """Of the queue's last event."""
        return self.ledger.sequence if self.ledger else 0

    def queue(self) -> Queue:
        """As the rules know it."""
        works = [(row, row.work()) for row in self.items]
        return Queue(
            waiting={row.work_id: work for row, work in works if row.status == "waiting"},
            assigned={
                row.work_id: Assigned(work, row.agent_id or "")
                for row, work in works
                if row.status == "assigned"
            },
            arrivals=max((work.place for _, work in works), default=0),
            ledger=self.ledger.ledger() if self.ledger else Ledger(),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a projection has come. One with an error has stopped and needs a person."""

    name: str
    sequence: int
    error: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Belongings:
    """All that is of a person; jobs that learned from it or were tested on it, and their evaluations."""

    keys: list[AccessKeyRow]
    datasets: list[DatasetRow]
    jobs: list[JobRow]
    evaluations: list[EvaluationRow]


def with_progress(row: JobRow, newest: StepRow | None) -> Job:
    """Join what two runners write; either may be ahead of the other, or lack what the other has."""
    live = newest if newest and newest.attempt >= row.attempt and _runs(row) else None
    step = max(row.step, live.step) if live else row.step
    epoch = max(row.epoch, ceil(live.epoch)) if live else row.epoch
    last_loss = newest.loss if newest else None
    return Job(
        row=row,
        progress=Progress(
            epoch=min(epoch, row.epochs),
            epochs=row.epochs,
            step=step,
            steps=row.steps,
            percent=round(min(100.0, 100 * step / row.steps), 1) if row.steps else None,
            eta_s=live.eta_s if live else None,
        ),
        loss=row.final_loss if row.final_loss is not None else last_loss,
        tokens_per_s=live.tokens_per_s if live else None,
    )


def _runs(row: JobRow) -> bool:
    return row.status in {"running", "cancelling"}
