"""What training says about its steps: one row a step, and the newest step of each job.

A job that is interrupted goes on from a checkpoint and reports some steps again. The later attempt's
report replaces the earlier one, never the other way round, in whatever order they arrive.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.telemetry import MetricsLogged
from projections import tables
from projections.view import Key, View


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step, as reported and as stored."""

    workspace: str
    job_id: UUID
    step: int
    sequence: int  # of the telemetry stream
    attempt: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    eta_s: float
    time: datetime


def decode_steps(subject: str, sequence: int, data: bytes) -> list[StepRow]:
    """Read ``telemetry.<w>.metrics.<job>.<attempt>``, behind which may stand who said it.

    Raises:
        ValueError: The subject or the payload does not fit.
    """
    _, workspace, _, job_id, attempt, *_ = subject.split(".")
    job, number = UUID(job_id), int(attempt)
    return [
        StepRow(workspace=workspace, job_id=job, sequence=sequence, attempt=number, **dict(step))
        for step in MetricsLogged.model_validate_json(data).steps
    ]


def project_step(row: StepRow | None, reported: StepRow) -> StepRow:
    return row if row and row.attempt > reported.attempt else reported


def project_progress(row: StepRow | None, reported: StepRow) -> StepRow:
    newer = row is None or (reported.attempt, reported.step) >= (row.attempt, row.step)
    return reported if newer or row is None else row


def _step_key(reported: StepRow) -> Key:
    return reported.workspace, reported.job_id, reported.step


def _job_key(reported: StepRow) -> Key:
    return reported.workspace, reported.job_id


STEPS = View(tables.job_step, StepRow, _step_key, project_step)
PROGRESS = View(tables.job_progress, StepRow, _job_key, project_progress)
