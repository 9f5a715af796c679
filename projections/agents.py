"""Which agents were invited, have joined and were enrolled; whether one is there is presence, not a row."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.agents.events import (
    AgentDrained,
    AgentEnrolled,
    AgentInvited,
    AgentJoined,
    AgentRevoked,
)
from domain.messages import Event, Recorded
from projections import tables
from projections.view import Key, View, events_of, stream_key


@dataclass(frozen=True, slots=True)
class AgentRow:
    workspace: str
    id: UUID
    created_sequence: int
    sequence: int
    name: str
    status: Literal["invited", "joined", "active", "draining", "revoked"]
    accelerator: str  # empty until it was started, like what follows
    memory_bytes: int
    methods: list[str]
    created_at: datetime
    invited_by: str | None  # None: an agent of the stack's own machine
    expires_at: datetime | None  # of the invitation
    joined_at: datetime | None


def project(row: AgentRow | None, recorded: Recorded[Event]) -> AgentRow | None:
    event, sequence = recorded.event, recorded.sequence
    if isinstance(event, AgentInvited):
        return _invited(event, recorded)
    if isinstance(event, AgentEnrolled):
        return _enrolled(row, event, recorded)
    if row is None:
        return None
    match event:
        case AgentJoined():
            at = recorded.recorded_at
            return replace(row, sequence=sequence, status="joined", name=event.name, joined_at=at)
        case AgentDrained():
            return replace(row, sequence=sequence, status="draining")
        case AgentRevoked():
            return replace(row, sequence=sequence, status="revoked")
        case _:
            return row


def _key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if recorded.stream.aggregate == "agent" else None


def _invited(event: AgentInvited, recorded: Recorded[Event]) -> AgentRow:
    return AgentRow(
        workspace=recorded.stream.workspace,
        id=event.agent_id,
        created_sequence=recorded.sequence,
        sequence=recorded.sequence,
        name=event.name,
        status="invited",
        accelerator="",
        memory_bytes=0,
        methods=[],
        created_at=recorded.recorded_at,
        invited_by=event.invited_by,
        expires_at=event.expires_at,
        joined_at=None,
    )


def _enrolled(row: AgentRow | None, event: AgentEnrolled, recorded: Recorded[Event]) -> AgentRow:
    """Enrolled again it has other properties, but stays drained if it was."""
    return AgentRow(
        workspace=recorded.stream.workspace,
        id=event.agent_id,
        created_sequence=row.created_sequence if row else recorded.sequence,
        sequence=recorded.sequence,
        name=event.name,
        status=row.status if row and row.status in {"draining", "revoked"} else "active",
        accelerator=event.accelerator,
        memory_bytes=event.memory_bytes,
        methods=list(event.methods),
        created_at=row.created_at if row else recorded.recorded_at,
        invited_by=row.invited_by if row else None,
        expires_at=row.expires_at if row else None,
        joined_at=row.joined_at if row else None,
    )


VIEW = View(
    tables.agent, AgentRow, _key, project, wants=events_of("agent"), history=tables.agent_history
)
