"""Who gets work and whose lease is over, as a table."""

from dataclasses import dataclass
from uuid import UUID

import pytest

from domain.queues.events import WorkAssigned, WorkQueued
from domain.queues.queue import Queue
from domain.work import HeldWork, Presence
from handlers.leases import AgentView, Claim, WorkView, doubtful, expiry_reason, next_assign
from tests import samples
from tests.samples import AGENT, JOB, METHOD, OTHER_AGENT, later, presence

ASSIGNED = WorkAssigned(work_id=JOB, kind="train", attempt=2, agent_id=str(AGENT), reason="first")
HELD = HeldWork(work_id=JOB, attempt=2)
OLDER = HeldWork(work_id=JOB, attempt=1)


@dataclass(frozen=True)
class Case:
    """An attempt assigned at second 0, looked at ``now`` seconds later."""

    says: Presence | None
    silent_s: float
    now: float
    claimed_at: float | None = None
    attempt: int = 2
    ended: bool = False

    def reason(self) -> str | None:
        claim = None if self.claimed_at is None else Claim("boot-1", later(self.claimed_at))
        return expiry_reason(
            ASSIGNED,
            later(0),
            WorkView(self.attempt, self.ended, claim),
            AgentView(self.says, self.silent_s),
            later(self.now),
        )


LISTS = presence(AGENT, HELD)
LISTS_NOT = presence(AGENT)
LISTS_OLDER = presence(AGENT, OLDER)
RESTARTED = presence(AGENT, HELD, boot_id="boot-2")


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        # silence
        (Case(LISTS, silent_s=10, now=60, claimed_at=1), None),
        (Case(LISTS, silent_s=10.1, now=60, claimed_at=1), "silent"),
        (Case(None, silent_s=9, now=60, claimed_at=1), None),
        (Case(None, silent_s=11, now=60, claimed_at=1), "silent"),
        (Case(None, silent_s=11, now=60), "silent"),
        # held as it should be
        (Case(LISTS, silent_s=0.5, now=3600, claimed_at=1), None),
        # never claimed
        (Case(LISTS_NOT, silent_s=0.5, now=10), None),
        (Case(LISTS_NOT, silent_s=0.5, now=11), "did not claim"),
        (Case(LISTS, silent_s=0.5, now=60), None),
        (Case(LISTS_NOT, silent_s=9, now=12), None),
        # claimed, and not held
        (Case(LISTS_NOT, silent_s=0.5, now=6, claimed_at=1), None),
        (Case(LISTS_NOT, silent_s=0.5, now=7, claimed_at=1), "does not hold"),
        (Case(LISTS_OLDER, silent_s=0.5, now=60, claimed_at=1), "does not hold"),
        (Case(LISTS_NOT, silent_s=9, now=7, claimed_at=1), None),
        # another life of the agent
        (Case(RESTARTED, silent_s=0.5, now=5, claimed_at=1), "started anew"),
        (Case(RESTARTED, silent_s=3.5, now=5, claimed_at=1), None),
        # the clock was set back by an hour
        (Case(RESTARTED, silent_s=0.5, now=-3600, claimed_at=1), "started anew"),
        (Case(LISTS_NOT, silent_s=0.5, now=-3600, claimed_at=1), "does not hold"),
        (Case(LISTS_NOT, silent_s=0.5, now=-3600), "did not claim"),
        (Case(LISTS, silent_s=0.5, now=-3600, claimed_at=1), None),
        # over anyway
        (Case(LISTS_NOT, silent_s=60, now=60, claimed_at=1, ended=True), None),
        (Case(LISTS_NOT, silent_s=60, now=60, claimed_at=1, attempt=3), None),
    ],
)
def test_an_attempt_is_given_up_only_for_a_reason(case: Case, reason: str | None) -> None:
    found = case.reason()

    assert (found is None) == (reason is None)
    if reason and found:
        assert reason in found


@pytest.mark.parametrize(
    ("says", "silent_s", "known", "expected"),
    [
        (LISTS, 0.5, WorkView(2, ended=False, claim=Claim("boot-1", samples.NOW)), False),
        (LISTS, 0.5, WorkView(2, ended=False), True),
        (LISTS, 0.5, None, True),
        (None, 0.5, WorkView(2, ended=False, claim=Claim("boot-1", samples.NOW)), True),
        (LISTS, 11.0, WorkView(2, ended=False, claim=Claim("boot-1", samples.NOW)), True),
        (LISTS_NOT, 0.5, WorkView(2, ended=False, claim=Claim("boot-1", samples.NOW)), True),
        (RESTARTED, 0.5, WorkView(2, ended=False, claim=Claim("boot-1", samples.NOW)), True),
    ],
)
def test_the_log_is_asked_only_where_something_is_in_doubt(
    says: Presence | None, silent_s: float, known: WorkView | None, expected: bool
) -> None:
    assert doubtful(ASSIGNED, known, AgentView(says, silent_s)) is expected


def waiting(*works: UUID, method: str = METHOD) -> dict[UUID, WorkQueued]:
    return {
        work: WorkQueued(work_id=work, kind="train", method=method, attempt=1) for work in works
    }


def held_by(agent: UUID, *works: UUID) -> dict[UUID, WorkAssigned]:
    return {
        work: WorkAssigned(
            work_id=work, kind="train", attempt=1, agent_id=str(agent), reason="first"
        )
        for work in works
    }


def chosen(queue: Queue, *agents: AgentView) -> str | None:
    assign = next_assign(queue, agents)
    return assign.agent_id if assign else None


ONE = UUID(int=1)
TWO = UUID(int=2)


def test_nothing_is_asked_for_while_nothing_waits() -> None:
    assert chosen(Queue(), AgentView(presence(), 0)) is None


def test_an_agent_with_a_free_slot_is_given_work() -> None:
    assert chosen(Queue(waiting(ONE)), AgentView(presence(), 0)) == str(AGENT)


@pytest.mark.parametrize(
    "agent",
    [
        AgentView(None, 0),
        AgentView(presence(), 11),
        AgentView(presence(), 0, active=False),
        AgentView(presence(draining=True), 0),
        AgentView(presence(slots=0), 0),
        AgentView(presence(methods=("other",)), 0),
    ],
)
def test_an_agent_that_cannot_take_work_is_given_none(agent: AgentView) -> None:
    assert chosen(Queue(waiting(ONE)), agent) is None


def test_an_agent_without_a_free_slot_waits() -> None:
    queue = Queue(waiting(ONE), held_by(AGENT, TWO))

    assert chosen(queue, AgentView(presence(), 0)) is None
    assert chosen(queue, AgentView(presence(slots=2), 0)) == str(AGENT)


def test_the_agent_with_the_most_free_slots_is_asked_first() -> None:
    queue = Queue(waiting(ONE), held_by(AGENT, TWO))
    agents = (AgentView(presence(AGENT, slots=2), 0), AgentView(presence(OTHER_AGENT, slots=2), 0))

    assert chosen(queue, *agents) == str(OTHER_AGENT)
