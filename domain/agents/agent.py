"""The rules of an agent: invited and joined where it is another machine's, enrolled, perhaps drained, revoked for good."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from domain.agents.commands import (
    AgentCommand,
    DrainAgent,
    EnrolAgent,
    InviteAgent,
    JoinAgent,
    RevokeAgent,
)
from domain.agents.events import (
    AgentDrained,
    AgentEnrolled,
    AgentEvent,
    AgentInvited,
    AgentJoined,
    AgentRevoked,
)
from domain.errors import NotFound, Rejected
from domain.messages import Decider


class AgentIsRevoked(Rejected):
    """A revoked agent does not come back; enrol another."""

    code = "agent_revoked"


class AgentExists(Rejected):
    """An agent with this id was invited or enrolled before."""

    code = "agent_exists"


class JoinTokenInvalid(Rejected):
    """No such token was made, or it is cut or mistyped."""

    code = "join_token_invalid"


class JoinTokenExpired(Rejected):
    """The token's time is over; make another."""

    code = "join_token_expired"


class JoinTokenUsed(Rejected):
    """Another machine has joined with this token; each needs one of its own."""

    code = "join_token_used"


@dataclass(frozen=True, slots=True)
class Absent:
    """Never seen."""


@dataclass(frozen=True, slots=True)
class Invited:
    """A token was made, and nobody has used it."""

    invited: AgentInvited


@dataclass(frozen=True, slots=True)
class Known:
    enrolled: AgentEnrolled | None  # None: has joined and was never started, or was revoked first
    status: Literal["active", "draining", "revoked"] = "active"
    invited: AgentInvited | None = None  # None: an agent of the stack's own machine
    joined: AgentJoined | None = None


Agent = Absent | Invited | Known


def decide(command: AgentCommand, agent: Agent) -> Sequence[AgentEvent]:
    match command:
        case InviteAgent():
            return _invite(command, agent)
        case JoinAgent():
            return _join(command, agent)
        case EnrolAgent():
            return _enrol(command, agent)
        case DrainAgent():
            if not isinstance(agent, Known):
                raise NotFound(f"there is no agent {command.agent_id}")
            active = agent.status == "active"
            return [AgentDrained(agent_id=command.agent_id)] if active else []
        case RevokeAgent():
            if isinstance(agent, Absent):
                raise NotFound(f"there is no agent {command.agent_id}")
            known = isinstance(agent, Known) and agent.status == "revoked"
            return [] if known else [AgentRevoked(agent_id=command.agent_id)]
        case _:
            assert_never(command)


def evolve(agent: Agent, event: AgentEvent) -> Agent:
    match event, agent:
        case AgentInvited(), _:
            return Invited(event)
        case AgentJoined(), Invited(invited):
            return Known(None, invited=invited, joined=event)
        case AgentEnrolled(), Known():
            return replace(agent, enrolled=event)
        case AgentEnrolled(), Absent():
            return Known(event)
        case AgentDrained(), Known():
            return replace(agent, status="draining")
        case AgentRevoked(), Known():
            return replace(agent, status="revoked")
        case AgentRevoked(), Invited(invited):
            return Known(None, "revoked", invited)
        case _:
            return agent


def _invite(command: InviteAgent, agent: Agent) -> Sequence[AgentEvent]:
    if not isinstance(agent, Absent):
        raise AgentExists(f"agent {command.agent_id} was there before")
    return [AgentInvited(**command.model_dump(exclude={"type"}))]


def _join(command: JoinAgent, agent: Agent) -> Sequence[AgentEvent]:
    """The same machine may ask again, for the answer may have been lost."""
    invited = None if isinstance(agent, Absent) else agent.invited
    if invited is None or invited.token_hmac != command.token_hmac:
        raise JoinTokenInvalid("no such join token was made, or it was cut or mistyped")
    if isinstance(agent, Known):
        if agent.status == "revoked":
            raise AgentIsRevoked(f"agent {command.agent_id} is revoked")
        if agent.joined and agent.joined.public_key == command.public_key:
            return []
        raise JoinTokenUsed("another machine has joined with this token; make one for each machine")
    if command.at >= invited.expires_at:
        raise JoinTokenExpired("the join token's time is over; make another")
    return [
        AgentJoined(
            agent_id=command.agent_id,
            name=command.name or invited.name,
            public_key=command.public_key,
            invited_by=invited.invited_by,
        )
    ]


def _enrol(command: EnrolAgent, agent: Agent) -> Sequence[AgentEvent]:
    enrolled = AgentEnrolled(**command.model_dump(exclude={"type"}))
    match agent:
        case Known(status="revoked"):
            raise AgentIsRevoked(f"agent {command.agent_id} is revoked")
        case Invited():
            raise NotFound(f"agent {command.agent_id} has not joined")
        case Known(enrolled=known) if known == enrolled:
            return []  # started anew; a drained agent stays drained
        case _:
            return [enrolled]


decider: Decider[AgentCommand, Agent, AgentEvent] = Decider(Absent(), decide, evolve)
