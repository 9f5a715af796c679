"""The rules of a job: one live attempt, reports from older ones refused, exactly one end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from domain.base_models import BaseModelRecord
from domain.errors import NotFound, NotYours, Rejected, StaleAttempt
from domain.jobs.commands import (
    CancelJob,
    ChangePriority,
    ClaimJob,
    CompleteJob,
    DatasetFacts,
    ExpireLease,
    FailJob,
    JobCommand,
    JobReport,
    RecordCheckpoint,
    RecordEpoch,
    RecordMicroBatch,
    RecordStart,
    ReleaseJob,
    SubmitJob,
)
from domain.jobs.events import (
    CancellationRequested,
    CheckpointSaved,
    EpochCompleted,
    JobCancelled,
    JobClaimed,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobReprioritised,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    MicroBatchHalved,
)
from domain.jobs.language_fit import language_misfit, learns_from
from domain.jobs.spec import (
    BASE_MODELS,
    METHODS,
    DatasetRef,
    JobSpec,
    Method,
    hyperparameters,
)
from domain.jobs.table_fit import table_misfit, unknown_classes
from domain.messages import Decider
from domain.placement import DEFAULT_PRIORITY
from domain.work import TrainingCheckpoint

MAX_ATTEMPTS = 25  # machines die a few times in a long run; more than this is the job's own fault


class JobExists(Rejected):
    """A job with this id was submitted before, by another command."""

    code = "job_exists"


class DatasetUnusable(Rejected):
    """The dataset is not there, not judged yet, refused or deleted."""

    code = "dataset_unusable"


class LabelsDiffer(Rejected):
    """The test file has labels that the training file never shows."""

    code = "labels_differ"


class MethodUnfit(Rejected):
    """The method cannot learn from rows of this kind, or cannot train that base model."""

    code = "method_unfit"


class QueueQuotaReached(Rejected):
    """The submitter has as many trainings waiting as the policy of the queue lets one have."""

    code = "queue_quota_reached"


class JobHasEnded(Rejected):
    """What is asked for makes a difference only while a job waits or runs."""

    code = "job_has_ended"


class NotStarted(Rejected):
    """The attempt reports a result before it has said what it runs on, which the version must state."""

    code = "not_started"


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody submitted it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What an attempt inherits from those before it."""

    spec: JobSpec
    checkpoint: TrainingCheckpoint | None = None
    epoch: int = 0
    threads: int | None = None  # of the first attempt that started, like the base model
    base_model: BaseModelRecord | None = None
    priority: int = DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True)
class Waiting:
    progress: Progress
    attempt: int  # the one that may claim


@dataclass(frozen=True, slots=True)
class Running:
    progress: Progress
    attempt: int
    agent_id: str
    boot_id: str
    started: bool = False
    cancelling: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    progress: Progress
    attempt: int
    status: Literal["succeeded", "failed", "cancelled"]


Job = Absent | Waiting | Running | Ended


def decide(command: JobCommand, job: Job) -> Sequence[JobEvent]:
    if isinstance(command, SubmitJob):
        if not isinstance(job, Absent):
            raise JobExists(f"job {command.job_id} was submitted before")
        _check_quota(command)
        return [_submitted(command)]
    if isinstance(job, Absent):
        raise NotFound(f"there is no job {command.job_id}")
    match command:
        case CancelJob():
            return _cancel(command, job)
        case ChangePriority():
            return _change_priority(command, job)
        case ExpireLease():
            if isinstance(job, Ended) or command.attempt != job.attempt:
                return []  # that attempt is over already
            return [_interrupted(command, job)]
        case ClaimJob():
            if isinstance(job, Waiting) and command.attempt == job.attempt:
                return [JobClaimed.model_validate(_facts(command))]
            raise StaleAttempt(_stale(command, job))
        case _:
            return _report(command, _live(command, job))


