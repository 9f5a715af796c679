"""What happens to a webhook. Its secrets, and an address that holds one, never enter the log."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.messages import Event

DisabledBy = Literal["person", "gone"]  # `gone`: the receiver has answered 410


class WebhookAdded(Event):
    type: Literal["WebhookAdded"] = "WebhookAdded"
    webhook_id: UUID
    url: str  # as it may be shown: user, password and the values of its query are left out
    url_id: str  # under which the whole address is kept beside the log
    event_types: tuple[str, ...] | None  # None for all
    description: str
    key_id: str  # tells which secret signs; it says nothing about the secret itself


class WebhookChanged(Event):
    """As it is from now on."""

    type: Literal["WebhookChanged"] = "WebhookChanged"
    webhook_id: UUID
    url: str
    url_id: str
    event_types: tuple[str, ...] | None
    description: str


class WebhookDisabled(Event):
    """Nothing is delivered until it is enabled again; what happens meanwhile waits for it."""

    type: Literal["WebhookDisabled"] = "WebhookDisabled"
    webhook_id: UUID
    by: DisabledBy
    reason: str


class WebhookEnabled(Event):
    type: Literal["WebhookEnabled"] = "WebhookEnabled"
    webhook_id: UUID


class WebhookSecretRotated(Event):
    """Both secrets sign until the old one's time is up."""

    type: Literal["WebhookSecretRotated"] = "WebhookSecretRotated"
    webhook_id: UUID
    key_id: str
    old_key_id: str
    old_valid_until: datetime


class WebhookReplayed(Event):
    """Everything behind a position of the log is to be delivered, whether it was before or not."""

    type: Literal["WebhookReplayed"] = "WebhookReplayed"
    webhook_id: UUID
    after: int  # sequence of the log


class WebhookRemoved(Event):
    type: Literal["WebhookRemoved"] = "WebhookRemoved"
    webhook_id: UUID


WebhookEvent = (
    WebhookAdded
    | WebhookChanged
    | WebhookDisabled
    | WebhookEnabled
    | WebhookSecretRotated
    | WebhookReplayed
    | WebhookRemoved
)
