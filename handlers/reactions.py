"""What follows from an event: the commands and the work that it leads to. Stateless.

Every id is derived from the event's, so an event that comes twice leads to the same things once.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from domain.access.events import KeyIssued
from domain.agents.events import AgentRevoked
from domain.datasets.events import DatasetRegistered
from domain.evaluations import evaluation as evaluations
from domain.evaluations.commands import RunEvaluation
from domain.evaluations.events import (
    EvaluationCancelled,
    EvaluationCompleted,
    EvaluationFailed,
    EvaluationInterrupted,
    EvaluationRequested,
)
from domain.jobs import job as jobs
from domain.jobs.events import (
    CancellationRequested,
    JobCancelled,
    JobFailed,
    JobInterrupted,
    JobReprioritised,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
)
from domain.messages import Command, Event, History, Recorded, StreamId
from domain.model_versions.commands import RecordFailure, RecordReady, RegisterVersion
from domain.model_versions.events import ModelReady, VersionRegistered
from domain.models.commands import NumberVersion
from domain.models.events import VersionNumbered
from domain.people.events import PersonForgotten
from domain.placement import Placement
from domain.queues.commands import Reprioritise, WithdrawSlots
from domain.queues.events import WorkAssigned
from domain.subjects import REACTION_SOURCE, derived_id
from domain.work import Assignment, EvaluateAssignment, TrainAssignment
from handlers.follow_ups import (
    FollowUp,
    Hand,
    World,
    ask,
    create_model,
    enqueue,
    fold,
    last,
    model_id,
    placement_of,
    queue_stream,
    spec_of,
    stop,
    withdraw,
)
from handlers.forgetting import forget, too_late
from handlers.validation import validate

Reaction = Callable[[Any, World], Awaitable[Sequence[FollowUp]]]


async def follow_ups(recorded: Recorded[Event], world: World) -> Sequence[FollowUp]:
    """What follows, in the order in which it is to be sent.

    Raises:
        StoreUnavailable, OSError: What had to be looked up is away; ask again later.
    """
    reaction = REACTIONS.get(type(recorded.event))
    return await reaction(recorded, world) if reaction else ()


async def _check_dataset(recorded: Recorded[DatasetRegistered], world: World) -> Sequence[FollowUp]:
    if gone := await too_late(recorded, world):
        return [gone]
    verdict = await validate(recorded.event, world.blobs)
    return [ask(recorded, "validate", recorded.stream, verdict)]


async def _check_key(recorded: Recorded[KeyIssued], world: World) -> Sequence[FollowUp]:
    gone = await too_late(recorded, world)
    return [gone] if gone else []


async def _queue_job(recorded: Recorded[JobSubmitted], world: World) -> Sequence[FollowUp]:
    if gone := await too_late(recorded, world):
        return [gone]
    spec = recorded.event.spec
    return [
        create_model(recorded, spec),
        enqueue(
            recorded, "train", recorded.event.job_id, spec, 1, placement_of(History((recorded,)))
        ),
    ]


async def _queue_job_again(recorded: Recorded[JobInterrupted], world: World) -> Sequence[FollowUp]:
    job_id, attempt = recorded.event.job_id, recorded.event.attempt + 1
    spec, history = await spec_of(job_id, recorded.stream.workspace, world.store)
    return [enqueue(recorded, "train", job_id, spec, attempt, placement_of(history))]


async def _move_job(recorded: Recorded[JobReprioritised], _world: World) -> Sequence[FollowUp]:
    moved = Reprioritise(work_id=recorded.event.job_id, priority=recorded.event.priority)
    return [ask(recorded, "reprioritise", queue_stream(recorded.stream.workspace), moved)]


async def _stop_job(recorded: Recorded[CancellationRequested], _world: World) -> Sequence[FollowUp]:
    event = recorded.event
    return [stop(recorded, event.agent_id, event.job_id, event.attempt)]


async def _withdraw_job(
    recorded: Recorded[JobFailed | JobCancelled], _world: World
) -> Sequence[FollowUp]:
    return [withdraw(recorded, recorded.event.job_id)]


async def _number_version(recorded: Recorded[JobSucceeded], world: World) -> Sequence[FollowUp]:
    job_id, workspace = recorded.event.job_id, recorded.stream.workspace
    spec, _ = await spec_of(job_id, workspace, world.store)
    number = NumberVersion(
        model_id=model_id(workspace, spec.model_name),
        version_id=derived_id(workspace, "version", str(job_id)),
        job_id=job_id,
    )
    return [
        withdraw(recorded, job_id),
        # Asked for at the submission too; a version without its model would be lost.
        create_model(recorded, spec),
        ask(recorded, "number", StreamId(workspace, "model", number.model_id), number),
    ]


async def _register_version(
    recorded: Recorded[VersionNumbered], world: World
) -> Sequence[FollowUp]:
    numbered, workspace = recorded.event, recorded.stream.workspace
    spec, history = await spec_of(numbered.job_id, workspace, world.store)
    started = last(history, JobStarted).event
    done = last(history, JobSucceeded)
    register = RegisterVersion(
        version_id=numbered.version_id,
        model_id=numbered.model_id,
        model_name=spec.model_name,
        number=numbered.number,
        label=done.recorded_at.strftime("%Y%m%d-%H%M%S"),
        job_id=numbered.job_id,
        spec=spec,
        environment=started.environment,
        base_model=started.base_model,
        labels=done.event.labels,
        files=done.event.adapter,
        train_rows=done.event.train_rows,
        trained_tokens=done.event.trained_tokens,
        steps=done.event.steps,
        seconds=done.event.seconds,
        final_loss=done.event.final_loss,
        validation_accuracy=done.event.validation_accuracy,
    )
    stream = StreamId(workspace, "model_version", numbered.version_id)
    return [ask(recorded, "register", stream, register)]


async def _check_files(recorded: Recorded[VersionRegistered], world: World) -> Sequence[FollowUp]:
    version = recorded.event
    base_model = version.base_model.files if version.base_model else ()
    wrong = [
        file.path
        for file in (*version.files, *base_model)
        if await world.blobs.size(file.blob.sha256) != file.blob.size
    ]
    verdict: Command
    if wrong or not version.files:
        message = f"files are missing or incomplete: {', '.join(wrong[:10]) or 'all'}"
        verdict = RecordFailure(version_id=version.version_id, message=message)
    else:
        verdict = RecordReady(version_id=version.version_id)
    return [ask(recorded, "check", recorded.stream, verdict)]


async def _evaluate(recorded: Recorded[ModelReady], _world: World) -> Sequence[FollowUp]:
    workspace, version_id = recorded.stream.workspace, recorded.event.version_id
    evaluation_id = derived_id(workspace, "evaluation", str(version_id))
    run = RunEvaluation(evaluation_id=evaluation_id, version_id=version_id)
    return [ask(recorded, "evaluate", StreamId(workspace, "evaluation", evaluation_id), run)]


async def _queue_evaluation(
    recorded: Recorded[EvaluationRequested], world: World
) -> Sequence[FollowUp]:
    event = recorded.event
    placement = await _placement(recorded, world)
    return [enqueue(recorded, "evaluate", event.evaluation_id, event.spec, 1, placement)]


async def _queue_evaluation_again(
    recorded: Recorded[EvaluationInterrupted], world: World
) -> Sequence[FollowUp]:
    event = recorded.event
    history = await world.store.read(recorded.stream)
    requested = last(history, EvaluationRequested)
    spec, placement = requested.event.spec, await _placement(requested, world)
    return [enqueue(recorded, "evaluate", event.evaluation_id, spec, event.attempt + 1, placement)]


async def _placement(requested: Recorded[EvaluationRequested], world: World) -> Placement:
    """Where its job may run; it is on the account of whoever asked for it, or else of the job's."""
    stream = StreamId(requested.stream.workspace, "job", requested.event.job_id)
    history = await world.store.read(stream)
    asked_by_hand = requested.source != REACTION_SOURCE
    placement = placement_of(history) if history.events else Placement(user=requested.actor)
    return placement.model_copy(update={"user": requested.actor}) if asked_by_hand else placement


