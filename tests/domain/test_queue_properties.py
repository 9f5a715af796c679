"""What holds of the queue whatever happens, and that it decides as a simple model of it does."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from random import Random
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

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
from domain.queues.events import QueueEvent, WorkAssigned
from domain.queues.policy import QueuePolicy, UserPolicy
from domain.queues.queue import decider
from domain.queues.ranking import Fleet, fits, order, standing_of
from domain.queues.replay import Happened, check, replay
from domain.queues.state import Queue
from domain.queues.waiting import explain
from tests.domain.queue_model import Model
from tests.samples import NOW

USERS = ("ann", "bob", "carl")
STORIES = st.integers(0, 2**32 - 1)  # seeds: lists that hypothesis makes itself are too short


def asked(seed: int) -> list[QueueCommand]:
    """A story of a hundred commands, in which every rule has its chance to matter."""
    chance = Random(seed)
    commands: list[QueueCommand] = [_policy(chance), _offer(chance), _offer(chance)]
    return commands + [chance.choices(MAKERS, WEIGHTS)[0](chance) for _ in range(100)]


def _enqueue(chance: Random) -> QueueCommand:
    return Enqueue(
        work_id=UUID(int=chance.randint(1, 30)),
        kind=chance.choice(("train", "train", "evaluate")),
        method=chance.choice(("a", "a", "a", "b")),
        attempt=chance.choice((1, 1, 1, 2, 3)),
        user=chance.choice(USERS),
        priority=chance.choice((0, 50, 50, 100)),
        pool=chance.choice((*[None] * 8, "lab", "nowhere")),
        needs=Needs(
            accelerator=chance.choice((*[None] * 8, "gpu", "cpu")),
            memory_bytes=chance.choice((*[None] * 8, 10, 99)),
        ),
    )


def _assign(_: Random) -> QueueCommand:
    return Assign()


def _withdraw(chance: Random) -> QueueCommand:
    return Withdraw(work_id=UUID(int=chance.randint(1, 30)), reason="over")


def _reprioritise(chance: Random) -> QueueCommand:
    return Reprioritise(
        work_id=UUID(int=chance.randint(1, 30)), priority=chance.choice((0, 50, 100))
    )


def _offer(chance: Random) -> QueueCommand:
    return OfferSlots(
        agent_id=chance.choice("xyz"),
        name="box",
        slots=chance.choice((0, 1, 2, 3)),
        methods=chance.choice((("a",), ("a", "b"))),
        pool=chance.choice(("default", "lab")),
        accelerator=chance.choice(("cpu", "NVIDIA A10")),
        memory_bytes=chance.choice((5, 50)),
    )


def _silence(chance: Random) -> QueueCommand:
    return WithdrawSlots(agent_id=chance.choice("xyz"), reason="silent for 11 s")


def _policy(chance: Random) -> QueueCommand:
    return SetPolicy(policy=a_policy(chance))


def a_policy(chance: Random) -> QueuePolicy:
    return QueuePolicy(
        patience=chance.choice((1, 2, 3, 5, 8, 100)),
        memory=chance.randint(1, 6),
        evaluations_first=chance.choice((True, False)),
        everyone=_user(chance),
        users={user: _user(chance) for user in USERS if chance.random() < 0.3},
    )


def _user(chance: Random) -> UserPolicy:
    running = chance.choice((None, None, None, None, 0, 1, 2, 3))
    return UserPolicy(weight=chance.randint(1, 3), running=running)


MAKERS = (_enqueue, _assign, _withdraw, _reprioritise, _offer, _silence, _policy)
WEIGHTS = (40, 25, 25, 4, 2, 1, 1)


def played(commands: Iterable[QueueCommand]) -> list[tuple[Queue, QueueEvent]]:
    """Every event with the state before it."""
    state, found = decider.initial, []
    for command in commands:
        for event in decider.decide(command, state):
            found.append((state, event))
            state = decider.evolve(state, event)
    return found


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_no_slot_quota_or_need_is_ever_overstepped(seed: int) -> None:
    for before, event in played(asked(seed)):
        if not isinstance(event, WorkAssigned):
            continue
        after = decider.evolve(before, event)
        agent, work = before.ledger.agents[event.agent_id], before.waiting[event.work_id]
        held = Counter(one.agent_id for one in after.assigned.values())
        limit = before.ledger.policy.of(work.user).running

        assert agent.away is None
        assert held[agent.agent_id] <= agent.slots
        assert limit is None or after.running()[work.user] <= limit
        assert fits(work, agent)
        assert event.attempt == work.attempt
        assert not after.waiting.keys() & after.assigned.keys()


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_what_is_given_is_what_a_simple_model_gives(seed: int) -> None:
    model, state = Model(), decider.initial
    for command in asked(seed):
        for event in decider.decide(command, state):
            if isinstance(event, WorkAssigned):
                assert event.work_id == model.next()
            model.hear(event)
            state = decider.evolve(state, event)
        if isinstance(command, Assign) and not decider.decide(Assign(), state):
            assert model.next() is None


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_positions_and_reasons_are_what_a_simple_model_says(seed: int) -> None:
    history = [event for _, event in played(asked(seed))]
    state, model = decider.fold(history), Model(history)

    told = {one.work.work_id: (one.position, one.code, one.ahead) for one in explain(state)}

    assert [work.work_id for work in order(state, Fleet(state.ledger))] == model.order()
    assert told == model.why()


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_what_is_said_to_be_next_is_what_is_given_next(seed: int) -> None:
    state = decider.fold([event for _, event in played(asked(seed))])
    said = {one.work.work_id for one in explain(state) if one.code == "next"}
    given_now = {event.work_id for event in decider.decide(Assign(), state)}  # type: ignore[union-attr]

    assert given_now <= said
    assert bool(given_now) == bool(said)


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_the_same_events_give_the_same_decisions(seed: int) -> None:
    log = logged([event for _, event in played(asked(seed))])

    checked = check(log)

    assert checked.differences == []
    assert checked.decisions == sum(isinstance(one.event, WorkAssigned) for one in log)


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_a_decision_that_was_tampered_with_is_found(seed: int) -> None:
    log = logged([event for _, event in played(asked(seed))])
    for number, one in enumerate(log):
        if isinstance(one.event, WorkAssigned):
            forged = Happened(
                one.sequence, one.at, one.event.model_copy(update={"reason": "why not"})
            )
            changed = [*log[:number], forged, *log[number + 1 :]]

            assert [found.sequence for found in check(changed).differences] == [one.sequence]


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_nothing_is_overtaken_more_often_than_the_policy_is_patient(seed: int) -> None:
    overtaken: Counter[UUID] = Counter()
    for before, event in played(asked(seed)):
        if not isinstance(event, WorkAssigned):
            continue
        chosen, agent = before.waiting[event.work_id], before.ledger.agents[event.agent_id]
        standing = standing_of(before)
        for work in before.waiting.values():
            could = fits(work, agent) and not standing.at_limit(work.user)
            if could and work.place < chosen.place:
                overtaken[work.work_id, work.place] += 1  # type: ignore[index]
                assert overtaken[work.work_id, work.place] <= before.ledger.policy.patience  # type: ignore[index]


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_another_policys_replay_starts_each_work_once_and_not_before_it_came(seed: int) -> None:
    log = logged([event for _, event in played(asked(seed))])

    stories = replay(log, a_policy(Random(seed + 1)))

    for story in stories:
        if story.would_start_at is not None:
            assert story.would_start_at >= story.queued_at


def logged(events: Sequence[QueueEvent]) -> list[Happened]:
    return [Happened(n, NOW + timedelta(seconds=n), event) for n, event in enumerate(events, 1)]
