"""What may be asked of a webhook."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from domain.messages import Command
from domain.webhooks.events import DisabledBy

MAX_URL = 2000  # characters
MAX_TEXT = 500  # of a description or a reason
MAX_TYPES = 100

Subscription = Annotated[str, Field(pattern=r"^[a-z_]{1,40}\.(?:[a-z_]{1,60}|\*)$")]
EventTypes = Annotated[tuple[Subscription, ...], Field(min_length=1, max_length=MAX_TYPES)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=MAX_URL)]
KeptId = Annotated[str, Field(pattern=r"^(?:key|url)_[0-9a-f]{16}$")]


class AddWebhook(Command):
    type: Literal["AddWebhook"] = "AddWebhook"
    webhook_id: UUID
    url: Url
    url_id: KeptId
    event_types: EventTypes | None = None
    description: str = Field(default="", max_length=MAX_TEXT)
    key_id: KeptId


class ChangeWebhook(Command):
    """What is left out stays as it is; ``all_types`` takes the choice of types away."""

    type: Literal["ChangeWebhook"] = "ChangeWebhook"
    webhook_id: UUID
    url: Url | None = None
    url_id: KeptId | None = None
    event_types: EventTypes | None = None
    all_types: bool = False
    description: str | None = Field(default=None, max_length=MAX_TEXT)


class DisableWebhook(Command):
    type: Literal["DisableWebhook"] = "DisableWebhook"
    webhook_id: UUID
    by: DisabledBy = "person"
    reason: str = Field(default="", max_length=MAX_TEXT)


class EnableWebhook(Command):
    type: Literal["EnableWebhook"] = "EnableWebhook"
    webhook_id: UUID


class RotateWebhookSecret(Command):
    type: Literal["RotateWebhookSecret"] = "RotateWebhookSecret"
    webhook_id: UUID
    key_id: KeptId
    old_valid_until: datetime


class ReplayWebhook(Command):
    type: Literal["ReplayWebhook"] = "ReplayWebhook"
    webhook_id: UUID
    after: int = Field(ge=0, lt=2**63)


class RemoveWebhook(Command):
    type: Literal["RemoveWebhook"] = "RemoveWebhook"
    webhook_id: UUID


WebhookCommand = (
    AddWebhook
    | ChangeWebhook
    | DisableWebhook
    | EnableWebhook
    | RotateWebhookSecret
    | ReplayWebhook
    | RemoveWebhook
)
