"""Agents on other machines over HTTP: a token for one, its use, and the end of an agent."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Controller, Request, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from uuid_utils.compat import uuid7

from domain.agents.commands import InviteAgent, JoinAgent, RevokeAgent
from domain.agents.joining import statement
from domain.messages import Command, Envelope, StreamId
from domain.subjects import GATEWAY_SOURCE
from gateway.addresses import Addresses
from gateway.administration import Agent, agent_answer, require_agent
from gateway.commanding import DECIDE_S, Caller, Commands, note_of
from gateway.fleet import Fleet
from gateway.join_tokens import agent_of, new_token, signed_by, token_hmac
from gateway.ports import CommandBus
from gateway.problems import Problem, refusal
from projections.queries import Queries

MAX_MINUTES: Final = 24 * 60
HOST: Final = "{host}"  # in the address of NATS: the host by which the gateway itself was reached

Name = Annotated[str, msgspec.Meta(max_length=100)]


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """What the machine is called unless it says otherwise, and how long the token is good."""

    name: Name = ""
    minutes: Annotated[int, msgspec.Meta(ge=1, le=MAX_MINUTES)] = 10


class JoinToken(msgspec.Struct):
    """`token` lets one machine in, once. It is shown this once."""

    agent_id: UUID
    name: str
    token: str
    expires_at: datetime
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class JoinBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who wants to join. `public_key` is an NKey of a user that the machine has made.

    `signature` shows that it has the private half: in hexadecimal, of the four lines
    `finetrail join`, token, key and name.
    """

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    public_key: Annotated[str, msgspec.Meta(pattern="^U[A-Z2-7]{55}$")]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]
    name: Name = ""


class Joined(msgspec.Struct):
    """What the machine's agent needs to know."""

    agent_id: UUID
    workspace: str
    nats_url: str
    gateway_url: str


@dataclass(frozen=True, slots=True)
class Joining:
    """Lets machines into one workspace."""

    pepper: bytes
    bus: CommandBus
    workspace: str
    nats_url: str
    public_url: str | None

    async def join(self, body: JoinBody, address: str) -> UUID:
        """Give the agent's id.

        Raises:
            Problem: The token is none of ours, or past its time, or was used by another machine.
        """
        agent_id = agent_of(self.pepper, body.token)
        said = statement(body.token, body.public_key, body.name)
        if agent_id is None or not signed_by(body.public_key, said, body.signature):
            raise Problem("join_token_invalid", "This is no join token, or the signature is wrong.")
        command = JoinAgent(
            agent_id=agent_id,
            name=body.name,
            public_key=body.public_key,
            token_hmac=token_hmac(self.pepper, body.token),
            at=datetime.now(UTC),
        )
        id_ = uuid7()
        envelope: Envelope[Command] = Envelope(
            id=id_,
            stream=StreamId(self.workspace, "agent", agent_id),
            source=GATEWAY_SOURCE,
            actor=f"agent:{agent_id}",
            correlation_id=id_,
            causation_id=None,
            sent_at=command.at,
            command=command,
            client_address=address,
        )
        outcome = await self.bus.send(envelope, timeout_s=DECIDE_S)
        if outcome.status not in {"recorded", "unchanged"}:
            raise refusal(outcome)
        return agent_id

    def answer(self, agent_id: UUID, request: Request[None, Any, Any]) -> Joined:
        base = request.base_url
        return Joined(
            agent_id=agent_id,
            workspace=self.workspace,
            nats_url=self.nats_url.replace(HOST, base.hostname or "127.0.0.1"),
            gateway_url=(self.public_url or str(base)).rstrip("/"),
        )


class JoiningController(Controller):
    path = "/agents"
    tags = ("agents",)

    @post("/join-tokens", status_code=201)
    async def make_token(
        self,
        data: JSONBody[TokenBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        joining: NamedDependency[Joining],
    ) -> JoinToken:
        """Make a token with which one machine joins: `finetrail agent join URL TOKEN`."""
        agent_id = caller.resource_id
        token = new_token(joining.pepper, agent_id)
        command = InviteAgent(
            agent_id=agent_id,
            name=data.name,
            token_hmac=token_hmac(joining.pepper, token),
            expires_at=datetime.now(UTC) + timedelta(minutes=data.minutes),
            invited_by=caller.principal.actor,
        )
        done = await commands.send(caller, "agent", agent_id, command)
        name, expires_at = command.name, command.expires_at
        if done.readable:  # a repeated request finds the token as it was made
            row = await require_agent(queries, joining.workspace, agent_id)
            name, expires_at = row.name, row.expires_at or expires_at
        return JoinToken(
            agent_id=agent_id,
            name=name,
            token=token,
            expires_at=expires_at,
            sequence=done.sequence,
            note=note_of(done),
        )

    @post("/join", status_code=200)
    async def join(
        self,
        request: Request[None, Any, Any],
        data: JSONBody[JoinBody],
        joining: NamedDependency[Joining],
        addresses: NamedDependency[Addresses],
    ) -> Joined:
        """Become an agent. No key is asked for: the token is enough, once.

        The same machine may ask again with the same token and key, and is told the same.
        """
        return joining.answer(await joining.join(data, addresses.of(request)), request)

    @post("/{agent_id:uuid}/revoke", status_code=202)
    async def revoke(
        self,
        agent_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        fleet: NamedDependency[Fleet],
        workspace: NamedDependency[str],
    ) -> Agent:
        """Let it in no more, for good. What it holds is given to others; an unused token is void."""
        done = await commands.send(caller, "agent", agent_id, RevokeAgent(agent_id=agent_id))
        return agent_answer(await require_agent(queries, workspace, agent_id), fleet, done)
