"""What happens to an agent; that it is there is presence, not an event."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.messages import Event


class AgentInvited(Event):
    """A join token was made; the token itself is nowhere in the log."""

    type: Literal["AgentInvited"] = "AgentInvited"
    agent_id: UUID
    name: str
    token_hmac: str  # HMAC-SHA256(pepper, token), hex
    expires_at: datetime
    invited_by: str


class AgentJoined(Event):
    """Another machine used the token. It alone has the private half of the key."""

    type: Literal["AgentJoined"] = "AgentJoined"
    agent_id: UUID
    name: str
    public_key: str  # NKey of a NATS user
    invited_by: str


class AgentEnrolled(Event):
    type: Literal["AgentEnrolled"] = "AgentEnrolled"
    agent_id: UUID
    name: str
    accelerator: str
    memory_bytes: int
    methods: tuple[str, ...]


class AgentDrained(Event):
    """It finishes what it holds and is given nothing more."""

    type: Literal["AgentDrained"] = "AgentDrained"
    agent_id: UUID


class AgentRevoked(Event):
    """It is let in no more; what it holds is given to others, and an unused token is void."""

    type: Literal["AgentRevoked"] = "AgentRevoked"
    agent_id: UUID


AgentEvent = AgentInvited | AgentJoined | AgentEnrolled | AgentDrained | AgentRevoked
