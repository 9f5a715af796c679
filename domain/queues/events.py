"""What happens in the queue of a workspace: every decision of the scheduler with its reason."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from domain.messages import Event
from domain.placement import DEFAULT_POOL, DEFAULT_PRIORITY, Needs
from domain.queues.policy import QueuePolicy

WorkKind = Literal["train", "evaluate"]


class Inputs(BaseModel):
    """What a decision was made from, as far as it is not told by the events before it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    policy: int  # the number of the policy in force; 0 is the built-in one
    waiting: int  # works, the chosen one among them
    starts: int  # works that were started before this one
    overdue: bool  # whether it was chosen because it had waited too long
    priority: int
    share: int  # of its user: thousandths of a start, by weight
    running: int  # of its user, before
    agents: int  # that fit it and had a free slot
    free_slots: int  # of the chosen agent, before
    held_back: int  # works passed over because their users had all that may run at once
    unfit: int  # works passed over because no agent with a free slot fits them


class WorkQueued(Event):
    type: Literal["WorkQueued"] = "WorkQueued"
    work_id: UUID  # the job's or the evaluation's id
    kind: WorkKind
    method: str
    attempt: int
    user: str = ""
    priority: int = DEFAULT_PRIORITY
    pool: str | None = None
    needs: Needs = Needs()
    starts: int = 0  # how many works had been started when it first arrived; it ages from there


class WorkAssigned(Event):
    type: Literal["WorkAssigned"] = "WorkAssigned"
    work_id: UUID
    kind: WorkKind
    attempt: int
    agent_id: str
    reason: str
    user: str = ""
    inputs: Inputs | None = None  # None: decided before there were policies


class WorkReprioritised(Event):
    type: Literal["WorkReprioritised"] = "WorkReprioritised"
    work_id: UUID
    priority: int


class WorkWithdrawn(Event):
    """The work is over or no longer wanted."""

    type: Literal["WorkWithdrawn"] = "WorkWithdrawn"
    work_id: UUID
    reason: str


class SlotsOffered(Event):
    """From here on the scheduler counts on this agent, as it describes itself."""

    type: Literal["SlotsOffered"] = "SlotsOffered"
    agent_id: str
    name: str
    slots: int
    methods: tuple[str, ...]
    pool: str = DEFAULT_POOL
    accelerator: str
    memory_bytes: int


class SlotsWithdrawn(Event):
    """The scheduler gives this agent nothing more until it offers slots again."""

    type: Literal["SlotsWithdrawn"] = "SlotsWithdrawn"
    agent_id: str
    reason: str
    for_good: bool = False  # it was revoked


class PolicySet(Event):
    type: Literal["PolicySet"] = "PolicySet"
    number: int  # from 1
    policy: QueuePolicy


QueueEvent = (
    WorkQueued
    | WorkAssigned
    | WorkReprioritised
    | WorkWithdrawn
    | SlotsOffered
    | SlotsWithdrawn
    | PolicySet
)
