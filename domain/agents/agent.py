"""The rules of an agent: enrolled, perhaps drained, revoked for good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from domain.agents.commands import AgentCommand, DrainAgent, EnrolAgent, RevokeAgent
from domain.agents.events import AgentDrained, AgentEnrolled, AgentEvent, AgentRevoked
from domain.errors import NotFound, Rejected
from domain.messages import Decider


class AgentIsRevoked(Rejected):
    """A revoked agent does not come back; enrol another."""

    code = "agent_revoked"


@dataclass(frozen=True, slots=True)
class Absent:
    """Never seen."""


@dataclass(frozen=True, slots=True)
class Known:
    enrolled: AgentEnrolled
    status: Literal["active", "draining", "revoked"] = "active"


Agent = Absent | Known


def decide(command: AgentCommand, agent: Agent) -> Sequence[AgentEvent]:
    if isinstance(command, EnrolAgent):
        return _enrol(command, agent)
    if isinstance(agent, Absent):
        raise NotFound(f"there is no agent {command.agent_id}")
    match command:
        case DrainAgent():
            active = agent.status == "active"
            return [AgentDrained(agent_id=command.agent_id)] if active else []
        case RevokeAgent():
            known = agent.status == "revoked"
            return [] if known else [AgentRevoked(agent_id=command.agent_id)]
        case _:
            assert_never(command)


def evolve(agent: Agent, event: AgentEvent) -> Agent:
    match event, agent:
        case AgentEnrolled(), Known():
            return Known(event, agent.status)
        case AgentEnrolled(), Absent():
            return Known(event)
        case AgentDrained(), Known():
            return Known(agent.enrolled, "draining")
        case AgentRevoked(), Known():
            return Known(agent.enrolled, "revoked")
        case _:
            return agent


def _enrol(command: EnrolAgent, agent: Agent) -> Sequence[AgentEvent]:
    enrolled = AgentEnrolled(**command.model_dump(exclude={"type"}))
    match agent:
        case Known(status="revoked"):
            raise AgentIsRevoked(f"agent {command.agent_id} is revoked")
        case Known(enrolled=known) if known == enrolled:
            return []  # started anew; a drained agent stays drained
        case _:
            return [enrolled]


decider: Decider[AgentCommand, Agent, AgentEvent] = Decider(Absent(), decide, evolve)
