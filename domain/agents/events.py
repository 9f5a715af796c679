"""What happens to an agent; that it is there is presence, not an event."""

from typing import Literal
from uuid import UUID

from domain.messages import Event


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
    type: Literal["AgentRevoked"] = "AgentRevoked"
    agent_id: UUID


AgentEvent = AgentEnrolled | AgentDrained | AgentRevoked
