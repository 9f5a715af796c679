"""What may be asked of the queue."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.messages import Command
from domain.placement import DEFAULT_POOL, DEFAULT_PRIORITY, Needs, Pool, Priority
from domain.queues.events import WorkKind
from domain.queues.policy import QueuePolicy


class Enqueue(Command):
    """A next attempt keeps its place, its user and its priority, whatever is said of them here."""

    type: Literal["Enqueue"] = "Enqueue"
    work_id: UUID
    kind: WorkKind
    method: str
    attempt: int = Field(ge=1)
    user: str = ""
    priority: Priority = DEFAULT_PRIORITY
    pool: Pool | None = None
    needs: Needs = Needs()


class Assign(Command):
    """Give the work whose turn it is to the agent that suits it best, if any can take any."""

    type: Literal["Assign"] = "Assign"


class Reprioritise(Command):
    type: Literal["Reprioritise"] = "Reprioritise"
    work_id: UUID
    priority: Priority


class Withdraw(Command):
    type: Literal["Withdraw"] = "Withdraw"
    work_id: UUID
    reason: str


class OfferSlots(Command):
    """An agent that may be given work has said what it is."""

    type: Literal["OfferSlots"] = "OfferSlots"
    agent_id: str
    name: str
    slots: int = Field(ge=0)
    methods: tuple[str, ...]
    pool: Pool = DEFAULT_POOL
    accelerator: str
    memory_bytes: int


class WithdrawSlots(Command):
    type: Literal["WithdrawSlots"] = "WithdrawSlots"
    agent_id: str
    reason: str
    for_good: bool = False


class SetPolicy(Command):
    type: Literal["SetPolicy"] = "SetPolicy"
    policy: QueuePolicy


QueueCommand = Enqueue | Assign | Reprioritise | Withdraw | OfferSlots | WithdrawSlots | SetPolicy
