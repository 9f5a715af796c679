"""Who may get work and whose lease is over: decided from what is known now, without asking anybody."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from domain.queues.commands import OfferSlots, WithdrawSlots
from domain.queues.state import Agent, Assigned
from domain.work import Presence

SILENT_S: Final = 10.0  # ten presences missed
UNCLAIMED_S: Final = 10.0  # an idle agent claims within milliseconds
UNLISTED_S: Final = 5.0  # after a claim; presence lists it a second later
# A presence that was on its way while the attempt was claimed, and clocks that differ a little.
RESTART_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent as this process sees it."""

    presence: Presence | None  # None: never seen since this process is connected
    silent_s: float  # since its last presence, or since this process can hear it
    active: bool = True  # enrolled, neither draining nor revoked
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    boot_id: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class WorkView:
    """What the job or the evaluation itself says."""

    attempt: int  # the one that may claim or has claimed
    ended: bool
    claim: Claim | None = None  # of that attempt
    method: str = ""  # known while it waits


def fleet_changes(
    known: Mapping[str, Agent], views: Mapping[str, AgentView]
) -> list[OfferSlots | WithdrawSlots]:
    """What the queue is to be told, so that it counts on those agents that can take work."""
    changes: list[OfferSlots | WithdrawSlots] = []
    for agent_id, view in views.items():
        agent = known.get(agent_id)
        reason = absence(view)
        if reason is None and view.presence is not None:
            offer = _offer(view.presence)
            if agent is None or agent.away is not None or not _as_offered(agent, offer):
                changes.append(offer)
        elif reason is not None and agent is not None and (agent.away is None or view.revoked):
            gone = WithdrawSlots(agent_id=agent_id, reason=reason, for_good=view.revoked)
            changes.append(gone)
    return changes


def absence(agent: AgentView) -> str | None:
    """Why an agent is given no work; None while it may be, or while it is too early to tell."""
    if agent.revoked:
        return "revoked"
    if not agent.active:
        return "draining"
    if agent.silent_s > SILENT_S:
        return f"silent for {agent.silent_s:.0f} s"
    if agent.presence is not None and agent.presence.draining:
        return "stopping"
    return None


def _offer(presence: Presence) -> OfferSlots:
    return OfferSlots(
        agent_id=presence.agent_id,
        name=presence.name,
        slots=presence.slots,
        methods=presence.methods,
        pool=presence.pool,
        accelerator=presence.accelerator,
        memory_bytes=presence.memory_bytes,
    )


def _as_offered(agent: Agent, offer: OfferSlots) -> bool:
    told = offer.model_dump(exclude={"type"})
    return all(getattr(agent, name) == value for name, value in told.items())


def doubtful(assigned: Assigned, known: WorkView | None, agent: AgentView) -> bool:
    """Whether the work itself must be looked at, or is known to be held as it should be."""
    if agent.revoked or known is None or known.claim is None or agent.presence is None:
        return True
    held = (assigned.work_id, assigned.attempt) in _listed(agent.presence)
    same_boot = agent.presence.boot_id == known.claim.boot_id
    return not held or not same_boot or agent.silent_s > SILENT_S


def expiry_reason(
    assigned: Assigned,
    assigned_at: datetime,
    work: WorkView,
    agent: AgentView,
    now: datetime,
) -> str | None:
    """Why this attempt is believed dead; None while it may live, or when it is over anyway."""
    if work.ended or work.attempt != assigned.attempt:
        return None
    if agent.revoked:
        return "the agent was revoked"
    if agent.silent_s > SILENT_S:
        return f"the agent has been silent for {agent.silent_s:.0f} s"
    if agent.presence is None:
        return None  # not heard yet, and not long enough
    listed = (assigned.work_id, assigned.attempt) in _listed(agent.presence)
    # What counts is the age at which the agent spoke: an older presence proves nothing.
    if work.claim is None:
        age = _age_s(now, assigned_at) - agent.silent_s
        late = age > UNCLAIMED_S and not listed
        return f"the agent did not claim it within {age:.0f} s" if late else None
    age = _age_s(now, work.claim.claimed_at) - agent.silent_s
    if agent.presence.boot_id != work.claim.boot_id:
        return "the agent was started anew" if age > RESTART_S else None
    return None if listed or age <= UNLISTED_S else "the agent does not hold it any more"


def _age_s(now: datetime, then: datetime) -> float:
    """A clock that was set back makes things look as if they were to come: they are old."""
    return abs((now - then).total_seconds())


def _listed(presence: Presence) -> set[tuple[object, int]]:
    return {(held.work_id, held.attempt) for held in presence.held}
