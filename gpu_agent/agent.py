"""The agent: takes what it is assigned, holds it while children work, serves, and leaves nothing behind."""

import asyncio
import fcntl
import logging
import shutil
from asyncio import TaskGroup
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args
from uuid import UUID, uuid5

from domain.agents.commands import EnrolAgent
from domain.context import Context, working_on
from domain.inference import InService
from domain.jobs.spec import Method
from domain.messages import Command, Envelope, StreamId
from domain.placement import DEFAULT_POOL
from domain.tracing import Span, Value, read_traceparent, span
from domain.work import EvaluateAssignment, HeldWork, Presence, StopWork, TrainAssignment
from gpu_agent.attempt import RunningAttempt, Workshop
from gpu_agent.figures import HELD, SLOTS
from gpu_agent.machine import Machine
from gpu_agent.ports import AgentLink, Commands, WorkItem
from gpu_agent.reports import Attempt, Reports, send_until_decided
from gpu_agent.serving_child import SERVING_FOLDER, Serving

METHODS: Final = get_args(Method)
REMEMBERED: Final = 1000  # a message comes again within minutes of its attempt's end, if at all
IDLE_S: Final = 1.0  # an evaluation follows its training within a fraction of this
IN_SERVICE_S: Final = 5.0  # until a version that was put into service is warm, at the most
GATEWAY_S: Final = 10.0  # for a gateway that is just starting
ASK_AGAIN_S: Final = 0.2
PRESENCE_S: Final = 1.0  # the scheduler gives up after ten of them
KEEP_S: Final = 7.0  # a quarter of the work consumer's ack_wait
CANCEL_S: Final = 15.0  # a step of a large model on a slow machine
# Together they stay under the 15 s after which a supervisor kills.
GIVE_BACK_S: Final = 10.0
RELEASE_S: Final = 3.0

_log = logging.getLogger(__name__)


class WorkFolderTaken(Exception):
    """Another agent process works in this folder; give each its own `agent.work_dir`."""


class AgentRefused(Exception):
    """The log does not accept this agent: it was revoked, and has to enrol with another id."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is; the boot id is new with every process."""

    agent_id: UUID
    name: str
    workspace: str
    machine: Machine
    slots: int
    boot_id: UUID
    pool: str = DEFAULT_POOL


@dataclass(slots=True)
class _Held:
    """An attempt from the moment its message arrived until the log knows of its end."""

    items: list[WorkItem]  # every delivery, the latest last
    assignment: TrainAssignment | EvaluateAssignment
    running: RunningAttempt
    task: asyncio.Task[None] | None = None


