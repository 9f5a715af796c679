"""What may be asked of an agent."""

from typing import Literal
from uuid import UUID

from domain.messages import Command


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


AgentCommand = EnrolAgent | DrainAgent | RevokeAgent
