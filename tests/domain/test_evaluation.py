"""The rules of an evaluation."""

from typing import Any

import pytest

from domain.errors import NotFound, NotYours, StaleAttempt
from domain.evaluations.commands import (
    CancelEvaluation,
    ClaimEvaluation,
    EvaluationCommand,
    ExpireEvaluationLease,
    FailEvaluation,
    RecordResult,
    ReleaseEvaluation,
    RunEvaluation,
)
from domain.evaluations.evaluation import (
    MAX_ATTEMPTS,
    EvaluationExists,
    VersionNotEvaluable,
    decider,
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
from tests import samples
from tests.samples import EVALUATION, JOB, MODEL, VERSION
from tests.spec import Spec

AGENT, OTHER = str(samples.AGENT), str(samples.OTHER_AGENT)

evaluation = Spec(decider)


def run(**changes: Any) -> RunEvaluation:
    facts = {
        "model_id": MODEL,
        "job_id": JOB,
        "version_status": "ready",
        "spec": samples.SPEC,
        "labels": ("cancel", "refund"),
        "adapter": samples.ADAPTER,
        "threads": 2,
    }
    return RunEvaluation(evaluation_id=EVALUATION, version_id=VERSION, **facts | changes)


requested = EvaluationRequested(
    evaluation_id=EVALUATION,
    version_id=VERSION,
    model_id=MODEL,
    job_id=JOB,
    spec=samples.SPEC,
    labels=("cancel", "refund"),
    adapter=samples.ADAPTER,
    threads=2,
)
cancel = CancelEvaluation(evaluation_id=EVALUATION)
completed = EvaluationCompleted(
    evaluation_id=EVALUATION,
    version_id=VERSION,
    model_id=MODEL,
    attempt=1,
    summary=samples.SUMMARY,
    outputs=samples.blob(9),
)


def claim(attempt: int = 1, agent: str = AGENT) -> ClaimEvaluation:
    return ClaimEvaluation(
        evaluation_id=EVALUATION, attempt=attempt, agent_id=agent, boot_id="boot-1"
    )


def started(attempt: int = 1, agent: str = AGENT) -> EvaluationStarted:
    return EvaluationStarted(
        evaluation_id=EVALUATION, attempt=attempt, agent_id=agent, boot_id="boot-1"
    )


def result(attempt: int = 1, agent: str = AGENT) -> RecordResult:
    return RecordResult(
        evaluation_id=EVALUATION,
        attempt=attempt,
        agent_id=agent,
        summary=samples.SUMMARY,
        outputs=samples.blob(9),
    )


def fail(attempt: int = 1) -> FailEvaluation:
    return FailEvaluation(
        evaluation_id=EVALUATION, attempt=attempt, agent_id=AGENT, code="oom", message="no memory"
    )


def failed(code: str = "oom", message: str = "no memory") -> EvaluationFailed:
    return EvaluationFailed(evaluation_id=EVALUATION, attempt=1, code=code, message=message)


def release(attempt: int = 1) -> ReleaseEvaluation:
    return ReleaseEvaluation(
        evaluation_id=EVALUATION, attempt=attempt, agent_id=AGENT, reason="silent"
    )


def expire(attempt: int = 1) -> ExpireEvaluationLease:
    return ExpireEvaluationLease(evaluation_id=EVALUATION, attempt=attempt, reason="silent")


def interrupted(attempt: int = 1) -> EvaluationInterrupted:
    return EvaluationInterrupted(evaluation_id=EVALUATION, attempt=attempt, reason="silent")


def cancelled(agent: str) -> EvaluationCancelled:
    return EvaluationCancelled(evaluation_id=EVALUATION, attempt=1, agent_id=agent)


def test_a_ready_version_is_evaluated() -> None:
    evaluation.when(run()).then(requested)
    evaluation.given(requested).when(run()).then_rejected(EvaluationExists)


@pytest.mark.parametrize(
    "facts",
    [
        {"version_status": "absent"},
        {"version_status": "uploading"},
        {"version_status": "error"},
        {"spec": None},
        {"job_id": None},
        {"model_id": None},
    ],
)
def test_anything_but_a_ready_version_is_refused(facts: dict[str, Any]) -> None:
    evaluation.when(run(**facts)).then_rejected(VersionNotEvaluable)


def test_the_live_attempt_is_claimed_once() -> None:
    evaluation.given(requested).when(claim()).then(started())
    evaluation.given(requested, started()).when(claim()).then_rejected(StaleAttempt)
    evaluation.given(requested).when(claim(2)).then_rejected(StaleAttempt)
    evaluation.given(requested, started(), interrupted()).when(claim(1)).then_rejected(StaleAttempt)


def test_the_holders_result_ends_it() -> None:
    evaluation.given(requested, started()).when(result()).then(completed)
    evaluation.given(requested, started()).when(fail()).then(failed())


@pytest.mark.parametrize("end", [completed, failed(), cancelled(AGENT)])
def test_nothing_is_recorded_after_the_end(end: EvaluationEvent) -> None:
    ended = evaluation.given(requested, started(), end)

    for report in (result(), fail(), release(), claim(2)):
        ended.when(report).then_rejected(StaleAttempt)
    ended.when(cancel).then_nothing()
    ended.when(expire()).then_nothing()


def test_another_agents_report_is_refused() -> None:
    evaluation.given(requested, started()).when(result(agent=OTHER)).then_rejected(NotYours)


def test_a_report_from_an_older_attempt_is_refused() -> None:
    history = (requested, started(), interrupted(), started(2))

    for report in (result(1), fail(1), release(1)):
        evaluation.given(*history).when(report).then_rejected(StaleAttempt)


def test_cancelling_ends_it_and_names_the_agent_to_stop() -> None:
    evaluation.given(requested).when(cancel).then(cancelled(""))
    evaluation.given(requested, started()).when(cancel).then(cancelled(AGENT))


def test_a_lost_attempt_is_followed_by_the_next() -> None:
    evaluation.given(requested).when(expire()).then(interrupted())
    evaluation.given(requested, started()).when(expire()).then(interrupted())
    evaluation.given(requested, started()).when(release()).then(interrupted())
    evaluation.given(requested, started(), interrupted()).when(expire()).then_nothing()


def test_attempts_come_to_an_end() -> None:
    history: list[EvaluationEvent] = [requested]
    for attempt in range(1, MAX_ATTEMPTS):
        history += [started(attempt), interrupted(attempt)]

    (end,) = evaluation.given(*history).when(expire(MAX_ATTEMPTS)).decide()

    assert isinstance(end, EvaluationFailed)
    assert end.code == "attempts_exhausted"


@pytest.mark.parametrize("command", [cancel, claim(), result(), expire()])
def test_what_was_never_requested_is_not_found(command: EvaluationCommand) -> None:
    evaluation.when(command).then_rejected(NotFound)
