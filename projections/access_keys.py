"""Which API keys were issued and revoked. Not even the hash of a secret is kept here."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.access.access import holder_of
from domain.access.events import KeyIssued, KeyRevoked, Role
from domain.messages import Event, Recorded
from projections import tables
from projections.view import Key, View, types


@dataclass(frozen=True, slots=True)
class AccessKeyRow:
    workspace: str
    key_id: str
    created_sequence: int
    sequence: int
    name: str
    role: Role
    status: Literal["active", "revoked"]
    created_at: datetime
    created_by: str
    revoked_at: datetime | None
    person_id: UUID  # who holds it


def project(row: AccessKeyRow | None, recorded: Recorded[Event]) -> AccessKeyRow | None:
    match recorded.event:
        case KeyIssued() as event:
            return AccessKeyRow(
                workspace=recorded.stream.workspace,
                key_id=event.key_id,
                created_sequence=recorded.sequence,
                sequence=recorded.sequence,
                name=event.name,
                role=event.role,
                status="active",
                created_at=recorded.recorded_at,
                created_by=recorded.actor,
                revoked_at=None,
                person_id=holder_of(event, recorded.stream.workspace),
            )
        case KeyRevoked():
            return row and replace(
                row,
                sequence=recorded.sequence,
                status="revoked",
                revoked_at=recorded.recorded_at,
            )
        case _:
            return row


def _key(recorded: Recorded[Event]) -> Key | None:
    match recorded.event:
        case KeyIssued(key_id=key_id) | KeyRevoked(key_id=key_id):
            return recorded.stream.workspace, key_id
        case _:
            return None


VIEW = View(
    tables.access_key,
    AccessKeyRow,
    _key,
    project,
    wants=types(KeyIssued, KeyRevoked),
    history=tables.access_key_history,
)
