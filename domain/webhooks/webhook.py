"""The rules of a webhook, and what whoever delivers to it must know."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never
from uuid import UUID

from domain.errors import NotFound, Rejected
from domain.messages import Decider
from domain.webhooks.commands import (
    AddWebhook,
    ChangeWebhook,
    DisableWebhook,
    EnableWebhook,
    RemoveWebhook,
    ReplayWebhook,
    RotateWebhookSecret,
    WebhookCommand,
)
from domain.webhooks.events import (
    WebhookAdded,
    WebhookChanged,
    WebhookDisabled,
    WebhookEnabled,
    WebhookEvent,
    WebhookRemoved,
    WebhookReplayed,
    WebhookSecretRotated,
)


class WebhookExists(Rejected):
    """A webhook with this id was added before, by another command."""

    code = "webhook_exists"


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody has added it."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    id: str
    valid_until: datetime | None = None  # None for the one that is in force


@dataclass(frozen=True, slots=True)
class Present:
    webhook_id: UUID
    url: str
    url_id: str
    event_types: tuple[str, ...] | None
    description: str
    keys: tuple[SigningKey, ...]  # newest first
    enabled: bool = True

    def keys_at(self, now: datetime) -> tuple[str, ...]:
        """Ids of the secrets that sign now, the one in force first."""
        return tuple(
            key.id for key in self.keys if key.valid_until is None or now < key.valid_until
        )


@dataclass(frozen=True, slots=True)
class Removed:
    """It is told nothing any more, and its id is not used again."""


Webhook = Absent | Present | Removed


def decide(command: WebhookCommand, webhook: Webhook) -> Sequence[WebhookEvent]:
    match command, webhook:
        case AddWebhook(), Absent():
            return [WebhookAdded(**command.model_dump(exclude={"type"}))]
        case AddWebhook(), _:
            raise WebhookExists(f"webhook {command.webhook_id} was added before")
        case _, Present():
            return _decided(command, webhook)
        case ((RemoveWebhook() | DisableWebhook()), Removed()):
            return []
        case _:
            raise NotFound(f"there is no webhook {command.webhook_id}")


def _decided(
    command: ChangeWebhook
    | DisableWebhook
    | EnableWebhook
    | RotateWebhookSecret
    | ReplayWebhook
    | RemoveWebhook,
    webhook: Present,
) -> Sequence[WebhookEvent]:
    match command:
        case ChangeWebhook():
            return _changed(command, webhook)
        case DisableWebhook():
            disabled = WebhookDisabled(**command.model_dump(exclude={"type"}))
            return [disabled] if webhook.enabled else []
        case EnableWebhook():
            return [] if webhook.enabled else [WebhookEnabled(webhook_id=command.webhook_id)]
        case RotateWebhookSecret():
            return [_rotated(command, webhook)]
        case ReplayWebhook():
            return [WebhookReplayed(webhook_id=command.webhook_id, after=command.after)]
        case RemoveWebhook():
            return [WebhookRemoved(webhook_id=command.webhook_id)]
        case _:
            assert_never(command)


def evolve(webhook: Webhook, event: WebhookEvent) -> Webhook:
    match event:
        case WebhookAdded():
            return Present(
                webhook_id=event.webhook_id,
                url=event.url,
                url_id=event.url_id,
                event_types=event.event_types,
                description=event.description,
                keys=(SigningKey(event.key_id),),
            )
        case WebhookRemoved():
            return Removed()
        case _:
            return _evolved(webhook, event) if isinstance(webhook, Present) else webhook


def _evolved(
    webhook: Present,
    event: WebhookChanged
    | WebhookDisabled
    | WebhookEnabled
    | WebhookSecretRotated
    | WebhookReplayed,
) -> Present:
    match event:
        case WebhookChanged():
            return replace(
                webhook,
                url=event.url,
                url_id=event.url_id,
                event_types=event.event_types,
                description=event.description,
            )
        case WebhookDisabled():
            return replace(webhook, enabled=False)
        case WebhookEnabled():
            return replace(webhook, enabled=True)
        case WebhookSecretRotated():
            older = tuple(
                replace(key, valid_until=event.old_valid_until) if key.valid_until is None else key
                for key in webhook.keys
            )
            return replace(webhook, keys=(SigningKey(event.key_id), *older))
        case WebhookReplayed():
            return webhook
        case _:
            assert_never(event)


def _changed(command: ChangeWebhook, webhook: Present) -> Sequence[WebhookEvent]:
    chosen = command.event_types or (None if command.all_types else webhook.event_types)
    moved = command.url is not None and command.url_id is not None
    event = WebhookChanged(
        webhook_id=command.webhook_id,
        url=command.url if moved and command.url is not None else webhook.url,
        url_id=command.url_id if moved and command.url_id is not None else webhook.url_id,
        event_types=chosen,
        description=(webhook.description if command.description is None else command.description),
    )
    return [] if evolve(webhook, event) == webhook else [event]


def _rotated(command: RotateWebhookSecret, webhook: Present) -> WebhookSecretRotated:
    return WebhookSecretRotated(
        webhook_id=command.webhook_id,
        key_id=command.key_id,
        old_key_id=webhook.keys[0].id,
        old_valid_until=command.old_valid_until,
    )


decider: Decider[WebhookCommand, Webhook, WebhookEvent] = Decider(Absent(), decide, evolve)
