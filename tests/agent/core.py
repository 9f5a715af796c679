"""The other side of an agent for its tests: decides commands by the real rules, and hands out work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from domain.agents.agent import decider as agent_rules
from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from domain.errors import Rejected
from domain.evaluations.evaluation import decider as evaluation_rules
from domain.evaluations.events import EvaluationRequested
from domain.inference import InService
from domain.jobs.events import JobSubmitted
from domain.jobs.job import Waiting
from domain.jobs.job import decider as job_rules
from domain.jobs.spec import DEFAULT_BASE_MODEL, DatasetRef, JobSpec
from domain.messages import Command, Event, Outcome
from domain.subjects import work_subject
from domain.telemetry import LogEmitted, LogLine, MetricsLogged, StepMetrics
from domain.wire import decode_envelope
from domain.work import (
    EvaluateAssignment,
    Presence,
    StopWork,
    TrainAssignment,
)

AGENT = UUID("018f0000-0000-7000-8000-00000000000a")
OTHER_AGENT = "018f0000-0000-7000-8000-00000000000b"
RULES: dict[str, Any] = {"job": job_rules, "evaluation": evaluation_rules, "agent": agent_rules}
DEADLINE_S = 20.0


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for a condition that other tasks bring about."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S:.0f} s: {what or condition}") from None


@dataclass
class Core:
    """Handlers and scheduler in a few lines; it holds its log in memory, so it outlives the server."""

    nc: Client
    events: dict[UUID, list[Event]] = field(default_factory=dict)
    outcomes: dict[UUID, Outcome] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    presences: list[Presence] = field(default_factory=list)
    paused: bool = False
    # None: no gateway that answers.
    in_service: InService | None = field(default_factory=lambda: InService(models=()))

    def types(self, work_id: UUID) -> list[str]:
        return [type(event).__name__ for event in self.events[work_id]]

    def last(self, work_id: UUID) -> Any:
        return self.events[work_id][-1]

    def ended(self, work_id: UUID, *types: str) -> Callable[[], bool]:
        return lambda: self.types(work_id)[-1] in types

    def decide(self, kind: str, work_id: UUID, command: Command) -> None:
        history = self.events.setdefault(work_id, [])
        rules = RULES[kind]
        history.extend(rules.decide(command, rules.fold(history)))

    def submit(self, spec: JobSpec) -> UUID:
        job_id = uuid4()
        self.events[job_id] = [JobSubmitted(job_id=job_id, spec=spec)]
        return job_id

    async def assign(self, job_id: UUID, attempt: int = 1) -> TrainAssignment:
        submitted = self.events[job_id][0]
        assert isinstance(submitted, JobSubmitted)
        state = job_rules.fold(self.events[job_id])
        assignment = TrainAssignment(
            workspace="default",
            job_id=job_id,
            attempt=attempt,
            spec=submitted.spec,
            base_model=state.progress.base_model if isinstance(state, Waiting) else None,
            correlation_id=job_id,
        )
        await self.send_work(assignment)
        return assignment

    async def assign_evaluation(
        self, spec: JobSpec, adapter: BlobRef, base_model: BaseModelRecord | None = None
    ) -> UUID:
        evaluation_id = uuid4()
        files = (FileEntry(path="lora_adapters/adapter_model.safetensors", blob=adapter),)
        self.events[evaluation_id] = [
            EvaluationRequested(
                evaluation_id=evaluation_id,
                version_id=uuid4(),
                model_id=uuid4(),
                job_id=uuid4(),
                spec=spec,
                labels=("a", "b"),
                adapter=files,
                threads=1,
            )
        ]
        await self.send_work(
            EvaluateAssignment(
                workspace="default",
                evaluation_id=evaluation_id,
                attempt=1,
                spec=spec,
                labels=("a", "b"),
                adapter=files,
                base_model=base_model,
                correlation_id=evaluation_id,
            )
        )
        return evaluation_id

    async def stop_work(self, work_id: UUID, attempt: int = 1) -> None:
        await self.send_work(
            StopWork(workspace="default", work_id=work_id, attempt=attempt, reason="cancelled")
        )

    async def send_work(self, message: TrainAssignment | EvaluateAssignment | StopWork) -> None:
        body = message.model_dump_json().encode()
        await self.nc.jetstream().publish(work_subject(str(AGENT)), body)

    async def work_left(self) -> int:
        info = await self.nc.jetstream().stream_info("WORK")
        return info.state.messages

    async def all_work_is_acknowledged(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await self.work_left():
                await asyncio.sleep(0.01)

    async def telemetry(self, work_id: UUID) -> list[LogEmitted | MetricsLogged]:
        """All messages of a piece of work, in order."""
        js = self.nc.jetstream()
        info = await js.stream_info("TELEMETRY")
        found: list[LogEmitted | MetricsLogged] = []
        for sequence in range(info.state.first_seq, info.state.last_seq + 1):
            raw = await js.get_msg("TELEMETRY", sequence)
            assert raw.headers is not None
            assert raw.subject is not None
            assert raw.data is not None
            if str(work_id) in raw.subject:
                is_log = raw.headers["ce-type"] == "LogEmitted"
                type_ = LogEmitted if is_log else MetricsLogged
                found.append(type_.model_validate_json(raw.data))
        return found

    async def lines(self, work_id: UUID) -> list[LogLine]:
        messages = await self.telemetry(work_id)
        return [line for m in messages if isinstance(m, LogEmitted) for line in m.lines]

    async def steps(self, work_id: UUID) -> list[StepMetrics]:
        messages = await self.telemetry(work_id)
        return [step for m in messages if isinstance(m, MetricsLogged) for step in m.steps]

    async def handle(self, durable: str) -> None:
        pull = await self.nc.jetstream().pull_subscribe_bind(durable=durable, stream="COMMANDS")
        while True:
            try:
                if self.paused:
                    await asyncio.sleep(0.01)
                    continue
                (msg,) = await pull.fetch(1, timeout=0.5)
                await self._decided(msg)
            except (NatsError, TimeoutError):
                continue

    async def _decided(self, msg: Msg) -> None:
        assert msg.headers is not None
        envelope = decode_envelope(msg.subject, msg.headers, msg.data)
        outcome = self.outcomes.get(envelope.id)
        if outcome is None:
            command = envelope.command
            self.commands.append(command)
            if "attempt" in type(command).model_fields:
                command = command.model_copy(update={"agent_id": envelope.source})
            try:
                self.decide(envelope.stream.aggregate, envelope.stream.id, command)
                outcome = self.outcomes[envelope.id] = Outcome(status="recorded", sequence=1)
            except Rejected as refusal:
                outcome = Outcome(
                    status="rejected", sequence=0, code=refusal.code, message=str(refusal)
                )
        await msg.ack()
        await self.nc.publish(msg.headers["reply_to"], outcome.model_dump_json().encode())

    async def on_serving(self, msg: Msg) -> None:
        if self.in_service is not None:
            await self.nc.publish(msg.reply, self.in_service.model_dump_json().encode())

    async def on_presence(self, msg: Msg) -> None:
        self.presences.append(Presence.model_validate_json(msg.data))


@asynccontextmanager
async def running_core(url: str) -> AsyncIterator[Core]:
    nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_mute)
    core = Core(nc)
    await nc.subscribe("presence.>", cb=core.on_presence)
    await nc.subscribe("serving.*", cb=core.on_serving)
    durables = ("job-commands", "evaluation-commands", "agent-commands")
    tasks = [asyncio.create_task(core.handle(durable)) for durable in durables]
    try:
        yield core
    finally:
        await cancelled(tasks)
        with suppress(OSError):  # a test may have killed the server
            await nc.close()


async def cancelled(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _mute(_error: Exception) -> None:
    """A lost connection is what some tests are about."""


def spec_of(model_name: str, train: BlobRef, base_model: str = DEFAULT_BASE_MODEL) -> JobSpec:
    dataset = DatasetRef(
        dataset_id=UUID(int=1),
        name="rows",
        blob=train,
        format="csv",
        delimiter=",",
        text_column="text",
        label_column="label",
        rows=2,
        labels=("a", "b"),
    )
    return JobSpec(model_name=model_name, train=dataset, base_model=base_model)


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