async def _dismiss(recorded: Recorded[AgentRevoked], _world: World) -> Sequence[FollowUp]:
    gone = WithdrawSlots(agent_id=str(recorded.event.agent_id), reason="revoked", for_good=True)
    return [ask(recorded, "dismiss", queue_stream(recorded.stream.workspace), gone)]


async def _withdraw_evaluation(
    recorded: Recorded[EvaluationCompleted | EvaluationFailed | EvaluationCancelled],
    _world: World,
) -> Sequence[FollowUp]:
    event = recorded.event
    gone = withdraw(recorded, event.evaluation_id)
    if isinstance(event, EvaluationCancelled) and event.agent_id:
        return [gone, stop(recorded, event.agent_id, event.evaluation_id, event.attempt)]
    return [gone]


async def _hand_over(recorded: Recorded[WorkAssigned], world: World) -> Sequence[FollowUp]:
    event = recorded.event
    work: Assignment | None
    if event.kind == "train":
        work = await _training(recorded, world)
    else:
        work = await _evaluation(recorded, world)
    return [Hand(recorded.id, event.agent_id, work)] if work else []


async def _training(recorded: Recorded[WorkAssigned], world: World) -> TrainAssignment | None:
    event, workspace = recorded.event, recorded.stream.workspace
    history = await world.store.read(StreamId(workspace, "job", event.work_id))
    job = fold(history, jobs.decider)
    if not isinstance(job, jobs.Waiting) or job.attempt != event.attempt:
        return None  # ended or claimed meanwhile; the scheduler sees to what is left
    return TrainAssignment(
        workspace=workspace,
        job_id=event.work_id,
        attempt=event.attempt,
        spec=job.progress.spec,
        resume_from=job.progress.checkpoint,
        threads=job.progress.threads,
        base_model=job.progress.base_model,
        correlation_id=history.events[0].correlation_id,
        causation_id=recorded.id,
        traceparent=history.events[0].traceparent,
    )


