"""The rules of the queue."""

from uuid import UUID

import pytest

from domain.placement import Needs
from domain.queues.commands import (
    Assign,
    Enqueue,
    OfferSlots,
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
    WorkKind,
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
)
from domain.queues.policy import QueuePolicy, UserPolicy
from domain.queues.queue import decider
from domain.queues.state import START
from tests.samples import METHOD
from tests.spec import Spec

queue = Spec(decider)


def work(number: int) -> UUID:
    return UUID(int=number)


def enqueue(number: int, attempt: int = 1, **more: object) -> Enqueue:
    about = {"kind": "train", "method": METHOD, "attempt": attempt} | more
    return Enqueue(work_id=work(number), **about)


def queued(number: int, attempt: int = 1, **more: object) -> WorkQueued:
    about = {"kind": "train", "method": METHOD, "attempt": attempt} | more
    return WorkQueued(work_id=work(number), **about)


def offered(agent: str = "a", slots: int = 1, **more: object) -> SlotsOffered:
    about = {"methods": (METHOD,), "accelerator": "cpu", "memory_bytes": 8_000_000_000} | more
    return SlotsOffered(agent_id=agent, name=f"box {agent}", slots=slots, **about)


def offer(agent: str = "a", slots: int = 1, **more: object) -> OfferSlots:
    return OfferSlots(**offered(agent, slots, **more).model_dump(exclude={"type"}))


def assigned(
    number: int, agent: str = "a", attempt: int = 1, user: str = "", kind: WorkKind = "train"
) -> WorkAssigned:
    return WorkAssigned(
        work_id=work(number),
        kind=kind,
        attempt=attempt,
        agent_id=agent,
        reason="first",
        user=user,
    )


def withdrawn(number: int) -> WorkWithdrawn:
    return WorkWithdrawn(work_id=work(number), reason="over")


def policy(number: int = 1, **more: object) -> PolicySet:
    return PolicySet(number=number, policy=QueuePolicy.model_validate(more))


def given(*history: QueueEvent) -> tuple[int, str] | None:
    """The number of the work that is given next, and to whom."""
    events = queue.given(*history).when(Assign()).decide()
    if not events:
        return None
    (event,) = events
    assert isinstance(event, WorkAssigned)
    return event.work_id.int, event.agent_id


def in_order(*history: QueueEvent) -> list[int]:
    """The works as one agent is given them, each when the one before has ended."""
    found: list[int] = []
    so_far = list(history)
    while events := queue.given(*so_far).when(Assign()).decide():
        (event,) = events
        assert isinstance(event, WorkAssigned)
        found.append(event.work_id.int)
        so_far += [event, WorkWithdrawn(work_id=event.work_id, reason="over")]
    return found


def test_work_is_queued_once_for_each_attempt() -> None:
    queue.when(enqueue(1)).then(queued(1))
    queue.given(queued(1)).when(enqueue(1)).then_nothing()
    queue.given(queued(1), assigned(1)).when(enqueue(1)).then_nothing()
    queue.given(queued(1), assigned(1)).when(enqueue(1, attempt=2)).then(queued(1, attempt=2))


def test_equals_are_served_as_they_came() -> None:
    assert in_order(offered(), queued(2), queued(3), queued(1)) == [2, 3, 1]


def test_a_higher_priority_goes_first() -> None:
    history = (offered(), queued(1, priority=50), queued(2, priority=51), queued(3, priority=0))

    assert in_order(*history) == [2, 1, 3]


def test_users_of_equal_weight_take_turns() -> None:
    ann = [queued(number, user="ann") for number in (1, 2, 3)]
    bob = [queued(number, user="bob") for number in (4, 5)]

    assert in_order(offered(), *ann, *bob) == [1, 4, 2, 5, 3]


def test_twice_the_weight_is_twice_the_starts() -> None:
    ann = [queued(number, user="ann") for number in range(1, 7)]
    bob = [queued(number, user="bob") for number in range(11, 17)]
    twice = policy(users={"bob": {"weight": 2}})

    served = in_order(offered(), twice, *ann, *bob)

    assert sum(number > 10 for number in served[:6]) == 4


def test_what_runs_counts_against_its_user() -> None:
    history = (
        offered(slots=3),
        queued(1, user="ann"),
        queued(2, user="ann"),
        queued(3, user="bob"),
        assigned(1, user="ann"),
    )

    assert given(*history) == (3, "a")


def test_what_was_started_long_ago_no_longer_counts() -> None:
    begun: list[QueueEvent] = [offered(slots=99), policy(memory=1)]
    for number in range(1, 31):
        user = "ann" if number <= 10 else "carl"
        begun += [queued(number, user=user), assigned(number, user=user), withdrawn(number)]

    state = decider.fold(begun)

    assert state.ledger.recently("ann") == 0
    assert "ann" not in state.ledger.recent
    assert given(*begun, queued(40, user="ann"), queued(41, user="bob")) == (40, "a")


