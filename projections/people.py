"""Who the log speaks of: people that were added, and those who only hold a key. Names stay sealed here."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.access.access import holder_of
from domain.access.events import KeyIssued
from domain.messages import Event, Recorded
from domain.people.events import PersonAdded, PersonForgotten
from projections import tables
from projections.view import Key, View, types


@dataclass(frozen=True, slots=True)
class PersonRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    name: str | None  # sealed; None of somebody who only holds a key
    status: Literal["remembered", "forgotten"]
    created_at: datetime
    created_by: str
    forgotten_at: datetime | None
    forgotten_by: str | None
    reason: str | None


def project(row: PersonRow | None, recorded: Recorded[Event]) -> PersonRow | None:
    match recorded.event:
        case PersonAdded(name=name):
            return replace(row or _first(recorded), sequence=recorded.sequence, name=name)
        case KeyIssued():
            return row or _first(recorded)
        case PersonForgotten(reason=reason):
            return replace(
                row or _first(recorded),
                sequence=recorded.sequence,
                status="forgotten",
                forgotten_at=recorded.recorded_at,
                forgotten_by=recorded.actor,
                reason=reason,
            )
        case _:
            return row


def _first(recorded: Recorded[Event]) -> PersonRow:
    workspace, id_ = _person(recorded)
    return PersonRow(
        workspace=workspace,
        id=id_,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        name=None,
        status="remembered",
        created_at=recorded.recorded_at,
        created_by=recorded.actor,
        forgotten_at=None,
        forgotten_by=None,
        reason=None,
    )


def _person(recorded: Recorded[Event]) -> tuple[str, UUID]:
    workspace, event = recorded.stream.workspace, recorded.event
    person = holder_of(event, workspace) if isinstance(event, KeyIssued) else recorded.stream.id
    return workspace, person


def _key(recorded: Recorded[Event]) -> Key | None:
    if isinstance(recorded.event, KeyIssued | PersonAdded | PersonForgotten):
        return _person(recorded)
    return None


VIEW = View(
    tables.person,
    PersonRow,
    _key,
    project,
    wants=types(KeyIssued, PersonAdded, PersonForgotten),
    history=tables.person_history,
)