async def _evaluation(recorded: Recorded[WorkAssigned], world: World) -> EvaluateAssignment | None:
    event, workspace = recorded.event, recorded.stream.workspace
    history = await world.store.read(StreamId(workspace, "evaluation", event.work_id))
    evaluation = fold(history, evaluations.decider)
    if not isinstance(evaluation, evaluations.Waiting) or evaluation.attempt != event.attempt:
        return None
    requested = evaluation.requested
    return EvaluateAssignment(
        workspace=workspace,
        evaluation_id=event.work_id,
        attempt=event.attempt,
        spec=requested.spec,
        labels=requested.labels,
        adapter=requested.adapter,
        threads=requested.threads,
        base_model=requested.base_model,
        correlation_id=history.events[0].correlation_id,
        causation_id=recorded.id,
        traceparent=history.events[0].traceparent,
    )


REACTIONS: Final[dict[type[Event], Reaction]] = {
    KeyIssued: _check_key,
    PersonForgotten: forget,
    DatasetRegistered: _check_dataset,
    JobSubmitted: _queue_job,
    JobInterrupted: _queue_job_again,
    JobReprioritised: _move_job,
    CancellationRequested: _stop_job,
    JobSucceeded: _number_version,
    JobFailed: _withdraw_job,
    JobCancelled: _withdraw_job,
    VersionNumbered: _register_version,
    VersionRegistered: _check_files,
    ModelReady: _evaluate,
    EvaluationRequested: _queue_evaluation,
    EvaluationInterrupted: _queue_evaluation_again,
    EvaluationCompleted: _withdraw_evaluation,
    EvaluationFailed: _withdraw_evaluation,
    EvaluationCancelled: _withdraw_evaluation,
    WorkAssigned: _hand_over,
    AgentRevoked: _dismiss,
}