def test_evaluations_go_before_trainings_of_the_same_priority_if_the_policy_says_so() -> None:
    works = (queued(1), queued(2, kind="evaluate"), queued(3, priority=60))

    assert in_order(offered(), *works) == [3, 2, 1]
    assert in_order(offered(), policy(evaluations_first=False), *works) == [3, 1, 2]


def test_a_user_never_runs_more_than_the_quota_and_others_go_on() -> None:
    history = (
        policy(users={"ann": {"running": 1}}),
        offered(slots=3),
        queued(1, user="ann", priority=90),
        queued(2, user="ann", priority=90),
        queued(3, user="bob"),
        assigned(1, user="ann"),
    )

    assert given(*history) == (3, "a")
    assert given(*history, assigned(3, user="bob")) is None
    assert given(*history, withdrawn(1)) == (2, "a")


def test_what_has_waited_for_too_long_goes_before_everything_the_oldest_first() -> None:
    begun: list[QueueEvent] = [offered(), policy(patience=3), queued(1, priority=0)]
    begun += [queued(2, priority=1)]
    for number in range(10, 20):
        begun.append(queued(number, priority=100))

    assert in_order(*begun)[:6] == [10, 11, 12, 1, 2, 13]


def test_an_agent_gets_only_what_it_can_do() -> None:
    history = (offered(), queued(1, method="other"), queued(2))

    assert given(*history) == (2, "a")
    assert given(offered(methods=("nothing",)), queued(2)) is None


@pytest.mark.parametrize(
    ("wanted", "able"),
    [
        ({}, {"cpu", "small", "big"}),
        ({"pool": "lab"}, {"big"}),
        ({"pool": "elsewhere"}, set()),
        ({"needs": Needs(accelerator="cpu")}, {"cpu"}),
        ({"needs": Needs(accelerator="gpu")}, {"small", "big"}),
        ({"needs": Needs(accelerator="h100")}, {"big"}),
        ({"needs": Needs(memory_bytes=24_000_000_000)}, {"small", "big"}),
        ({"needs": Needs(memory_bytes=24_000_000_001)}, {"big"}),
        ({"needs": Needs(accelerator="gpu", memory_bytes=80_000_000_001)}, set()),
    ],
)
def test_work_goes_where_pool_accelerator_and_memory_suit_it(
    wanted: dict[str, object], able: set[str]
) -> None:
    fleet = {
        "cpu": offered("cpu", memory_bytes=16_000_000_000),
        "small": offered("small", accelerator="NVIDIA A10", memory_bytes=24_000_000_000),
        "big": offered("big", accelerator="NVIDIA H100", memory_bytes=80_000_000_000, pool="lab"),
    }

    found = {name for name, agent in fleet.items() if given(agent, queued(1, **wanted))}

    assert found == able


def test_the_smallest_agent_that_is_large_enough_is_taken_where_memory_is_asked_for() -> None:
    fleet = (offered("x", memory_bytes=80), offered("y", memory_bytes=24))

    assert given(*fleet, queued(1, needs=Needs(memory_bytes=20))) == (1, "y")
    assert given(*fleet, queued(1, needs=Needs(memory_bytes=25))) == (1, "x")


def test_the_agent_with_the_most_free_slots_is_taken_otherwise() -> None:
    history = (offered("a", 2), offered("b", 2), queued(1), queued(2), assigned(1, "a"))

    assert given(*history) == (2, "b")


def test_an_agent_never_gets_more_than_its_slots() -> None:
    history = (queued(1), queued(2), assigned(1))

    assert given(offered(slots=1), *history) is None
    assert given(offered(slots=2), *history) == (2, "a")
    assert given(offered(slots=0), offered("b"), *history) == (2, "b")
    assert given(offered(slots=1), *history, withdrawn(1)) == (2, "a")


def test_an_agent_that_is_away_gets_nothing_until_it_is_back() -> None:
    away = SlotsWithdrawn(agent_id="a", reason="silent for 11 s")

    assert given(offered(), queued(1), away) is None
    assert given(offered(), queued(1), away, offered()) == (1, "a")


def test_slots_are_offered_and_withdrawn_once() -> None:
    silent = WithdrawSlots(agent_id="a", reason="silent")
    revoked = WithdrawSlots(agent_id="a", reason="revoked", for_good=True)
    away = SlotsWithdrawn(agent_id="a", reason="silent")

    queue.when(offer()).then(offered())
    queue.given(offered()).when(offer()).then_nothing()
    queue.given(offered()).when(offer(slots=2)).then(offered(slots=2))
    queue.given(offered()).when(silent).then(away)
    queue.given(offered(), away).when(silent).then_nothing()
    queue.given(offered(), away).when(offer()).then(offered())
    queue.given(offered(), away).when(revoked).then(
        SlotsWithdrawn(agent_id="a", reason="revoked", for_good=True)
    )
    queue.when(silent).then_nothing()
    queue.when(revoked).then_nothing()


