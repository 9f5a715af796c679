"""Who gets work and whose lease is over, as a table."""

from dataclasses import dataclass, replace

import pytest

from domain.queues.state import Agent, Assigned, Work
from domain.work import HeldWork, Presence
from handlers.leases import AgentView, Claim, WorkView, doubtful, expiry_reason, fleet_changes
from tests import samples
from tests.samples import AGENT, JOB, METHOD, later, presence

ASSIGNED = Assigned(Work(JOB, "train", METHOD, attempt=2), str(AGENT))
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


KNOWN = Agent(
    agent_id=str(AGENT),
    name=presence().name,
    slots=1,
    methods=(METHOD,),
    accelerator="cpu",
    memory_bytes=8 * 1024**3,
)


def told(known: Agent | None, view: AgentView) -> list[str]:
    changes = fleet_changes({} if known is None else {known.agent_id: known}, {str(AGENT): view})
    return [
        f"{type(change).__name__} {getattr(change, 'reason', '')}".strip() for change in changes
    ]


@pytest.mark.parametrize(
    ("known", "view", "expected"),
    [
        (None, AgentView(presence(), 0), ["OfferSlots"]),
        (KNOWN, AgentView(presence(), 0), []),
        (KNOWN, AgentView(presence(slots=2), 0), ["OfferSlots"]),
        (KNOWN, AgentView(presence(methods=("other",)), 0), ["OfferSlots"]),
        (KNOWN, AgentView(presence(), 10), []),
        (KNOWN, AgentView(presence(), 11), ["WithdrawSlots silent for 11 s"]),
        (KNOWN, AgentView(None, 11), ["WithdrawSlots silent for 11 s"]),
        (KNOWN, AgentView(None, 9), []),
        (KNOWN, AgentView(presence(draining=True), 0), ["WithdrawSlots stopping"]),
        (KNOWN, AgentView(presence(), 0, active=False), ["WithdrawSlots draining"]),
        (KNOWN, AgentView(presence(), 0, active=False, revoked=True), ["WithdrawSlots revoked"]),
        (replace(KNOWN, away="silent"), AgentView(presence(), 0), ["OfferSlots"]),
        (replace(KNOWN, away="silent"), AgentView(presence(), 11), []),
        (replace(KNOWN, away="silent"), AgentView(presence(), 0, active=False), []),
        (None, AgentView(presence(), 0, active=False), []),
        (None, AgentView(presence(), 11), []),
        (None, AgentView(None, 0), []),
    ],
)
def test_the_queue_is_told_of_an_agent_only_what_it_does_not_know(
    known: Agent | None, view: AgentView, expected: list[str]
) -> None:
    assert told(known, view) == expected
