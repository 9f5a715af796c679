"""What may be asked of the queue."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.messages import Command
from domain.queues.events import WorkKind


class Enqueue(Command):
    type: Literal["Enqueue"] = "Enqueue"
    work_id: UUID
    kind: WorkKind
    method: str
    attempt: int = Field(ge=1)


class Assign(Command):
    """Give this agent the next piece of work it can do, if it has a free slot."""

    type: Literal["Assign"] = "Assign"
    agent_id: str
    agent_name: str
    slots: int = Field(ge=0)
    methods: tuple[str, ...]


class Withdraw(Command):
    type: Literal["Withdraw"] = "Withdraw"
    work_id: UUID
    reason: str


QueueCommand = Enqueue | Assign | Withdraw
