"""The rules of an agent."""

from typing import Any

from domain.agents.agent import AgentIsRevoked, Known, decider
from domain.agents.commands import DrainAgent, EnrolAgent, RevokeAgent
from domain.agents.events import AgentDrained, AgentEnrolled, AgentRevoked
from domain.errors import NotFound
from tests.samples import AGENT, METHOD
from tests.spec import Spec

agent = Spec(decider)


def enrol(**changes: Any) -> EnrolAgent:
    facts: dict[str, Any] = {
        "agent_id": AGENT,
        "name": "box",
        "accelerator": "cpu",
        "memory_bytes": 8,
        "methods": (METHOD,),
    }
    return EnrolAgent(**facts | changes)


enrolled = AgentEnrolled(**enrol().model_dump(exclude={"type"}))
drain, drained = DrainAgent(agent_id=AGENT), AgentDrained(agent_id=AGENT)
revoke, revoked = RevokeAgent(agent_id=AGENT), AgentRevoked(agent_id=AGENT)


def test_an_agent_enrols_when_it_is_new_or_has_changed() -> None:
    agent.when(enrol()).then(enrolled)
    agent.given(enrolled).when(enrol()).then_nothing()
    agent.given(enrolled).when(enrol(memory_bytes=16)).then(
        enrolled.model_copy(update={"memory_bytes": 16})
    )


def test_a_drained_agent_stays_drained_when_it_is_started_anew() -> None:
    changed = enrolled.model_copy(update={"memory_bytes": 16})

    agent.given(enrolled, drained, changed).then_state(Known(changed, "draining"))


def test_draining_and_revoking_may_be_asked_twice() -> None:
    agent.given(enrolled).when(drain).then(drained)
    agent.given(enrolled, drained).when(drain).then_nothing()
    agent.given(enrolled, drained).when(revoke).then(revoked)
    agent.given(enrolled, revoked).when(revoke).then_nothing()
    agent.given(enrolled, revoked).when(drain).then_nothing()


def test_a_revoked_agent_does_not_come_back() -> None:
    agent.given(enrolled, revoked).when(enrol()).then_rejected(AgentIsRevoked)
    agent.given(enrolled, revoked).when(enrol(name="other")).then_rejected(AgentIsRevoked)


def test_an_agent_that_never_enrolled_is_not_found() -> None:
    agent.when(drain).then_rejected(NotFound)
    agent.when(revoke).then_rejected(NotFound)
