"""What may be asked of an agent."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from domain.messages import Command

AgentName = Annotated[str, Field(max_length=100)]
KeyedHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# An NKey of a user: its kind, then base32.
PublicKey = Annotated[str, Field(pattern=r"^U[A-Z2-7]{55}$")]


class InviteAgent(Command):
    """Make a place for one machine; whoever brings the token until then may take it."""

    type: Literal["InviteAgent"] = "InviteAgent"
    agent_id: UUID
    name: AgentName = ""
    token_hmac: KeyedHash
    expires_at: datetime
    invited_by: str


class JoinAgent(Command):
    """Take the place; the gateway has checked that the sender has the private key."""

    type: Literal["JoinAgent"] = "JoinAgent"
    agent_id: UUID
    name: AgentName
    public_key: PublicKey
    token_hmac: KeyedHash
    at: datetime


class EnrolAgent(Command):
    """Sent by the agent itself at its start; only for the id that its permission pins."""

    type: Literal["EnrolAgent"] = "EnrolAgent"
    agent_id: UUID
    name: str
    accelerator: str
    memory_bytes: int
    methods: tuple[str, ...]


class DrainAgent(Command):
    type: Literal["DrainAgent"] = "DrainAgent"
    agent_id: UUID


class RevokeAgent(Command):
    type: Literal["RevokeAgent"] = "RevokeAgent"
    agent_id: UUID


AgentCommand = InviteAgent | JoinAgent | EnrolAgent | DrainAgent | RevokeAgent
