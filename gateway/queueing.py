"""The queue over HTTP: what waits and why, what is assigned, and the policy by which it is decided."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, get, put
from litestar.di import NamedDependency
from litestar.params import JSONBody

from domain.queues.commands import SetPolicy
from domain.queues.estimate import Estimate, estimate
from domain.queues.policy import BUILT_IN, MAX_USERS, MEMORY, PATIENCE, QueuePolicy
from domain.queues.queue import queue_id
from domain.queues.state import Queue
from domain.queues.waiting import Blocked, Wait, explain
from gateway.as_of import HEADER
from gateway.authentication import Principal
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.etags import IfMatch, answered, require_revision
from gateway.pages import Page
from projections.answers import QueueStanding
from projections.durations import Durations
from projections.queries import Queries
from projections.queue_ledger import QueueLedgerRow
from projections.work_items import WorkItemRow

LEAST_S = 1.0  # that something still takes which should have ended by now

Count = Annotated[int, msgspec.Meta(ge=0)]
Starts = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
User = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z]+:[^\s]+$(?!\n)",
        max_length=200,
        description="The actor of a submission, as `key:3f9a2c1b`: `GET /api/v1/keys` names them.",
    ),
]


class Waiting(msgspec.Struct):
    """Why a job or an evaluation waits.

    `code` is stable: `no_agent`, `no_agent_of_pool`, `no_agent_fits`, `quota`, `behind`, `agents_busy` or
    `next`. `ahead` is how many go before it that the same agents could run. `estimated_start` is
    a guess; where it is null, `estimate` says why.
    """

    position: int
    code: Blocked
    reason: str
    ahead: int
    estimated_start: datetime | None
    estimate: str | None


class WorkNeeds(msgspec.Struct):
    accelerator: str | None
    memory_bytes: int | None


class Work(msgspec.Struct):
    """A job or an evaluation that waits (with its position, from 1) or was given to an agent."""

    work_id: UUID
    kind: Literal["train", "evaluate"]
    method: str
    attempt: int
    status: Literal["waiting", "assigned", "withdrawn"]
    user: str
    priority: int
    pool: str | None
    needs: WorkNeeds
    position: int | None
    waiting: Waiting | None
    agent_id: str | None
    reason: str | None
    queued_at: datetime
    assigned_at: datetime | None


class UserShare(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What one user may have: `running` and `queued` at once, where null is no limit.

    A user with twice the `weight` has twice the starts.
    """

    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    running: Count | None = None
    queued: Count | None = None


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    """A whole policy; what is left out takes its default, and who is not named is one of `everyone`.

    After `memory` starts, each of them counts half. A work that has seen `patience` others start while it
    waited goes first.
    """

    patience: Starts = PATIENCE
    memory: Starts = MEMORY
    evaluations_first: bool = True
    everyone: UserShare = UserShare()
    users: Annotated[dict[User, UserShare], msgspec.Meta(max_length=MAX_USERS)] = {}


class Policy(msgspec.Struct):
    """The policy in force. Number 0 is the built-in one, which nobody has set."""

    number: int
    patience: int
    memory: int
    evaluations_first: bool
    everyone: UserShare
    users: dict[str, UserShare]
    set_at: datetime | None
    set_by: str | None
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class _Explained:
    """What waits at one position of the log, and why."""

    sequence: int
    queue: Queue
    waits: list[Wait]


class Waits:
    """Says why each work waits, by the same rules by which it is decided who goes next."""

    def __init__(self, queries: Queries, workspace: str) -> None:
        self._queries = queries
        self._workspace = workspace
        self._last: _Explained | None = None

    async def all(self) -> tuple[QueueStanding, dict[UUID, Waiting]]:
        """Everything that is assigned or waits, and why the latter does."""
        standing = await self._queries.queue(self._workspace)
        explained = await self._explained(standing)
        if not explained.waits:
            return standing, {}
        found = await self._estimates(standing, explained)
        now = datetime.now(UTC)
        return standing, {
            wait.work.work_id: _waiting(wait, found[wait.work.work_id], now)
            for wait in explained.waits
        }

    async def of(self, work_id: UUID) -> Waiting | None:
        """Why this work waits; None where it does not, or is not in the queue yet."""
        _, waits = await self.all()
        return waits.get(work_id)

    async def _explained(self, standing: QueueStanding) -> _Explained:
        last = self._last
        if last is None or last.sequence != standing.sequence:
            queue = standing.queue()
            # Thousands that wait take a part of a second, in which others are to be answered.
            waits = await asyncio.to_thread(explain, queue)
            last = self._last = _Explained(standing.sequence, queue, waits)
        return last

    async def _estimates(
        self, standing: QueueStanding, explained: _Explained
    ) -> Mapping[UUID, Estimate]:
        durations = await self._queries.durations(self._workspace)
        told = await self._queries.seconds_left(self._workspace)
        now = datetime.now(UTC)
        left = {
            item.work_id: told.get(item.work_id) or _left(item, durations, now)
            for item in standing.items
            if item.status == "assigned"
        }
        return estimate(explained.queue, explained.waits, left, durations.of)


