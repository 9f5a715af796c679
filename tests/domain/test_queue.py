"""The rules of the queue."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.queues.commands import Assign, Enqueue, QueueCommand, Withdraw
from domain.queues.events import QueueEvent, WorkAssigned, WorkQueued, WorkWithdrawn
from domain.queues.queue import decider
from tests.samples import METHOD
from tests.spec import Spec

queue = Spec(decider)


def work(number: int) -> UUID:
    return UUID(int=number)


def enqueue(number: int, attempt: int = 1, method: str = METHOD) -> Enqueue:
    return Enqueue(work_id=work(number), kind="train", method=method, attempt=attempt)


def queued(number: int, attempt: int = 1, method: str = METHOD) -> WorkQueued:
    return WorkQueued(work_id=work(number), kind="train", method=method, attempt=attempt)


def assign(agent: str = "a", slots: int = 1, methods: tuple[str, ...] = (METHOD,)) -> Assign:
    return Assign(agent_id=agent, agent_name=f"box {agent}", slots=slots, methods=methods)


def assigned(number: int, agent: str = "a", attempt: int = 1) -> WorkAssigned:
    return WorkAssigned(
        work_id=work(number), kind="train", attempt=attempt, agent_id=agent, reason="first"
    )


def withdraw(number: int) -> Withdraw:
    return Withdraw(work_id=work(number), reason="over")


def withdrawn(number: int) -> WorkWithdrawn:
    return WorkWithdrawn(work_id=work(number), reason="over")


def given_to(*history: QueueEvent, command: Assign) -> UUID | None:
    events = queue.given(*history).when(command).decide()
    if not events:
        return None
    (event,) = events
    assert isinstance(event, WorkAssigned)
    assert event.agent_id == command.agent_id
    return event.work_id


def test_work_is_queued_once_for_each_attempt() -> None:
    queue.when(enqueue(1)).then(queued(1))
    queue.given(queued(1)).when(enqueue(1)).then_nothing()
    queue.given(queued(1), assigned(1)).when(enqueue(1)).then_nothing()
    queue.given(queued(1), assigned(1)).when(enqueue(1, attempt=2)).then(queued(1, attempt=2))


def test_first_come_first_served() -> None:
    assert given_to(queued(2), queued(1), command=assign()) == work(2)
    assert given_to(queued(2), queued(1), assigned(2, "b"), command=assign()) == work(1)


def test_an_agent_gets_only_what_it_can_do() -> None:
    history = (queued(1, method="other"), queued(2))

    assert given_to(*history, command=assign()) == work(2)
    assert given_to(*history, command=assign(methods=("nothing",))) is None


def test_an_agent_never_gets_more_than_its_slots() -> None:
    history = (queued(1), queued(2), assigned(1))

    assert given_to(*history, command=assign(slots=1)) is None
    assert given_to(*history, command=assign(slots=2)) == work(2)
    assert given_to(*history, command=assign("b", slots=1)) == work(2)
    assert given_to(*history, withdrawn(1), command=assign(slots=1)) == work(2)


def test_an_empty_queue_has_nothing_to_give() -> None:
    assert given_to(command=assign()) is None


def test_the_reason_names_agent_and_slots() -> None:
    (event,) = queue.given(queued(1)).when(assign(slots=3)).decide()

    assert isinstance(event, WorkAssigned)
    assert event.reason == "first in the queue that box a can do; 3 of its 3 slots free"


def test_work_that_is_queued_again_frees_the_slot_of_its_last_attempt() -> None:
    history = (queued(1), queued(2), assigned(1), queued(1, attempt=2))

    assert given_to(*history, command=assign()) == work(2)


def test_withdrawing_is_asked_for_once() -> None:
    queue.given(queued(1)).when(withdraw(1)).then(withdrawn(1))
    queue.given(queued(1), assigned(1)).when(withdraw(1)).then(withdrawn(1))
    queue.given(queued(1), withdrawn(1)).when(withdraw(1)).then_nothing()
    queue.when(withdraw(1)).then_nothing()


works = st.integers(1, 4)
slots = {"a": 1, "b": 2}
any_command = st.one_of(
    st.builds(enqueue, works, st.integers(1, 3)),
    st.builds(withdraw, works),
    st.sampled_from([assign("a", slots["a"]), assign("b", slots["b"])]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_command, max_size=40))
def test_no_agent_ever_holds_more_than_its_slots_and_no_work_is_held_twice(
    commands: Sequence[QueueCommand],
) -> None:
    history: list[QueueEvent] = []
    for command in commands:
        history += decider.decide(command, decider.fold(history))

        state = decider.fold(history)
        held = Counter(event.agent_id for event in state.assigned.values())
        assert all(count <= slots[agent] for agent, count in held.items())
        assert not state.waiting.keys() & state.assigned.keys()
