"""One attempt at one piece of work, from the claim to the last report; the child does the work itself."""

import asyncio
import errno
import logging
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, assert_never

from pydantic import ValidationError

from domain.base_models import BaseModelRecord
from domain.evaluations.commands import RecordResult
from domain.jobs.commands import (
    CompleteJob,
    RecordCheckpoint,
    RecordEpoch,
    RecordMicroBatch,
    RecordStart,
)
from domain.messages import Command
from domain.telemetry import Level
from domain.work import (
    CheckpointWritten,
    EpochDone,
    EvaluateAssignment,
    EvaluationFinished,
    Fact,
    Failed,
    LogLine,
    MicroBatchHalved,
    Started,
    StepDone,
    Stopped,
    TrainAssignment,
    TrainingCheckpoint,
    TrainingFinished,
)
from gpu_agent.attempt_files import (
    ADAPTER_FOLDER,
    BASE_MODELS_FOLDER,
    TABLE_MODEL_FOLDER,
    fetch_inputs,
    remove_folder,
    upload_base_model,
    upload_folder,
    without_paths,
)
from gpu_agent.child_process import ChildProcess, how_it_ended
from gpu_agent.figures import ATTEMPTS, STEPS, TOKENS
from gpu_agent.ports import AgentLink, Blobs
from gpu_agent.protocol import (
    ChildFiles,
    ChildInput,
    ChildOrder,
    Device,
    child_environment,
    decode_fact,
)
from gpu_agent.reports import Attempt, Fenced, Reports
from gpu_agent.shortening import shortened_start, shortened_summary
from gpu_agent.stderr import MAX_LINES, read_line
from gpu_agent.telemetry import Telemetry

SILENCE_S: Final = 3600.0  # a step, an evaluation or a download takes less; this one hangs
EXIT_S: Final = 5.0  # between the last fact and the end of the process
HOPELESS: Final = {errno.ENOENT, errno.EIO, errno.EACCES}  # missing, damaged, not this agent's
FLUSH_S: Final = 5.0  # the last lines should stand in the log before the job ends, but need not
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
MAX_REASON: Final = 2000  # characters of what torch said

