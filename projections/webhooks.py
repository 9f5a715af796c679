"""Webhooks as they are. Addresses are as they may be shown, and of secrets there are only their ids."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from domain.messages import Event, Recorded
from domain.webhooks.events import (
    WebhookAdded,
    WebhookChanged,
    WebhookDisabled,
    WebhookEnabled,
    WebhookRemoved,
    WebhookSecretRotated,
)
from projections import tables
from projections.view import Key, View, events_of, stream_key


@dataclass(frozen=True, slots=True)
class WebhookRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    url: str
    url_id: str
    event_types: list[str] | None
    description: str
    status: Literal["enabled", "disabled", "removed"]
    disabled_by: Literal["person", "gone"] | None
    reason: str | None
    key_id: str
    old_key_id: str | None
    old_key_valid_until: datetime | None
    created_at: datetime
    created_by: str


def project(row: WebhookRow | None, recorded: Recorded[Event]) -> WebhookRow | None:
    event = recorded.event
    if isinstance(event, WebhookAdded):
        return _added(recorded, event)
    if row is None:
        return None
    return replace(row, sequence=recorded.sequence, **_changes(event))


def _changes(event: Event) -> dict[str, Any]:
    match event:
        case WebhookChanged():
            return {
                "url": event.url,
                "url_id": event.url_id,
                "event_types": None if event.event_types is None else list(event.event_types),
                "description": event.description,
            }
        case WebhookDisabled():
            return {"status": "disabled", "disabled_by": event.by, "reason": event.reason}
        case WebhookEnabled():
            return {"status": "enabled", "disabled_by": None, "reason": None}
        case WebhookSecretRotated():
            return {
                "key_id": event.key_id,
                "old_key_id": event.old_key_id,
                "old_key_valid_until": event.old_valid_until,
            }
        case WebhookRemoved():
            return {"status": "removed"}
        case _:
            return {}


def _added(recorded: Recorded[Event], event: WebhookAdded) -> WebhookRow:
    return WebhookRow(
        workspace=recorded.stream.workspace,
        id=event.webhook_id,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        url=event.url,
        url_id=event.url_id,
        event_types=None if event.event_types is None else list(event.event_types),
        description=event.description,
        status="enabled",
        disabled_by=None,
        reason=None,
        key_id=event.key_id,
        old_key_id=None,
        old_key_valid_until=None,
        created_at=recorded.recorded_at,
        created_by=recorded.actor,
    )


def _key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if recorded.stream.aggregate == "webhook" else None


VIEW = View(
    tables.webhook,
    WebhookRow,
    _key,
    project,
    wants=events_of("webhook"),
    history=tables.webhook_history,
)
