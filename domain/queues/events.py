"""What happens in the queue of a workspace: every decision of the scheduler with its reason."""

from typing import Literal
from uuid import UUID

from domain.messages import Event

WorkKind = Literal["train", "evaluate"]


class WorkQueued(Event):
    type: Literal["WorkQueued"] = "WorkQueued"
    work_id: UUID  # the job's or the evaluation's id
    kind: WorkKind
    method: str
    attempt: int


class WorkAssigned(Event):
    type: Literal["WorkAssigned"] = "WorkAssigned"
    work_id: UUID
    kind: WorkKind
    attempt: int
    agent_id: str
    reason: str


class WorkWithdrawn(Event):
    """The work is over or no longer wanted."""

    type: Literal["WorkWithdrawn"] = "WorkWithdrawn"
    work_id: UUID
    reason: str


QueueEvent = WorkQueued | WorkAssigned | WorkWithdrawn