def test_nothing_is_given_where_nothing_waits_or_nobody_is_there() -> None:
    assert given(offered()) is None
    assert given(queued(1)) is None


def test_a_decision_says_what_it_was_made_from() -> None:
    history = (
        policy(7, users={"ann": {"running": 0}}, everyone={"weight": 2}),
        offered(slots=3),
        queued(1, user="ann"),
        queued(2, user="bob", method="other"),
        queued(3, user="bob"),
        queued(4, user="bob", priority=40),
        assigned(3, user="bob"),
    )

    (event,) = queue.given(*history).when(Assign()).decide()

    assert isinstance(event, WorkAssigned)
    assert event.inputs == Inputs(
        policy=7,
        waiting=3,
        starts=1,
        overdue=False,
        priority=40,
        share=START,
        running=1,
        agents=1,
        free_slots=2,
        held_back=1,
        unfit=1,
    )
    assert event.reason == (
        "first of 3 waiting; priority 40; bob has 1 running, share 1.00; 2 of 3 slots of box a free; "
        "1 passed over: their users have all that may run at once; "
        "1 passed over: no agent with a free slot fits them"
    )


def test_a_next_attempt_keeps_place_user_priority_and_needs() -> None:
    needs = Needs(memory_bytes=1)
    history = (
        offered(),
        queued(1, user="ann", priority=70, pool="default", needs=needs, starts=3),
        queued(2, user="ann", priority=70),
        assigned(1, user="ann"),
    )

    queue.given(*history).when(enqueue(1, attempt=2)).then(
        queued(1, 2, user="ann", priority=70, pool="default", needs=needs, starts=3)
    )
    assert given(*history, queued(1, 2, user="ann", priority=70)) == (1, "a")


def test_work_that_is_queued_again_frees_the_slot_of_its_last_attempt() -> None:
    history = (offered(), queued(1), queued(2), assigned(1), queued(1, attempt=2))

    assert given(*history) == (1, "a")


def test_a_priority_is_changed_where_it_makes_a_difference() -> None:
    higher = Reprioritise(work_id=work(2), priority=60)
    moved = WorkReprioritised(work_id=work(2), priority=60)
    history = (offered(), queued(1), queued(2))

    queue.given(*history).when(higher).then(moved)
    queue.given(*history, moved).when(higher).then_nothing()
    queue.when(higher).then_nothing()
    assert given(*history, moved) == (2, "a")


def test_a_running_works_next_attempt_has_the_priority_it_was_given_meanwhile() -> None:
    moved = WorkReprioritised(work_id=work(1), priority=5)

    queue.given(queued(1), assigned(1), moved).when(enqueue(1, attempt=2)).then(
        queued(1, 2, priority=5)
    )


def test_a_policy_is_numbered_and_set_once() -> None:
    mine = QueuePolicy(patience=3, users={"ann": UserPolicy(weight=2)})

    queue.when(SetPolicy(policy=mine)).then(PolicySet(number=1, policy=mine))
    queue.given(PolicySet(number=1, policy=mine)).when(SetPolicy(policy=mine)).then_nothing()
    queue.given(PolicySet(number=1, policy=mine)).when(SetPolicy(policy=QueuePolicy())).then(
        PolicySet(number=2, policy=QueuePolicy())
    )
    queue.when(SetPolicy(policy=QueuePolicy())).then_nothing()


def test_withdrawing_is_asked_for_once() -> None:
    withdraw = Withdraw(work_id=work(1), reason="over")

    queue.given(queued(1)).when(withdraw).then(withdrawn(1))
    queue.given(queued(1), assigned(1)).when(withdraw).then(withdrawn(1))
    queue.given(queued(1), withdrawn(1)).when(withdraw).then_nothing()
    queue.when(withdraw).then_nothing()


def test_facts_that_fit_nothing_change_nothing() -> None:
    nothing = decider.fold([])

    assert decider.fold([withdrawn(1)]) == nothing
    assert decider.fold([WorkReprioritised(work_id=work(1), priority=1)]) == nothing
    assert decider.fold([SlotsWithdrawn(agent_id="a", reason="silent")]) == nothing


def test_nothing_is_remembered_of_works_that_are_over() -> None:
    history: list[QueueEvent] = [offered()]
    for number in range(500):
        history += [queued(number, user="ann"), assigned(number, user="ann"), withdrawn(number)]

    state = decider.fold(history)

    assert not state.waiting
    assert not state.assigned
    assert list(state.ledger.recent) == ["ann"]
    assert state.ledger.recently("ann") < 2 * START * state.ledger.policy.memory