def _cancel(command: CancelJob, job: Waiting | Running | Ended) -> Sequence[JobEvent]:
    match job:
        case Waiting():
            return [JobCancelled(job_id=command.job_id, attempt=job.attempt - 1)]
        case Running(cancelling=False):
            return [
                CancellationRequested(
                    job_id=command.job_id, attempt=job.attempt, agent_id=job.agent_id
                )
            ]
        case Running() | Ended():
            return []  # asked before, or over
        case _:
            assert_never(job)


def evolve(job: Job, event: JobEvent) -> Job:  # noqa: C901 - one row a fact
    match event, job:
        case JobSubmitted(), Absent():
            return Waiting(Progress(event.spec, priority=event.priority), attempt=1)
        case JobReprioritised(), (Waiting() | Running()):
            return replace(job, progress=replace(job.progress, priority=event.priority))
        case JobClaimed(), Waiting():
            return Running(job.progress, event.attempt, event.agent_id, event.boot_id)
        case JobStarted(), Running():
            return replace(job, progress=_pinned(job.progress, event), started=True)
        case EpochCompleted(), Running():
            return replace(job, progress=replace(job.progress, epoch=event.epoch))
        case CheckpointSaved(), Running():
            return replace(job, progress=replace(job.progress, checkpoint=event.checkpoint))
        case CancellationRequested(), Running():
            return replace(job, cancelling=True)
        case JobInterrupted(), (Waiting() | Running()):
            return Waiting(job.progress, event.attempt + 1)
        case JobSucceeded(), Running():
            return Ended(job.progress, event.attempt, "succeeded")
        case JobFailed(), (Waiting() | Running()):
            return Ended(job.progress, event.attempt, "failed")
        case JobCancelled(), (Waiting() | Running()):
            return Ended(job.progress, event.attempt, "cancelled")
        case _:
            return job


def _pinned(progress: Progress, started: JobStarted) -> Progress:
    """What the first start was said to run on is what every later attempt runs on."""
    return replace(
        progress,
        threads=progress.threads or started.environment.threads,
        base_model=progress.base_model or started.base_model,
    )


def _live(report: JobReport, job: Waiting | Running | Ended) -> Running:
    if not isinstance(job, Running) or report.attempt != job.attempt:
        raise StaleAttempt(_stale(report, job))
    if report.agent_id != job.agent_id:
        raise NotYours(f"attempt {job.attempt} of job {report.job_id} is held by another agent")
    return job


def _report(report: JobReport, job: Running) -> Sequence[JobEvent]:
    match report:
        case ClaimJob():
            raise StaleAttempt(_stale(report, job))
        case RecordStart():
            return [] if job.started else [_started(report, job.progress.spec)]
        case RecordEpoch():
            known = report.epoch <= job.progress.epoch
            return [] if known else [EpochCompleted.model_validate(_facts(report))]
        case RecordCheckpoint():
            saved = job.progress.checkpoint
            known = saved is not None and report.checkpoint.step <= saved.step
            return [] if known else [CheckpointSaved.model_validate(_facts(report))]
        case RecordMicroBatch():
            return [MicroBatchHalved.model_validate(_facts(report))]
        case CompleteJob():
            if not job.started:
                raise NotStarted(f"attempt {report.attempt} of job {report.job_id} has not started")
            return [JobSucceeded.model_validate(_facts(report))]
        case FailJob():
            return [JobFailed.model_validate(_facts(report))]
        case ReleaseJob():
            return [_interrupted(report, job)]
        case _:
            assert_never(report)


def _started(report: RecordStart, spec: JobSpec) -> JobStarted:
    """What the attempt runs on; a person's row is not shown."""
    facts, supervision = _facts(report), report.supervision
    if supervision is not None and spec.people:
        facts["supervision"] = supervision.model_copy(update={"example": ()})
    return JobStarted.model_validate(facts)


