"""The loop that gives work to agents and takes it back from those that died."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import UUID

from nats.errors import Error as NatsError
from uuid_utils.compat import uuid7

from domain.agents import agent as agents
from domain.catalog import UnknownType
from domain.errors import BusUnavailable, CommandTimeout, StoreUnavailable
from domain.evaluations import evaluation as evaluations
from domain.evaluations.commands import ExpireEvaluationLease
from domain.evaluations.events import EvaluationStarted
from domain.jobs import job as jobs
from domain.jobs.commands import ExpireLease
from domain.jobs.events import JobClaimed
from domain.messages import Command, Envelope, Event, History, Outcome, Recorded, StreamId
from domain.queues.commands import Assign, Enqueue, Withdraw
from domain.queues.events import WorkAssigned, WorkQueued, WorkWithdrawn
from domain.queues.queue import decider as queue_decider
from domain.queues.ranking import choose
from domain.queues.state import Assigned, Queue
from domain.subjects import REACTION_SOURCE, Aggregate
from domain.work import Presence
from handlers.follow_ups import fold, queue_stream
from handlers.histories import Histories
from handlers.leases import (
    AgentView,
    Claim,
    WorkView,
    doubtful,
    expiry_reason,
    fleet_changes,
)
from handlers.ports import Clock, CommandBus, EventStore

TICK_S: Final = 0.5
STALLED_S: Final = 3.0  # a process that was stopped or starved, and heard nothing while it was
STRANDED_S: Final = 30.0  # a next attempt is queued within milliseconds of the former's end
FORGET_S: Final = 3600.0  # an agent that was not heard for so long

_log = logging.getLogger(__name__)


class Scheduler:
    """Serves the queue of one workspace. It may run in several processes: the queue decides.

    Args:
        uptime: seconds that only grow; silence is measured by it, since a clock may be set.
    """

    def __init__(
        self,
        workspace: str,
        store: EventStore,
        histories: Histories,
        bus: CommandBus,
        clock: Clock,
        uptime: Callable[[], float],
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._histories = histories
        self._bus = bus
        self._clock = clock
        self._uptime = uptime
        self._listening_since = uptime()
        self._seen: dict[str, tuple[Presence, float]] = {}
        self._queue = Queue()
        self._given: dict[UUID, Recorded[Event]] = {}  # by which event each work was assigned
        histories.listen(queue_stream(workspace), self._heard)
        self._works: dict[UUID, WorkView] = {}
        self._stranded_since: dict[UUID, float] = {}
        self._awake = asyncio.Event()

    def saw(self, presence: Presence) -> None:
        self._seen[presence.agent_id] = (presence, self._uptime())

    def connected(self) -> None:
        """Nobody could be heard until now, so nobody's silence counts from before."""
        self._listening_since = self._uptime()

    def wake(self) -> None:
        """Something has changed: look at once."""
        self._awake.set()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.tick()
            except (StoreUnavailable, BusUnavailable, CommandTimeout, NatsError) as problem:
                _log.warning("scheduling is put off: %s", problem)
            except Exception:  # noqa: BLE001 - the top of the loop, which outlives everything
                _log.exception("scheduling failed and goes on")
            await self._rest()

    async def _rest(self) -> None:
        began = self._uptime()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._awake.wait()
        self._awake.clear()
        if self._uptime() - began > STALLED_S:
            self.connected()  # what agents said meanwhile is still to be read

    async def tick(self) -> None:
        """Learn who is there, take back what is lost, then hand out what waits."""
        await self._refresh()
        for change in fleet_changes(self._queue.ledger.agents, await self._agents()):
            await self._send(queue_stream(self._workspace), change)
        await self._refresh()
        for assigned in list(self._queue.assigned.values()):
            try:
                await self._check(assigned)
            except (UnknownType, ValueError):  # its log cannot be read; the others' can
                _log.exception("%s cannot be looked after", assigned.work_id)
        self._forget()
        while self._queue.waiting and choose(self._queue):
            outcome = await self._send(queue_stream(self._workspace), Assign())
            if outcome.status != "recorded":
                return  # another process was first
            await self._refresh()

    async def _refresh(self) -> None:
        stream = queue_stream(self._workspace)
        self._queue = (await self._histories.load(stream, queue_decider)).state

    def _heard(self, recorded: Recorded[Event]) -> None:
        match recorded.event:
            case WorkAssigned(work_id=work_id):
                self._given[work_id] = recorded
            case WorkQueued(work_id=work_id) | WorkWithdrawn(work_id=work_id):
                self._given.pop(work_id, None)
            case _:
                pass

    async def _check(self, assigned: Assigned) -> None:
        known = self._works.get(assigned.work_id)
        revoked = await self._status(assigned.agent_id) == "revoked"
        agent = replace(self._agent(assigned.agent_id), revoked=revoked)
        same = known is not None and known.attempt == assigned.attempt
        if not doubtful(assigned, known if same else None, agent):
            return
        work = self._works[assigned.work_id] = await self._look(assigned)
        if work.ended:
            # Its own withdrawal is on its way, or was overtaken by what it was to withdraw.
            gone = Withdraw(work_id=assigned.work_id, reason="it has ended")
            await self._send(queue_stream(self._workspace), gone, assigned.work_id)
            return
        if work.attempt > assigned.attempt:
            await self._queue_stranded(assigned, work)
            return
        since = self._given[assigned.work_id].recorded_at
        reason = expiry_reason(assigned, since, work, agent, self._clock())
        if reason is None:
            return
        _log.warning(
            "attempt %d of %s %s at agent %s is over: %s",
            assigned.attempt,
            "job" if assigned.kind == "train" else "evaluation",
            assigned.work_id,
            assigned.agent_id,
            reason,
        )
        await self._send(self._stream(assigned), _expiry(assigned, reason), assigned.work_id)

    async def _queue_stranded(self, assigned: Assigned, work: WorkView) -> None:
        """Queue the next attempt after all, when what should have done so was put aside."""
        since = self._stranded_since.setdefault(assigned.work_id, self._uptime())
        if self._uptime() - since < STRANDED_S:
            return
        _log.warning("attempt %d of %s was never queued", work.attempt, assigned.work_id)
        again = Enqueue(
            work_id=assigned.work_id,
            kind=assigned.kind,
            method=work.method,
            attempt=work.attempt,
        )
        await self._send(queue_stream(self._workspace), again, assigned.work_id)

    async def _look(self, assigned: Assigned) -> WorkView:
        history = await self._store.read(self._stream(assigned))
        state = (
            fold(history, jobs.decider)
            if assigned.kind == "train"
            else fold(history, evaluations.decider)
        )
        match state:
            case jobs.Absent() | evaluations.Absent():
                return WorkView(attempt=0, ended=True)
            case jobs.Ended() | evaluations.Ended():
                return WorkView(state.attempt, ended=True)
            case jobs.Running() | evaluations.Running():
                return WorkView(state.attempt, ended=False, claim=_claim(history))
            case jobs.Waiting():
                method = state.progress.spec.method
                return WorkView(state.attempt, ended=False, method=method)
            case evaluations.Waiting():
                method = state.requested.spec.method
                return WorkView(state.attempt, ended=False, method=method)

    def _agent(self, agent_id: str) -> AgentView:
        now = self._uptime()
        presence, at = self._seen.get(agent_id, (None, self._listening_since))
        return AgentView(presence, now - max(at, self._listening_since))

    async def _agents(self) -> dict[str, AgentView]:
        """Those that were heard of late, and those that the queue counts on."""
        known = self._queue.ledger.agents
        counted_on = {agent.agent_id for agent in known.values() if agent.away is None}
        views: dict[str, AgentView] = {}
        for agent_id in self._seen.keys() | counted_on:
            view = self._agent(agent_id)
            # The log is asked only where its answer makes a difference.
            if self._queue.waiting or agent_id not in counted_on:
                status = await self._status(agent_id)
                view = replace(view, active=status == "active", revoked=status == "revoked")
            views[agent_id] = view
        return views

    async def _status(self, agent_id: str) -> str:
        stream = StreamId(self._workspace, "agent", UUID(agent_id))
        agent = (await self._histories.load(stream, agents.decider)).state
        return agent.status if isinstance(agent, agents.Known) else "absent"

    def _forget(self) -> None:
        now = self._uptime()
        for agent_id, (_, at) in list(self._seen.items()):
            if now - at > FORGET_S:
                del self._seen[agent_id]
        for work_id in self._works.keys() - self._queue.assigned.keys():
            del self._works[work_id]
        for work_id in self._stranded_since.keys() - self._queue.assigned.keys():
            del self._stranded_since[work_id]

    def _stream(self, assigned: Assigned) -> StreamId:
        kind: Aggregate = "job" if assigned.kind == "train" else "evaluation"
        return StreamId(self._workspace, kind, assigned.work_id)

    async def _send(
        self, stream: StreamId, command: Command, work_id: UUID | None = None
    ) -> Outcome:
        """Send it, because this work was assigned if it is about one that was."""
        command_id = uuid7()
        cause = self._given.get(work_id) if work_id else None
        envelope = Envelope(
            id=command_id,
            stream=stream,
            source=REACTION_SOURCE,
            actor="scheduler",
            correlation_id=cause.correlation_id if cause else command_id,
            causation_id=cause.id if cause else None,
            sent_at=self._clock(),
            command=command,
        )
        outcome = await self._bus.send(envelope)
        if outcome.status in {"rejected", "failed"}:
            name = type(command).__name__
            _log.warning("%s of %s: %s: %s", name, stream.id, outcome.code, outcome.message)
        return outcome


def _expiry(assigned: Assigned, reason: str) -> Command:
    if assigned.kind == "train":
        return ExpireLease(job_id=assigned.work_id, attempt=assigned.attempt, reason=reason)
    return ExpireEvaluationLease(
        evaluation_id=assigned.work_id, attempt=assigned.attempt, reason=reason
    )


def _claim(history: History[Event]) -> Claim | None:
    for recorded in reversed(history.events):
        if isinstance(recorded.event, JobClaimed | EvaluationStarted):
            return Claim(recorded.event.boot_id, recorded.recorded_at)
    return None