T = TypeVar("T")
Outcome = Literal["finished", "failed", "released", "stopped", "fenced"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every attempt of this agent works with."""

    blobs: Blobs
    link: AgentLink
    work_dir: Path
    models_folder: Path | None
    device: Device
    threads: int
    environment: Mapping[str, str]  # of the children, beneath what the protocol asks for
    command: tuple[str, ...]

    @property
    def base_models(self) -> Path:
        """Base models that were made or fetched here; they outlive the attempts."""
        return self.work_dir / BASE_MODELS_FOLDER


class RunningAttempt:
    """`run` does it all; `stop` may be called at any time."""

    def __init__(
        self,
        assignment: TrainAssignment | EvaluateAssignment,
        reports: Reports,
        workshop: Workshop,
    ) -> None:
        self.attempt = Attempt.of(assignment)
        self._assignment = assignment
        self._reports = reports
        self._shop = workshop
        self._folder = workshop.work_dir / str(self.attempt.work_id) / str(self.attempt.number)
        self._telemetry = Telemetry(
            workshop.link, self.attempt.workspace, self.attempt.work_id, self.attempt.number
        )
        self._facts: deque[Fact] = deque()  # that wait to be reported
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stop_reason, self._stop_s = "", 0.0
        self._outcome: Outcome | None = None  # once it is in the log

    def stop(self, reason: str, within_s: float) -> None:
        """Ask the child to stop at its next step; after a while it is killed."""
        if not self._stopping.is_set():
            self._stop_reason, self._stop_s = reason, within_s
            self._stopping.set()

    async def run(self) -> None:
        """Work until the attempt has ended, one way or another, and the log knows."""
        if not await self._reports.claim():
            ATTEMPTS.labels(self.attempt.kind, "unclaimed").inc()
            return
        sending = asyncio.create_task(self._telemetry.run())
        try:
            await self._work()
        except* Fenced as fenced:
            _log.warning("%s is abandoned: %s", self.attempt, fenced.exceptions[0])
            self._outcome = self._outcome or "fenced"
        finally:
            ATTEMPTS.labels(self.attempt.kind, self._outcome or "cancelled").inc()
            sending.cancel()
            await remove_folder(self._folder)
            with suppress(OSError):  # another attempt's folder lies beside it
                self._folder.parent.rmdir()

    async def _work(self) -> None:
        fetched = await self._fetch()
        if self._stopping.is_set():
            fetched = Stopped(step=0)
        if not isinstance(fetched, ChildFiles):
            await self._report_end(fetched)
            return
        threads = self._assignment.threads or self._shop.threads
        environment = child_environment(threads, self._assignment.spec.base_model)
        try:
            child = await ChildProcess.start(
                self._shop.command, {**self._shop.environment, **environment}
            )
        except OSError as error:
            await self._report_end(
                Failed(code="process_not_started", message=without_paths(error), retryable=True)
            )
            return
        _log.info("%s runs in process %d", self.attempt, child.pid)
        async with child, asyncio.TaskGroup() as tasks:
            child.tell(self._input(fetched, threads).model_dump_json().encode())
            stopping = tasks.create_task(self._stop_child(child))
            tasks.create_task(self._listen(child))
            await self._report()
            stopping.cancel()

    def _input(self, files: ChildFiles, threads: int) -> ChildInput:
        return ChildInput(
            assignment=self._assignment,
            work_dir=self._folder,
            files=files,
            models_folder=self._shop.models_folder,
            made_folder=self._shop.base_models,
            device=self._shop.device,
            threads=threads,
        )

    async def _fetch(self) -> ChildFiles | Failed | Stopped:
        try:
            return await self._patiently(
                "the input files cannot be fetched",
                lambda: fetch_inputs(
                    self._shop.blobs,
                    self._assignment,
                    self._folder / "input",
                    self._shop.base_models,
                ),
            )
        except (OSError, ValueError) as error:
            return Failed(code="input_unreadable", message=without_paths(error), retryable=False)

    async def _patiently(self, what: str, do: Callable[[], Awaitable[T]]) -> T:
        """Try again while the disk is full or the store is away: finished work must not be lost."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await do()
            except OSError as error:
                if error.errno in HOPELESS or self._stopping.is_set():
                    raise  # trying again would give the same, or there is no time left
                self._say("WARNING", f"{what}, trying again in {pause:.0f} s: {error}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _stop_child(self, child: ChildProcess) -> None:
        await self._stopping.wait()
        child.tell(ChildOrder(stop=True).model_dump_json().encode())
        await asyncio.sleep(self._stop_s)
        self._say("WARNING", f"the process did not stop within {self._stop_s:.0f} s and is killed")
        child.kill()

    async def _listen(self, child: ChildProcess) -> None:
        """Take the child's facts until it ends; its last one is given on when all else is in."""
        last: Fact | None = None
        async with asyncio.TaskGroup() as tasks:
            errors = tasks.create_task(self._listen_to_errors(child))
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE_S) as patience:
                    async for line in child.lines():
                        if last is None:
                            last = self._take(line)
                            wait_s = SILENCE_S if last is None else EXIT_S
                            patience.reschedule(asyncio.get_running_loop().time() + wait_s)
            if last is None and patience.expired():
                self._say("WARNING", f"the process said nothing for {SILENCE_S:.0f} s; killing it")
                child.kill()
            status = await child.ended(EXIT_S)
            _, unread = await asyncio.wait({errors}, timeout=EXIT_S)
            if unread:
                errors.cancel()
        self._put(last or self._crash(status))

    def _take(self, line: bytes) -> Fact | None:
        """Give a fact to whom it concerns, or return it if it is the last one."""
        try:
            fact = decode_fact(line)
        except ValidationError:
            self._say("WARNING", f"not a fact: {line[:500].decode(errors='replace')}")
            return None
        match fact:
            case StepDone():
                method = self._assignment.spec.method
                STEPS.labels(method).inc()
                TOKENS.labels(method).inc(max(0.0, fact.tokens_per_s * fact.step_s))
                self._telemetry.step(fact)
            case LogLine():
                self._telemetry.log(fact.level, fact.message)
            case Started() | EpochDone() | CheckpointWritten() | MicroBatchHalved():
                self._put(fact)
            case TrainingFinished() | EvaluationFinished() | Failed() | Stopped():
                return fact
            case _:
                assert_never(fact)
        return None

    async def _listen_to_errors(self, child: ChildProcess) -> None:
        count = 0
        async for raw in child.errors():
            line = read_line(raw)
            if line is None or count > MAX_LINES:
                continue
            count += 1
            if count > MAX_LINES:
                line = ("WARNING", "the rest of what the process prints is left out")
            self._telemetry.log(*line)

    def _crash(self, status: int) -> Fact:
        if self._stopping.is_set():
            return Stopped(step=0)
        what = "training" if isinstance(self._assignment, TrainAssignment) else "evaluation"
        message = f"{what} process {how_it_ended(status)}"
        self._say("ERROR", message)
        return Failed(code="process_died", message=message, retryable=True)

    def _say(self, level: Level, message: str) -> None:
        self._telemetry.log(level, message, source="system")
        _log.log(logging.getLevelNamesMapping()[level], "%s: %s", self.attempt, message)

    def _put(self, fact: Fact) -> None:
        if isinstance(fact, CheckpointWritten):
            # While the log is away a training goes on for hours; only its newest one is of use.
            for older in [kept for kept in self._facts if isinstance(kept, CheckpointWritten)]:
                self._facts.remove(older)
                shutil.rmtree(older.folder, ignore_errors=True)
        self._facts.append(fact)
        self._arrived.set()

    async def _report(self) -> None:
        """Turn facts into reports, one after another, up to and with the last one."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._facts:
                fact = self._facts.popleft()
                match fact:
                    case Started():
                        await self._report_start(fact)
                    case EpochDone():
                        await self._report_epoch(fact)
                    case CheckpointWritten():
                        await self._report_checkpoint(fact)
                    case MicroBatchHalved():
                        await self._report_micro_batch(fact)
                    case _:
                        await self._report_end(fact)
                        return

    async def _report_start(self, fact: Started) -> None:
        if not isinstance(self._assignment, TrainAssignment):
            return  # an evaluation is claimed, and then it has a result
        try:
            base_model = await self._patiently(
                "the base model cannot be stored", lambda: self._stored_base_model(fact)
            )
        except OSError as error:
            reason = f"the base model could not be stored: {without_paths(error)}"
            await self._report_end(
                Failed(code="base_model_not_stored", message=reason, retryable=True)
            )
            # What the process goes on to make could never say what it was made of.
            raise Fenced(reason) from error
        await self._reports.send(
            shortened_start(
                RecordStart(
                    job_id=self.attempt.work_id,
                    attempt=self.attempt.number,
                    base_model=base_model,
                    **fact.model_dump(exclude={"fact", "base_model", "base_model_folder"}),
                )
            )
        )

    async def _stored_base_model(self, fact: Started) -> BaseModelRecord | None:
        """The record with the files by which other agents get the same model."""
        record, pinned = fact.base_model, self._assignment.base_model
        if record is None:
            return None
        if pinned is not None:
            return record.model_copy(update={"files": pinned.files})
        if fact.base_model_folder is None:
            return record
        return await upload_base_model(self._shop.blobs, record, Path(fact.base_model_folder))

    async def _report_epoch(self, fact: EpochDone) -> None:
        await self._reports.send(
            RecordEpoch(
                job_id=self.attempt.work_id,
                attempt=self.attempt.number,
                **fact.model_dump(exclude={"fact"}),
            )
        )

    async def _report_checkpoint(self, fact: CheckpointWritten) -> None:
        folder = Path(fact.folder)
        try:
            if any(
                isinstance(later, CheckpointWritten | TrainingFinished) for later in self._facts
            ):
                return  # overtaken while the log was away
            files = await upload_folder(self._shop.blobs, folder)
            saved = TrainingCheckpoint(step=fact.step, epoch=fact.epoch, files=files)
        except OSError as error:
            self._say("WARNING", f"the checkpoint of step {fact.step} is lost: {error}")
            return
        finally:
            await remove_folder(folder)
        await self._reports.send(
            RecordCheckpoint(
                job_id=self.attempt.work_id, attempt=self.attempt.number, checkpoint=saved
            )
        )

    async def _report_micro_batch(self, fact: MicroBatchHalved) -> None:
        await self._reports.send(
            RecordMicroBatch(
                job_id=self.attempt.work_id,
                attempt=self.attempt.number,
                step=fact.step,
                micro_batch_tokens=fact.micro_batch_tokens,
                reason=fact.reason[:MAX_REASON],
            )
        )

    async def _report_end(self, fact: Fact) -> None:
        try:
            command = await self._patiently(
                "the result cannot be stored", lambda: self._last_words(fact)
            )
        except OSError as error:
            command = self.attempt.released(f"the result could not be stored: {error}")
        await self._telemetry.flush(FLUSH_S)
        outcome = await self._reports.send(command)
        self._outcome = _outcome(fact)
        if outcome.status in {"rejected", "failed"} and isinstance(
            fact, TrainingFinished | EvaluationFinished
        ):  # the same work would give the same refused result, again and again
            message = f"the result was refused: {outcome.message or outcome.status}"
            await self._reports.send(self.attempt.failed(outcome.code or "refused", message))

    async def _last_words(self, fact: Fact) -> Command:
        match fact:
            case TrainingFinished():
                tabular = self._assignment.spec.method == "tabular"
                folder = TABLE_MODEL_FOLDER if tabular else ADAPTER_FOLDER
                files = await upload_folder(self._shop.blobs, Path(fact.folder), folder)
                return CompleteJob(
                    job_id=self.attempt.work_id,
                    attempt=self.attempt.number,
                    adapter=files,
                    **fact.model_dump(exclude={"fact", "folder"}),
                )
            case EvaluationFinished():
                return RecordResult(
                    evaluation_id=self.attempt.work_id,
                    attempt=self.attempt.number,
                    summary=shortened_summary(fact.summary),
                    outputs=await self._shop.blobs.put_file(Path(fact.outputs_path)),
                )
            case Failed(retryable=False):
                return self.attempt.failed(fact.code, fact.message)
            case Failed():
                return self.attempt.released(fact.message)
            case _:
                return self.attempt.released(self._stop_reason or "stopped")


def _outcome(fact: Fact) -> Outcome:
    match fact:
        case TrainingFinished() | EvaluationFinished():
            return "finished"
        case Failed(retryable=False):
            return "failed"
        case Failed():
            return "released"
        case _:
            return "stopped"