def _interrupted(command: ReleaseJob | ExpireLease, job: Waiting | Running) -> JobEvent:
    if isinstance(job, Running) and job.cancelling:
        return JobCancelled(job_id=command.job_id, attempt=command.attempt)
    if command.attempt >= MAX_ATTEMPTS:
        message = f"{MAX_ATTEMPTS} attempts ended without a result; the last one: {command.reason}"
        return JobFailed(
            job_id=command.job_id,
            attempt=command.attempt,
            code="attempts_exhausted",
            message=message,
        )
    return JobInterrupted(job_id=command.job_id, attempt=command.attempt, reason=command.reason)


def _facts(report: JobReport) -> dict[str, object]:
    """The report's fields but its type; an event takes those it knows."""
    return {name: getattr(report, name) for name in type(report).model_fields if name != "type"}


def _stale(report: JobReport, job: Waiting | Running | Ended) -> str:
    now = f"it {job.status}" if isinstance(job, Ended) else f"attempt {job.attempt} is the live one"
    return f"attempt {report.attempt} of job {report.job_id} is over: {now}"


def _submitted(command: SubmitJob) -> JobSubmitted:
    return JobSubmitted(
        job_id=command.job_id,
        spec=_spec(command),
        submitted_by=command.submitted_by,
        priority=command.priority,
        pool=command.pool,
        needs=command.needs,
    )


def _check_quota(command: SubmitJob) -> None:
    queue = command.queue
    if queue is not None and queue.limit is not None and queue.waiting >= queue.limit:
        raise QueueQuotaReached(
            f"{queue.waiting} of your jobs wait and {queue.limit} may: submit this one again when "
            "another has started or was cancelled"
        )


def _change_priority(command: ChangePriority, job: Waiting | Running | Ended) -> Sequence[JobEvent]:
    if isinstance(job, Ended):
        raise JobHasEnded(f"job {command.job_id} {job.status}; it waits for nothing")
    if job.progress.priority == command.priority:
        return []
    return [JobReprioritised(job_id=command.job_id, priority=command.priority)]


def _spec(command: SubmitJob) -> JobSpec:
    train = _usable(command.train, "dataset")
    test = _usable(command.test, "test dataset") if command.test_dataset_id else None
    method = command.method or METHODS[train.kind]
    base_model = command.base_model or BASE_MODELS[method]
    chosen = hyperparameters(method, base_model, command.hyperparameters)
    _check_fit(method, base_model, train, test)
    choices = command.hyperparameters
    misfit = table_misfit(method, base_model, choices, train, test)
    if misfit := misfit or language_misfit(method, choices):
        raise MethodUnfit(misfit)
    return JobSpec(
        method=method,
        base_model=base_model,
        model_name=command.model_name,
        train=train,
        test=test and test.model_copy(update={"table": None, "cleaned": None}),  # read as the other
        split=command.split,
        hyperparameters=chosen,
        seed=command.seed,
    )


def _check_fit(method: Method, base_model: str, train: DatasetRef, test: DatasetRef | None) -> None:
    for what, ref in (("dataset", train), ("test dataset", test)):
        if ref is not None and not learns_from(method, ref.kind):
            raise MethodUnfit(
                f"{method} cannot learn from the {what}: its rows are of the kind {ref.kind}, "
                f"which is for {METHODS[ref.kind]}"
            )
    own = BASE_MODELS[method]
    if method != "tabular" and base_model in BASE_MODELS.values() and base_model != own:
        raise MethodUnfit(f"{method} cannot train {base_model}; its own base model is {own}")
    if test and (unknown := unknown_classes(train, test)):
        raise LabelsDiffer(
            f"the test dataset has labels that the training dataset never shows: {unknown[:5]}"
        )


def _usable(facts: DatasetFacts | None, what: str) -> DatasetRef:
    if facts is not None and facts.status == "valid" and facts.ref is not None:
        return facts.ref
    reasons = {
        "absent": "does not exist",
        "pending": "is still being validated: try again in a moment",
        "rejected": f"was rejected: {facts.message if facts else ''}",
        "deleted": "was deleted",
    }
    raise DatasetUnusable(f"the {what} {reasons[facts.status if facts else 'absent']}")


decider: Decider[JobCommand, Job, JobEvent] = Decider(Absent(), decide, evolve)