class QueueController(Controller):
    path = "/queue"
    tags = ("agents",)

    @get("/")
    async def queue(self, waits: NamedDependency[Waits]) -> Response[Page[Work]]:
        """What is assigned, in order of arrival; then what waits, in the order in which it would start.

        `As-Of-Sequence` says behind which event of the queue that is so.
        """
        standing, reasons = await waits.all()
        works = [_work(item, reasons.get(item.work_id)) for item in standing.items]
        works.sort(key=lambda work: work.position or 0)
        return Response(Page(works), headers={HEADER: str(standing.sequence)})

    @get("/policy")
    async def policy(
        self,
        request: Request[Principal, Any, Any],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
    ) -> Response[Policy]:
        """The policy in force, with who set it and when."""
        standing = await queries.queue(workspace)
        return answered(request, _policy(standing.ledger))

    @put("/policy", status_code=200)
    async def set_policy(
        self,
        data: JSONBody[PolicyBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Policy:
        """Decide by another policy from the next decision on. What runs goes on."""
        if if_match is not None:
            now = _policy((await queries.queue(workspace)).ledger)
            require_revision(if_match, now.sequence)
        wanted = QueuePolicy.model_validate(msgspec.to_builtins(data))
        done = await commands.send(caller, "queue", queue_id(workspace), SetPolicy(policy=wanted))
        if not done.readable:
            return _as_asked(wanted, caller, done)
        return _policy((await queries.queue(workspace)).ledger)


def _left(item: WorkItemRow, durations: Durations, now: datetime) -> float | None:
    """How long such a work takes, less the time that this one has had."""
    takes = durations.of(item.work())
    if takes is None or item.assigned_at is None:
        return None
    return max(takes - (now - item.assigned_at).total_seconds(), LEAST_S)


def _waiting(wait: Wait, guess: Estimate, now: datetime) -> Waiting:
    start = None if guess.seconds is None else now + timedelta(seconds=guess.seconds)
    return Waiting(wait.position, wait.code, wait.reason, wait.ahead, start, guess.reason)


def _work(row: WorkItemRow, waiting: Waiting | None) -> Work:
    return Work(
        work_id=row.work_id,
        kind=row.kind,
        method=row.method,
        attempt=row.attempt,
        status=row.status,
        user=row.asked_by,
        priority=row.priority,
        pool=row.pool,
        needs=WorkNeeds(row.accelerator, row.memory_bytes),
        position=waiting.position if waiting else None,
        waiting=waiting,
        agent_id=row.agent_id,
        reason=row.reason,
        queued_at=row.queued_at,
        assigned_at=row.assigned_at,
    )


def _policy(row: QueueLedgerRow | None) -> Policy:
    if row is None:
        return Policy(0, **_parts(BUILT_IN), set_at=None, set_by=None, sequence=0)
    return Policy(
        row.number,
        **_parts(QueuePolicy.model_validate(row.policy)),
        set_at=row.policy_set_at,
        set_by=row.policy_set_by,
        sequence=row.policy_sequence,
    )


def _as_asked(wanted: QueuePolicy, caller: Caller, done: Done) -> Policy:
    """What will be in force once it is decided, or is shown once the read model is back."""
    return Policy(
        0,
        **_parts(wanted),
        set_at=None,
        set_by=caller.principal.actor,
        sequence=done.sequence,
        note=note_of(done),
    )


def _parts(policy: QueuePolicy) -> dict[str, Any]:
    return {
        "patience": policy.patience,
        "memory": policy.memory,
        "evaluations_first": policy.evaluations_first,
        "everyone": UserShare(**policy.everyone.model_dump()),
        "users": {user: UserShare(**its.model_dump()) for user, its in policy.users.items()},
    }
