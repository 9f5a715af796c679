"""The rules of the queue: first come, first served, and never more than an agent's free slots."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, assert_never
from uuid import UUID

from domain.messages import Decider
from domain.queues.commands import Assign, Enqueue, QueueCommand, Withdraw
from domain.queues.events import QueueEvent, WorkAssigned, WorkQueued, WorkWithdrawn
from domain.subjects import derived_id

V = TypeVar("V", WorkQueued, WorkAssigned)


@dataclass(frozen=True, slots=True)
class Queue:
    waiting: dict[UUID, WorkQueued] = field(default_factory=dict)  # in order of arrival
    assigned: dict[UUID, WorkAssigned] = field(default_factory=dict)


def queue_id(workspace: str) -> UUID:
    """A workspace has one queue."""
    return derived_id(workspace, "queue")


def decide(command: QueueCommand, queue: Queue) -> Sequence[QueueEvent]:
    match command:
        case Enqueue():
            return [] if _known(command, queue) else [_queued(command)]
        case Assign():
            return _assign(command, queue)
        case Withdraw():
            known = command.work_id in queue.waiting or command.work_id in queue.assigned
            gone = WorkWithdrawn(work_id=command.work_id, reason=command.reason)
            return [gone] if known else []
        case _:
            assert_never(command)


def evolve(queue: Queue, event: QueueEvent) -> Queue:
    match event:
        case WorkQueued():
            assigned = _without(queue.assigned, event.work_id)
            return Queue(queue.waiting | {event.work_id: event}, assigned)
        case WorkAssigned():
            waiting = _without(queue.waiting, event.work_id)
            return Queue(waiting, queue.assigned | {event.work_id: event})
        case WorkWithdrawn():
            return replace(
                queue,
                waiting=_without(queue.waiting, event.work_id),
                assigned=_without(queue.assigned, event.work_id),
            )
        case _:
            assert_never(event)


def _known(command: Enqueue, queue: Queue) -> bool:
    held = queue.waiting.get(command.work_id) or queue.assigned.get(command.work_id)
    return held is not None and held.attempt >= command.attempt


def _queued(command: Enqueue) -> WorkQueued:
    return WorkQueued(**command.model_dump(exclude={"type"}))


def _assign(command: Assign, queue: Queue) -> Sequence[QueueEvent]:
    held = sum(work.agent_id == command.agent_id for work in queue.assigned.values())
    fitting = (work for work in queue.waiting.values() if work.method in command.methods)
    work = next(fitting, None)
    if work is None or held >= command.slots:
        return []
    return [
        WorkAssigned(
            work_id=work.work_id,
            kind=work.kind,
            attempt=work.attempt,
            agent_id=command.agent_id,
            reason=f"first in the queue that {command.agent_name} can do; "
            f"{command.slots - held} of its {command.slots} slots free",
        )
    ]


def _without(mapping: dict[UUID, V], key: UUID) -> dict[UUID, V]:
    return {k: v for k, v in mapping.items() if k != key}


decider: Decider[QueueCommand, Queue, QueueEvent] = Decider(Queue(), decide, evolve)
