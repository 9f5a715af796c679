"""Policy, shares and agents of the queue: what decisions depend on beside the work itself."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.messages import Event, Recorded
from domain.queues.events import (
    PolicySet,
    QueueEvent,
    SlotsOffered,
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
)
from domain.queues.policy import QueuePolicy
from domain.queues.queue import ledger_after
from domain.queues.state import Agent, Ledger, Recent
from projections import tables
from projections.view import Key, View, events_of, stream_key


@dataclass(frozen=True, slots=True)
class QueueLedgerRow:
    workspace: str
    id: UUID
    sequence: int  # of the queue's last event
    policy: dict[str, Any]  # domain.queues.policy.QueuePolicy
    number: int
    starts: int
    epoch: int
    since: int
    recent: dict[str, list[int]]  # by user: domain.queues.state.Recent
    agents: dict[str, dict[str, Any]]  # by id: domain.queues.state.Agent
    policy_sequence: int  # 0 while the built-in one is in force
    policy_set_at: datetime | None
    policy_set_by: str | None

    def ledger(self) -> Ledger:
        """As the rules of the queue know it."""
        return Ledger(
            policy=QueuePolicy.model_validate(self.policy),
            number=self.number,
            starts=self.starts,
            epoch=self.epoch,
            since=self.since,
            recent={user: Recent(*counted) for user, counted in self.recent.items()},
            agents={id_: _agent(told) for id_, told in self.agents.items()},
        )


def project(row: QueueLedgerRow | None, recorded: Recorded[Event]) -> QueueLedgerRow | None:
    event: QueueEvent = recorded.event  # type: ignore[assignment]  # the key lets no other through
    if row is None and not isinstance(event, WorkQueued | SlotsOffered | PolicySet):
        return None
    before = row or _born(recorded)
    if isinstance(event, WorkQueued | WorkReprioritised | WorkWithdrawn):
        return replace(before, sequence=recorded.sequence)
    ledger = ledger_after(before.ledger(), event)
    after = replace(before, sequence=recorded.sequence, **_columns(ledger))
    if not isinstance(event, PolicySet):
        return after
    return replace(
        after,
        policy_sequence=recorded.sequence,
        policy_set_at=recorded.recorded_at,
        policy_set_by=recorded.actor,
    )


def _key(recorded: Recorded[Event]) -> Key | None:
    return stream_key(recorded) if recorded.stream.aggregate == "queue" else None


def _born(recorded: Recorded[Event]) -> QueueLedgerRow:
    return QueueLedgerRow(
        workspace=recorded.stream.workspace,
        id=recorded.stream.id,
        sequence=recorded.sequence,
        **_columns(Ledger()),
        policy_sequence=0,
        policy_set_at=None,
        policy_set_by=None,
    )


def _columns(ledger: Ledger) -> dict[str, Any]:
    return {
        "policy": ledger.policy.model_dump(mode="json"),
        "number": ledger.number,
        "starts": ledger.starts,
        "epoch": ledger.epoch,
        "since": ledger.since,
        "recent": {user: [recent.sum, recent.epoch] for user, recent in ledger.recent.items()},
        "agents": {id_: _told(agent) for id_, agent in ledger.agents.items()},
    }


def _told(agent: Agent) -> dict[str, Any]:
    return {**asdict(agent), "methods": list(agent.methods)}  # as JSON gives it back


def _agent(told: dict[str, Any]) -> Agent:
    return Agent(**{**told, "methods": tuple(told["methods"])})


VIEW = View(tables.queue_ledger, QueueLedgerRow, _key, project, wants=events_of("queue"))
