"""The rules of an evaluation: a ready version, one live attempt, one end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never
from uuid import UUID

from domain.errors import NotFound, NotYours, Rejected, StaleAttempt
from domain.evaluations.commands import (
    CancelEvaluation,
    ClaimEvaluation,
    EvaluationCommand,
    EvaluationReport,
    ExpireEvaluationLease,
    FailEvaluation,
    RecordResult,
    ReleaseEvaluation,
    RunEvaluation,
)
from domain.evaluations.events import (
    EvaluationCancelled,
    EvaluationCompleted,
    EvaluationEvent,
    EvaluationFailed,
    EvaluationInterrupted,
    EvaluationRequested,
    EvaluationStarted,
)
from domain.messages import Decider

MAX_ATTEMPTS = 10  # an evaluation takes minutes; a tenth death is its own fault


class EvaluationExists(Rejected):
    """An evaluation with this id was requested before, by another command."""

    code = "evaluation_exists"


class VersionNotEvaluable(Rejected):
    """Only a ready version can be evaluated."""

    code = "version_not_ready"


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    requested: EvaluationRequested
    attempt: int


@dataclass(frozen=True, slots=True)
class Running:
    requested: EvaluationRequested
    attempt: int
    agent_id: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    requested: EvaluationRequested
    attempt: int
    status: Literal["completed", "failed", "cancelled"]


Evaluation = Absent | Waiting | Running | Ended


def decide(command: EvaluationCommand, evaluation: Evaluation) -> Sequence[EvaluationEvent]:
    if isinstance(command, RunEvaluation):
        if not isinstance(evaluation, Absent):
            raise EvaluationExists(f"evaluation {command.evaluation_id} was requested before")
        return [_requested(command)]
    if isinstance(evaluation, Absent):
        raise NotFound(f"there is no evaluation {command.evaluation_id}")
    match command:
        case CancelEvaluation():
            return [] if isinstance(evaluation, Ended) else [_cancelled(command, evaluation)]
        case ExpireEvaluationLease():
            over = isinstance(evaluation, Ended) or command.attempt != evaluation.attempt
            return [] if over else [_interrupted(command)]
        case ClaimEvaluation():
            if isinstance(evaluation, Waiting) and command.attempt == evaluation.attempt:
                return [EvaluationStarted(**command.model_dump(exclude={"type"}))]
            raise StaleAttempt(_stale(command, evaluation))
        case _:
            return _report(command, _live(command, evaluation))


def evolve(evaluation: Evaluation, event: EvaluationEvent) -> Evaluation:
    match event, evaluation:
        case EvaluationRequested(), Absent():
            return Waiting(event, attempt=1)
        case EvaluationStarted(), Waiting():
            return Running(evaluation.requested, event.attempt, event.agent_id, event.boot_id)
        case EvaluationInterrupted(), (Waiting() | Running()):
            return Waiting(evaluation.requested, event.attempt + 1)
        case EvaluationCompleted(), (Waiting() | Running()):
            return Ended(evaluation.requested, event.attempt, "completed")
        case EvaluationFailed(), (Waiting() | Running()):
            return Ended(evaluation.requested, event.attempt, "failed")
        case EvaluationCancelled(), (Waiting() | Running()):
            return Ended(evaluation.requested, event.attempt, "cancelled")
        case _:
            return evaluation


def _live(report: EvaluationReport, evaluation: Waiting | Running | Ended) -> Running:
    if not isinstance(evaluation, Running) or report.attempt != evaluation.attempt:
        raise StaleAttempt(_stale(report, evaluation))
    if report.agent_id != evaluation.agent_id:
        raise NotYours(f"attempt {report.attempt} is held by another agent")
    return evaluation


def _report(report: EvaluationReport, evaluation: Running) -> Sequence[EvaluationEvent]:
    match report:
        case ClaimEvaluation():
            raise StaleAttempt(_stale(report, evaluation))
        case RecordResult():
            return [_completed(report, evaluation.requested)]
        case FailEvaluation():
            return [EvaluationFailed(**report.model_dump(exclude={"type", "agent_id"}))]
        case ReleaseEvaluation():
            return [_interrupted(report)]
        case _:
            assert_never(report)


def _requested(command: RunEvaluation) -> EvaluationRequested:
    if command.version_status != "ready" or command.spec is None:
        raise VersionNotEvaluable(
            f"model version {command.version_id} is {command.version_status}, not ready"
        )
    return EvaluationRequested(
        evaluation_id=command.evaluation_id,
        version_id=command.version_id,
        model_id=_found(command.model_id),
        job_id=_found(command.job_id),
        spec=command.spec,
        labels=command.labels,
        adapter=command.adapter,
        threads=command.threads,
        base_model=command.base_model,
    )


def _found(looked_up: UUID | None) -> UUID:
    if looked_up is None:
        raise VersionNotEvaluable("the version was not looked up")
    return looked_up


def _completed(report: RecordResult, requested: EvaluationRequested) -> EvaluationCompleted:
    """The result; rows that are one person's are not quoted."""
    summary = report.summary
    if requested.spec.people:
        summary = summary.model_copy(update={"examples": ()})
    return EvaluationCompleted(
        evaluation_id=report.evaluation_id,
        version_id=requested.version_id,
        model_id=requested.model_id,
        attempt=report.attempt,
        summary=summary,
        outputs=report.outputs,
    )


def _interrupted(command: ReleaseEvaluation | ExpireEvaluationLease) -> EvaluationEvent:
    if command.attempt >= MAX_ATTEMPTS:
        message = f"{MAX_ATTEMPTS} attempts ended without a result; the last one: {command.reason}"
        return EvaluationFailed(
            evaluation_id=command.evaluation_id,
            attempt=command.attempt,
            code="attempts_exhausted",
            message=message,
        )
    return EvaluationInterrupted(
        evaluation_id=command.evaluation_id, attempt=command.attempt, reason=command.reason
    )


def _cancelled(command: CancelEvaluation, evaluation: Waiting | Running) -> EvaluationCancelled:
    agent_id = evaluation.agent_id if isinstance(evaluation, Running) else ""
    return EvaluationCancelled(
        evaluation_id=command.evaluation_id, attempt=evaluation.attempt, agent_id=agent_id
    )


def _stale(report: EvaluationReport, evaluation: Waiting | Running | Ended) -> str:
    if isinstance(evaluation, Ended):
        now = f"it {evaluation.status}"
    else:
        now = f"attempt {evaluation.attempt} is the live one"
    return f"attempt {report.attempt} of evaluation {report.evaluation_id} is over: {now}"


decider: Decider[EvaluationCommand, Evaluation, EvaluationEvent] = Decider(Absent(), decide, evolve)
