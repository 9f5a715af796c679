"""When waiting work may start, by what is known of the time that works take."""

from collections.abc import Mapping
from uuid import UUID

from domain.queues.estimate import Estimate, estimate
from domain.queues.events import QueueEvent
from domain.queues.queue import decider
from domain.queues.state import Work
from domain.queues.waiting import explain
from tests.domain.test_queue import assigned, offered, policy, queued, work


def minutes(
    *history: QueueEvent, left: Mapping[int, float | None], lasts: float | None = 60.0
) -> list[float | None]:
    """For each waiting work in order, when it may start."""
    found = estimates(*history, left=left, lasts=lasts)
    return [None if one.seconds is None else one.seconds / 60 for one in found]


def estimates(
    *history: QueueEvent, left: Mapping[int, float | None], lasts: float | None = 60.0
) -> list[Estimate]:
    state = decider.fold(history)
    waits = explain(state)
    told: dict[UUID, float | None] = {work(number): seconds for number, seconds in left.items()}

    def takes(_: Work) -> float | None:
        return lasts

    found = estimate(state, waits, told, takes)
    return [found[wait.work.work_id] for wait in waits]


def test_one_slot_is_worked_off_in_order() -> None:
    history = (offered(), queued(1), queued(2), queued(3), assigned(1))

    assert minutes(*history, left={1: 30.0}) == [0.5, 1.5]


def test_the_slot_that_comes_free_first_is_taken() -> None:
    history = (offered(slots=2), *(queued(n) for n in range(1, 6)), assigned(1), assigned(2))

    assert minutes(*history, left={1: 600.0, 2: 60.0}) == [1.0, 2.0, 3.0]


def test_a_free_slot_is_there_at_once() -> None:
    assert minutes(offered(), queued(1), left={}) == [0.0]


def test_where_nothing_is_known_of_what_goes_before_no_time_is_told() -> None:
    history = (offered(), queued(1), queued(2), queued(3), assigned(1))

    (first, second) = estimates(*history, left={1: None})
    assert (
        first == second == Estimate(None, "nothing is known of how long what goes before it takes")
    )
    assert minutes(*history, left={1: 60.0}, lasts=None) == [1.0, None]


def test_what_no_agent_can_run_has_no_time() -> None:
    (found,) = estimates(offered(), queued(1, method="other"), left={})

    assert found == Estimate(None, "no connected agent can run it")


def test_a_quota_is_waited_for() -> None:
    history = (
        policy(users={"ann": {"running": 1}, "bob": {"running": 0}}),
        offered(slots=3),
        *(queued(number, user="ann") for number in (1, 2, 3)),
        queued(4, user="bob"),
        queued(5, user="carl"),
        assigned(1, user="ann"),
    )

    waits = [wait.work.work_id.int for wait in explain(decider.fold(history))]
    found = dict(zip(waits, minutes(*history, left={1: 120.0}), strict=True))

    assert found == {5: 0.0, 2: 2.0, 3: 3.0, 4: None}
