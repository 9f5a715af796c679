"""What a reaction may lead to: a command, or a message for an agent; ids come from the event's."""

from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from domain.jobs.events import JobReprioritised, JobSubmitted
from domain.jobs.spec import JobSpec
from domain.messages import (
    Command,
    Decider,
    Envelope,
    Event,
    History,
    Recorded,
    StreamId,
    follow_up_id,
)
from domain.models.commands import CreateModel
from domain.placement import Placement
from domain.queues.commands import Enqueue, Withdraw
from domain.queues.events import WorkKind
from domain.queues.queue import queue_id
from domain.subjects import REACTION_SOURCE, derived_id
from domain.work import Assignment, StopWork
from handlers.ports import Blobs, EventStore, PersonKeys, Scan

ENQUEUE: Final = "enqueue"  # the reaction that puts work into the queue

E = TypeVar("E", bound=Event)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Hand:
    """A message for an agent; the same id reaches it once."""

    id: UUID
    agent_id: str
    message: Assignment | StopWork


FollowUp = Envelope[Command] | Hand


@dataclass(frozen=True, slots=True)
class World:
    """What a reaction may look at."""

    store: EventStore
    blobs: Blobs
    person_keys: PersonKeys
    scan: Scan


def ask(cause: Recorded[Event], reaction: str, stream: StreamId, command: Command) -> FollowUp:
    return Envelope(
        id=follow_up_id(cause.id, reaction),
        stream=stream,
        source=REACTION_SOURCE,
        actor=REACTION_SOURCE,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        sent_at=cause.recorded_at,  # so that a repeat has the same bytes
        command=command,
        traceparent=cause.traceparent,
    )


def create_model(cause: Recorded[Event], spec: JobSpec) -> FollowUp:
    workspace = cause.stream.workspace
    created = CreateModel(
        model_id=model_id(workspace, spec.model_name),
        name=spec.model_name,
        base_model=spec.base_model,
    )
    return ask(cause, "create_model", StreamId(workspace, "model", created.model_id), created)


def enqueue(
    cause: Recorded[Event],
    kind: WorkKind,
    work_id: UUID,
    spec: JobSpec,
    attempt: int,
    placement: Placement,
) -> FollowUp:
    work = Enqueue(
        work_id=work_id,
        kind=kind,
        method=spec.method,
        attempt=attempt,
        user=placement.user,
        priority=placement.priority,
        pool=placement.pool,
        needs=placement.needs,
    )
    return ask(cause, ENQUEUE, queue_stream(cause.stream.workspace), work)


def placement_of(history: History[Event]) -> Placement:
    """Who wants a job, how urgently by now, and where it may run."""
    submitted = last(history, JobSubmitted).event
    priority = submitted.priority
    for recorded in history.events:
        if isinstance(recorded.event, JobReprioritised):
            priority = recorded.event.priority
    return Placement(
        user=submitted.submitted_by,
        priority=priority,
        pool=submitted.pool,
        needs=submitted.needs,
    )


def withdraw(cause: Recorded[Event], work_id: UUID) -> FollowUp:
    gone = Withdraw(work_id=work_id, reason=type(cause.event).__name__)
    return ask(cause, "withdraw", queue_stream(cause.stream.workspace), gone)


def stop(cause: Recorded[Event], agent_id: str, work_id: UUID, attempt: int) -> FollowUp:
    message = StopWork(
        workspace=cause.stream.workspace, work_id=work_id, attempt=attempt, reason="cancelled"
    )
    return Hand(follow_up_id(cause.id, "stop"), agent_id, message)


def queue_stream(workspace: str) -> StreamId:
    return StreamId(workspace, "queue", queue_id(workspace))


def model_id(workspace: str, name: str) -> UUID:
    return derived_id(workspace, "model", name)


def fold(history: History[Event], decider: Decider[Any, S, Any]) -> S:
    return decider.fold([recorded.event for recorded in history.events])


def last(history: History[Event], type_: type[E]) -> Recorded[E]:
    """The stream's latest event of that type; its absence is a broken promise of the rules."""
    found = [recorded for recorded in history.events if isinstance(recorded.event, type_)]
    return found[-1]  # type: ignore[return-value]  # isinstance says nothing of the parameter


async def spec_of(
    job_id: UUID, workspace: str, store: EventStore
) -> tuple[JobSpec, History[Event]]:
    history = await store.read(StreamId(workspace, "job", job_id))
    return last(history, JobSubmitted).event.spec, history
