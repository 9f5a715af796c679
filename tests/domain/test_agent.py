"""The rules of an agent."""

from datetime import UTC, datetime, timedelta
from typing import Any

from domain.agents.agent import (
    AgentExists,
    AgentIsRevoked,
    JoinTokenExpired,
    JoinTokenInvalid,
    JoinTokenUsed,
    Known,
    decider,
)
from domain.agents.commands import DrainAgent, EnrolAgent, InviteAgent, JoinAgent, RevokeAgent
from domain.agents.events import (
    AgentDrained,
    AgentEnrolled,
    AgentInvited,
    AgentJoined,
    AgentRevoked,
)
from domain.errors import NotFound
from tests.samples import AGENT, METHOD
from tests.spec import Spec

agent = Spec(decider)
UNTIL = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY, OTHER_KEY = "U" + "A" * 55, "U" + "B" * 55


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


invite = InviteAgent(
    agent_id=AGENT, name="box", token_hmac="a" * 64, expires_at=UNTIL, invited_by="key:Ab3dEf7h"
)
invited = AgentInvited(**invite.model_dump(exclude={"type"}))
joined = AgentJoined(agent_id=AGENT, name="box", public_key=KEY, invited_by="key:Ab3dEf7h")


def join(**changes: Any) -> JoinAgent:
    facts: dict[str, Any] = {
        "agent_id": AGENT,
        "name": "",
        "public_key": KEY,
        "token_hmac": "a" * 64,
        "at": UNTIL - timedelta(seconds=1),
    }
    return JoinAgent(**facts | changes)


def test_a_machine_joins_with_its_token_once_and_may_repeat_itself() -> None:
    agent.when(invite).then(invited)
    agent.given(invited).when(join()).then(joined)
    agent.given(invited, joined).when(join(at=UNTIL)).then_nothing()
    agent.given(invited, joined).when(join(public_key=OTHER_KEY)).then_rejected(JoinTokenUsed)
    agent.given(invited).when(join(name="own")).then(joined.model_copy(update={"name": "own"}))


def test_a_token_that_is_wrong_late_or_void_lets_nobody_in() -> None:
    agent.when(join()).then_rejected(JoinTokenInvalid)
    agent.given(enrolled).when(join()).then_rejected(JoinTokenInvalid)
    agent.given(invited).when(join(token_hmac="b" * 64)).then_rejected(JoinTokenInvalid)
    agent.given(invited).when(join(at=UNTIL)).then_rejected(JoinTokenExpired)
    agent.given(invited, revoked).when(join()).then_rejected(AgentIsRevoked)
    agent.given(invited, joined, revoked).when(join()).then_rejected(AgentIsRevoked)


def test_an_invited_machine_enrols_only_after_it_has_joined() -> None:
    agent.given(invited).when(enrol()).then_rejected(NotFound)
    agent.given(invited).when(drain).then_rejected(NotFound)
    agent.given(invited, joined).when(enrol()).then(enrolled)
    agent.given(invited, joined, enrolled).then_state(
        Known(enrolled, "active", invited, joined),
    )
    agent.given(invited, joined, revoked).when(enrol()).then_rejected(AgentIsRevoked)


def test_an_id_is_given_away_once() -> None:
    agent.given(enrolled).when(invite).then_rejected(AgentExists)
    agent.given(invited, revoked).when(invite).then_rejected(AgentExists)
