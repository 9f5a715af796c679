"""What may be asked of a link."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.links.events import Resource
from domain.messages import Command


class IssueLink(Command):
    type: Literal["IssueLink"] = "IssueLink"
    link_id: UUID
    resource: Resource
    resource_id: UUID
    path: str | None = None
    expires_at: datetime


LinkCommand = IssueLink
