"""An agent that trains nothing: it claims what it is handed and reports what it was told to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self
from uuid import UUID

from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout
from pydantic import TypeAdapter
from uuid_utils.compat import uuid7

from adapters.clock import utc_now
from adapters.nats_command_bus import NatsCommandBus
from domain.agents.commands import EnrolAgent
from domain.blobs import BlobRef, FileEntry
from domain.evaluations.commands import ClaimEvaluation, RecordResult
from domain.jobs.commands import (
    ClaimJob,
    CompleteJob,
    RecordCheckpoint,
    RecordEpoch,
    RecordStart,
    ReleaseJob,
)
from domain.messages import Command, Envelope, Outcome, StreamId
from domain.subjects import Aggregate, presence_subject
from domain.work import (
    EvaluateAssignment,
    HeldWork,
    StopWork,
    TrainAssignment,
    WorkMessage,
)
from tests import samples

MESSAGE: TypeAdapter[WorkMessage] = TypeAdapter(WorkMessage)


def envelope(
    command: Command,
    aggregate: Aggregate,
    id_: UUID,
    *,
    source: str = "gateway",
    correlation_id: UUID | None = None,
) -> Envelope[Command]:
    command_id: UUID = uuid7()
    return Envelope(
        id=command_id,
        stream=StreamId(samples.WORKSPACE, aggregate, id_),
        source=source,
        actor=f"test:{source}",
        correlation_id=correlation_id or command_id,
        causation_id=None,
        sent_at=utc_now(),
        command=command,
    )


class ScriptedAgent:
    """Says each half second that it is there; ``on_work`` decides what to do with an assignment."""

    def __init__(self, nc: Client, agent_id: UUID = samples.AGENT, boot_id: str = "boot-1") -> None:
        self.nc = nc
        self.id = agent_id
        self.boot_id = boot_id
        self.bus = NatsCommandBus(nc)
        self.correlation_id: UUID | None = None  # of the work at hand
        self.held: list[HeldWork] = []
        self.taken: list[TrainAssignment | EvaluateAssignment | StopWork] = []
        self.outcomes: list[Outcome] = []
        self.sent: list[Envelope[Command]] = []
        self.files: tuple[BlobRef, ...] = ()
        self.on_train: Callable[[TrainAssignment], Awaitable[None]] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        enrol = EnrolAgent(
            agent_id=self.id,
            name="scripted",
            accelerator="cpu",
            memory_bytes=1,
            methods=(samples.METHOD,),
        )
        await self.say(enrol, "agent", self.id)
        self._tasks = [
            asyncio.create_task(self._announce()),
            asyncio.create_task(self._work()),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def say(self, command: Command, aggregate: Aggregate, id_: UUID) -> Outcome:
        asked = envelope(
            command, aggregate, id_, source=str(self.id), correlation_id=self.correlation_id
        )
        self.sent.append(asked)
        outcome = await self.bus.send(asked)
        self.outcomes.append(outcome)
        return outcome

    async def _announce(self) -> None:
        while True:
            presence = samples.presence(self.id, *self.held, boot_id=self.boot_id)
            body = presence.model_dump_json().encode()
            await self.nc.publish(presence_subject(str(self.id)), body)
            await asyncio.sleep(0.2)

    async def _work(self) -> None:
        js = self.nc.jetstream()
        inbox = await js.pull_subscribe_bind(
            f"agent-{self.id}", stream="WORK", inbox_prefix=f"_INBOX_agent.{self.id}.".encode()
        )
        while True:
            try:
                (msg,) = await inbox.fetch(1, timeout=1)
            except NatsTimeout:
                continue
            work = MESSAGE.validate_json(msg.data)
            self.taken.append(work)
            match work:
                case TrainAssignment():
                    self.correlation_id = work.correlation_id
                    await self.train(work)
                case EvaluateAssignment():
                    self.correlation_id = work.correlation_id
                    await self.evaluate(work)
                case StopWork():
                    await self.release(work)
            await msg.ack()

    async def train(self, work: TrainAssignment) -> None:
        job, attempt = work.job_id, work.attempt
        claimed = await self.say(
            ClaimJob(job_id=job, attempt=attempt, boot_id=self.boot_id), "job", job
        )
        if claimed.status != "recorded":
            return
        self.held.append(HeldWork(work_id=job, attempt=attempt))
        reports: list[Command] = [
            RecordStart(
                job_id=job,
                attempt=attempt,
                environment=samples.ENVIRONMENT,
                total_steps=40,
                total_epochs=2,
                first_step=work.resume_from.step if work.resume_from else 0,
                train_rows=300,
                validation_rows=40,
                test_rows=80,
                trainable_parameters=1,
                total_parameters=2,
            ),
            RecordCheckpoint(job_id=job, attempt=attempt, checkpoint=samples.checkpoint(20, 1)),
            RecordEpoch(job_id=job, attempt=attempt, epoch=1, step=20, train_loss=1.0, seconds=1),
        ]
        for report in reports:
            await self.say(report, "job", job)
        if self.on_train is not None:
            await self.on_train(work)
            return
        await self.finish(work)

    async def finish(self, work: TrainAssignment) -> None:
        files = tuple(FileEntry(path=f"file-{n}", blob=ref) for n, ref in enumerate(self.files))
        complete = CompleteJob(
            job_id=work.job_id,
            attempt=work.attempt,
            adapter=files,
            labels=("cancel", "refund"),
            train_rows=300,
            trained_tokens=9000,
            steps=40,
            seconds=2.0,
            final_loss=0.1,
            validation_accuracy=0.95,
        )
        await self.say(complete, "job", work.job_id)
        self.held.clear()

    async def evaluate(self, work: EvaluateAssignment) -> None:
        evaluation, attempt = work.evaluation_id, work.attempt
        claim = ClaimEvaluation(evaluation_id=evaluation, attempt=attempt, boot_id=self.boot_id)
        await self.say(claim, "evaluation", evaluation)
        result = RecordResult(
            evaluation_id=evaluation,
            attempt=attempt,
            summary=samples.SUMMARY,
            outputs=samples.blob(9),
        )
        await self.say(result, "evaluation", evaluation)

    async def release(self, work: StopWork) -> None:
        self.held.clear()
        release = ReleaseJob(job_id=work.work_id, attempt=work.attempt, reason="stopped")
        await self.say(release, "job", work.work_id)
