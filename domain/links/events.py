"""What happens to a link. What it consists of never enters the log: who reads the log cannot use it."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.messages import Event

Resource = Literal["dataset", "model_version"]


class LinkIssued(Event):
    """Whoever holds the link may download until then; the actor of the event is who asked for it."""

    type: Literal["LinkIssued"] = "LinkIssued"
    link_id: UUID
    resource: Resource
    resource_id: UUID
    path: str | None  # the file of a version; None for its ZIP, or for a dataset
    expires_at: datetime


LinkEvent = LinkIssued