class Agent:
    """`run` is the whole life of the process."""

    def __init__(
        self,
        identity: Identity,
        link: AgentLink,
        commands: Commands,
        workshop: Workshop,
        serving: Serving,
    ) -> None:
        self._identity = identity
        self._link = link
        self._commands = commands
        self._shop = workshop
        self._serving = serving
        self._held: dict[tuple[UUID, int], _Held] = {}
        self._ended: deque[tuple[UUID, int]] = deque(maxlen=REMEMBERED)
        self._slots = asyncio.Semaphore(identity.slots)
        SLOTS.set(identity.slots)
        self._ready = False
        self._draining = False
        self._refusal = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then give back what is held.

        Raises:
            WorkFolderTaken, AgentRefused: Another start will end in the same way.
            ExceptionGroup: The connection was closed for good, or there is a bug.
        """
        with _own_folder(self._shop.work_dir):
            async with TaskGroup() as tasks:
                lasting = [
                    tasks.create_task(self._announce()),
                    tasks.create_task(self._serving.run()),
                    tasks.create_task(self._serve()),
                ]
                taking = [
                    tasks.create_task(self._enrol(stop)),
                    tasks.create_task(self._take_work(tasks)),
                ]
                await stop.wait()
                for task in taking:
                    task.cancel()
                await self._give_back()
                await _end([*taking, *lasting])
        if self._refusal:
            raise AgentRefused(self._refusal)

    async def _enrol(self, stop: asyncio.Event) -> None:
        me = self._identity
        command = EnrolAgent(
            agent_id=me.agent_id,
            name=me.name,
            accelerator=me.machine.accelerator,
            memory_bytes=me.machine.memory_bytes,
            methods=METHODS,
        )
        envelope: Envelope[Command] = Envelope(
            id=uuid5(me.agent_id, str(me.boot_id)),
            stream=StreamId(me.workspace, "agent", me.agent_id),
            source=str(me.agent_id),
            actor=f"agent:{me.agent_id}",
            correlation_id=me.boot_id,
            causation_id=None,
            sent_at=datetime.now(UTC),
            command=command,
        )
        outcome = await send_until_decided(self._commands, envelope)
        if outcome.status == "rejected":
            self._refusal = outcome.message
            stop.set()

    async def _announce(self) -> None:
        me = self._identity
        while True:
            await self._link.announce(
                Presence(
                    agent_id=str(me.agent_id),
                    name=me.name,
                    boot_id=str(me.boot_id),
                    slots=me.slots,
                    held=tuple(
                        HeldWork(work_id=work_id, attempt=number) for work_id, number in self._held
                    ),
                    accelerator=me.machine.accelerator,
                    memory_bytes=me.machine.memory_bytes,
                    methods=METHODS,
                    draining=self._draining,
                    pool=me.pool,
                    serving="ready" if self._ready else "starting",
                )
            )
            await asyncio.sleep(PRESENCE_S)

    async def _serve(self) -> None:
        """Answer once that which is in service is warm, and from then on keep warm what comes into it."""
        if in_service := await self._first_in_service():
            await self._serving.warm(in_service.models)
        await self._link.serve(self._serving.answer, self._serving.generate, self._serving.control)
        self._ready = True
        _log.info("ready to serve")
        while True:
            await asyncio.sleep(IN_SERVICE_S)
            if self._evaluating():
                continue  # loading a model would blur the response times that it measures
            if in_service := await self._link.in_service():
                await self._serving.warm(in_service.models)

    async def _first_in_service(self) -> InService | None:
        """Agents and gateways start together, but nobody waits for a gateway that does not come."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + GATEWAY_S
        while True:
            in_service = await self._link.in_service()
            if in_service is not None or clock() > give_up_at:
                return in_service
            await asyncio.sleep(ASK_AGAIN_S)

    def _evaluating(self) -> bool:
        held = self._held.values()
        return any(isinstance(one.assignment, EvaluateAssignment) for one in held)

    async def _take_work(self, tasks: TaskGroup) -> None:
        while True:
            item = await self._link.next_work()
            if item is None:
                continue
            message = item.message
            if isinstance(message, StopWork):
                await item.ack()
                if held := self._held.get((message.work_id, message.attempt)):
                    held.running.stop(message.reason, within_s=CANCEL_S)
            else:
                await self._take(item, message, tasks)

    async def _take(
        self, item: WorkItem, assignment: TrainAssignment | EvaluateAssignment, tasks: TaskGroup
    ) -> None:
        attempt = Attempt.of(assignment)
        if attempt.key in self._ended:
            # Its acknowledgement got lost. The claim must not be sent again: it would be answered
            # with what was decided the first time.
            await item.ack()
        elif held := self._held.get(attempt.key):
            held.items.append(item)  # it came again: the server could not hear that it is kept
        else:
            me = self._identity
            reports = Reports(attempt, str(me.agent_id), str(me.boot_id), self._commands)
            held = _Held([item], assignment, RunningAttempt(assignment, reports, self._shop))
            self._held[attempt.key] = held
            held.task = tasks.create_task(self._hold(held))

    async def _hold(self, held: _Held) -> None:
        attempt = held.running.attempt
        keeping = asyncio.create_task(_keep(held))
        HELD.inc()
        try:
            async with self._slots:  # a place may become free in the log a moment before it is
                with working_on(_context(held.assignment)), _span(attempt, held.assignment):
                    await held.running.run()
        finally:
            HELD.dec()
            keeping.cancel()
        self._ended.append(attempt.key)
        del self._held[attempt.key]
        for item in held.items:  # a repeat may be another message, with a place of its own
            await item.ack()
        method = held.assignment.spec.method
        asyncio.get_running_loop().call_later(IDLE_S, self._warm_up_when_idle, method)

    def _warm_up_when_idle(self, method: Method) -> None:
        """Not beside an evaluation: it would slow it down and blur the response times it measures."""
        if not self._held and not self._draining:
            self._serving.warm_up(method)

    async def _give_back(self) -> None:
        self._draining = True
        for held in self._held.values():
            held.running.stop("agent stopped", within_s=GIVE_BACK_S)
        tasks = [held.task for held in self._held.values() if held.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GIVE_BACK_S + RELEASE_S)
            for task in late:  # the log is away; the scheduler will notice that this process is too
                task.cancel()


def _context(assignment: TrainAssignment | EvaluateAssignment) -> Context:
    return Context(
        correlation_id=str(assignment.correlation_id),
        workspace=assignment.workspace,
        traceparent=read_traceparent(assignment.traceparent),
    )


def _span(
    attempt: Attempt, assignment: TrainAssignment | EvaluateAssignment
) -> AbstractContextManager[Span]:
    about: dict[str, Value] = {
        "finetrail.work_id": str(attempt.work_id),
        "finetrail.attempt": attempt.number,
        "finetrail.method": assignment.spec.method,
    }
    return span(f"attempt {assignment.kind}", "consumer", attributes=about)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: `asyncio.wait_for` of Python 3.11 may lose a cancellation."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=1.0)


async def _keep(held: _Held) -> None:
    while True:
        await asyncio.sleep(KEEP_S)
        await held.items[-1].keep()


@contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes and clear away what a killed one has left."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkFolderTaken(f"another agent works in {folder}") from None
        for left in folder.iterdir():
            # Only what an agent makes: the setting may name a folder that holds other things too.
            if left.is_dir() and (left.name == SERVING_FOLDER or _is_uuid(left.name)):
                shutil.rmtree(left, ignore_errors=True)
        yield


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
