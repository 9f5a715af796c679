"""The rules of the queue: whose turn it is by the policy in force, and never more than an agent's free slots."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, assert_never
from uuid import UUID

from domain.messages import Decider
from domain.placement import Needs
from domain.queues.commands import (
    Assign,
    Enqueue,
    OfferSlots,
    QueueCommand,
    Reprioritise,
    SetPolicy,
    Withdraw,
    WithdrawSlots,
)
from domain.queues.events import (
    Inputs,
    PolicySet,
    QueueEvent,
    SlotsOffered,
    SlotsWithdrawn,
    WorkAssigned,
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
)
from domain.queues.ranking import Choice, choose
from domain.queues.state import START, Agent, Assigned, Ledger, Queue, Work
from domain.subjects import derived_id

K = TypeVar("K")
V = TypeVar("V")


def queue_id(workspace: str) -> UUID:
    """A workspace has one queue."""
    return derived_id(workspace, "queue")


def decide(command: QueueCommand, queue: Queue) -> Sequence[QueueEvent]:
    match command:
        case Enqueue():
            return _enqueue(command, queue)
        case Assign():
            choice = choose(queue)
            return [_assigned(choice, queue)] if choice else []
        case Reprioritise():
            known = queue.find(command.work_id)
            same = known is None or known.priority == command.priority
            return [] if same else [WorkReprioritised(**command.model_dump(exclude={"type"}))]
        case Withdraw():
            gone = WorkWithdrawn(work_id=command.work_id, reason=command.reason)
            return [gone] if queue.find(command.work_id) else []
        case OfferSlots():
            offered = SlotsOffered(**command.model_dump(exclude={"type"}))
            same = queue.ledger.agents.get(command.agent_id) == _agent(offered)
            return [] if same else [offered]
        case WithdrawSlots():
            return _withdraw_slots(command, queue)
        case SetPolicy():
            same = queue.ledger.policy == command.policy
            number = queue.ledger.number + 1
            return [] if same else [PolicySet(number=number, policy=command.policy)]
        case _:
            assert_never(command)


def evolve(queue: Queue, event: QueueEvent) -> Queue:
    match event:
        case WorkQueued():
            return _queued(queue, event)
        case WorkAssigned():
            work = queue.waiting.get(event.work_id) or _unheard_of(event)
            if work.attempt != event.attempt:
                work = replace(work, attempt=event.attempt)
            held = Assigned(work, event.agent_id)
            assigned: Mapping[UUID, Assigned] = {**queue.assigned, event.work_id: held}
            waiting = without(queue.waiting, event.work_id)
            return Queue(waiting, assigned, queue.arrivals, ledger_after(queue.ledger, event))
        case WorkReprioritised():
            return _reprioritised(queue, event)
        case WorkWithdrawn():
            waiting = without(queue.waiting, event.work_id)
            assigned = without(queue.assigned, event.work_id)
            return Queue(waiting, assigned, queue.arrivals, queue.ledger)
        case SlotsOffered() | SlotsWithdrawn() | PolicySet():
            return replace(queue, ledger=ledger_after(queue.ledger, event))
        case _:
            assert_never(event)


def ledger_after(ledger: Ledger, event: QueueEvent) -> Ledger:
    """What an event changes of that which decisions depend on beside the work itself."""
    match event:
        case WorkAssigned():
            return ledger.started(event.user)
        case SlotsOffered():
            agents = {**ledger.agents, event.agent_id: _agent(event)}
            return replace(ledger, agents=agents)
        case SlotsWithdrawn():
            known = ledger.agents.get(event.agent_id)
            if known is None or event.for_good:
                return replace(ledger, agents=without(ledger.agents, event.agent_id))
            away = replace(known, away=event.reason)
            return replace(ledger, agents={**ledger.agents, event.agent_id: away})
        case PolicySet():
            return replace(ledger, policy=event.policy, number=event.number)
        case WorkQueued() | WorkReprioritised() | WorkWithdrawn():
            return ledger
        case _:
            assert_never(event)


def work_of(event: WorkQueued, place: int) -> Work:
    return Work(
        work_id=event.work_id,
        kind=event.kind,
        method=event.method,
        attempt=event.attempt,
        user=event.user,
        priority=event.priority,
        pool=event.pool,
        accelerator=event.needs.accelerator,
        memory_bytes=event.needs.memory_bytes,
        place=place,
        starts=event.starts,
    )


def _enqueue(command: Enqueue, queue: Queue) -> Sequence[QueueEvent]:
    known = queue.find(command.work_id)
    if known is None:
        told = command.model_dump(exclude={"type"})
        return [WorkQueued(**told, starts=queue.ledger.starts)]
    if known.attempt >= command.attempt:
        return []
    return [
        WorkQueued(
            work_id=command.work_id,
            kind=known.kind,
            method=known.method or command.method,
            attempt=command.attempt,
            user=known.user,
            priority=known.priority,
            pool=known.pool,
            needs=Needs(accelerator=known.accelerator, memory_bytes=known.memory_bytes),
            starts=known.starts,
        )
    ]


def _assigned(choice: Choice, queue: Queue) -> WorkAssigned:
    work, standing = choice.work, choice.standing
    inputs = Inputs(
        policy=queue.ledger.number,
        waiting=len(queue.waiting),
        starts=queue.ledger.starts,
        overdue=standing.overdue(work),
        priority=work.priority,
        share=standing.share(work.user),
        running=standing.running(work.user),
        agents=choice.agents,
        free_slots=choice.free_slots,
        held_back=choice.held_back,
        unfit=choice.unfit,
    )
    return WorkAssigned(
        work_id=work.work_id,
        kind=work.kind,
        attempt=work.attempt,
        agent_id=choice.agent.agent_id,
        reason=_reason(choice, inputs),
        user=work.user,
        inputs=inputs,
    )


def _reason(choice: Choice, inputs: Inputs) -> str:
    work, agent = choice.work, choice.agent
    if inputs.overdue:
        why = f"it has seen {inputs.starts - work.starts} others start"
    else:
        why = (
            f"priority {work.priority}; {work.user or 'its user'} has {inputs.running} running, "
            f"share {inputs.share / START:.2f}"
        )
    passed = [
        f"{count} passed over: {cause}"
        for count, cause in (
            (inputs.held_back, "their users have all that may run at once"),
            (inputs.unfit, "no agent with a free slot fits them"),
        )
        if count
    ]
    turn = f"first of {inputs.waiting} waiting"
    room = f"{inputs.free_slots} of {agent.slots} slots of {agent.name} free"
    return "; ".join((turn, why, room, *passed))


def _withdraw_slots(command: WithdrawSlots, queue: Queue) -> Sequence[QueueEvent]:
    known = queue.ledger.agents.get(command.agent_id)
    if known is None or (known.away is not None and not command.for_good):
        return []
    return [SlotsWithdrawn(**command.model_dump(exclude={"type"}))]


def _queued(queue: Queue, event: WorkQueued) -> Queue:
    known = queue.find(event.work_id)
    work = work_of(event, known.place if known else queue.arrivals + 1)
    waiting = {**queue.waiting, event.work_id: work}
    assigned = without(queue.assigned, event.work_id)
    return Queue(waiting, assigned, max(queue.arrivals, work.place), queue.ledger)


def _reprioritised(queue: Queue, event: WorkReprioritised) -> Queue:
    id_ = event.work_id
    if work := queue.waiting.get(id_):
        moved = replace(work, priority=event.priority)
        return replace(queue, waiting={**queue.waiting, id_: moved})
    if held := queue.assigned.get(id_):
        kept = replace(held, work=replace(held.work, priority=event.priority))
        return replace(queue, assigned={**queue.assigned, id_: kept})
    return queue


def _unheard_of(event: WorkAssigned) -> Work:
    return Work(event.work_id, event.kind, method="", attempt=event.attempt, user=event.user)


def _agent(event: SlotsOffered) -> Agent:
    return Agent(**event.model_dump(exclude={"type"}))


def without(mapping: Mapping[K, V], key: K) -> Mapping[K, V]:
    """The mapping itself where there is nothing to leave out."""
    if key not in mapping:
        return mapping
    left = dict(mapping)
    del left[key]
    return left


decider: Decider[QueueCommand, Queue, QueueEvent] = Decider(Queue(), decide, evolve)
