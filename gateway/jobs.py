"""Jobs over HTTP: submit, watch, cancel."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from domain.jobs.commands import CancelJob, ChangePriority, SubmitJob
from domain.jobs.spec import BASE_MODELS, HyperparameterChoices, Method, SplitConfig
from domain.placement import DEFAULT_PRIORITY, Needs
from domain.subjects import NAME
from gateway.as_of import Readable, Shown, missing
from gateway.authentication import Principal
from gateway.bodies import ModelName, Seed
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.etags import IfMatch, require_revision
from gateway.hyperparameters import DEFAULTS, WHICH_METHOD
from gateway.pages import Cursor, Limit, Page, decode_cursor, linked, page_of
from gateway.queueing import Waiting, Waits
from gateway.registry import BaseModelFacts, base_model_of
from projections import answers
from projections.jobs import EpochRow, JobStatus
from projections.metrics import StepRow
from projections.queries import Queries

Points = Annotated[int, QueryParameter(ge=2, le=5000, description="At most so many steps; the first and the last are among them.")]  # fmt: skip


JobPriority = Annotated[
    int, msgspec.Meta(ge=0, le=100, description="0 to 100; a higher one starts first.")
]
PoolName = Annotated[
    str,
    msgspec.Meta(
        pattern=f"^{NAME}$(?!\\n)",
        description="Agents of this pool alone may run it; any if left out.",
    ),
]
NEEDS: Final = (
    "What an agent must have to run it: `accelerator` is `cpu`, `gpu` or a part of its name, "
    "`memory_bytes` the least that the accelerator has."
)


class SubmitBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is trained, on what, and how; what is left out takes its default."""

    model: ModelName
    dataset_id: UUID
    test_dataset_id: UUID | None = None
    base_model: (
        Annotated[
            str,
            msgspec.Meta(
                min_length=1,
                max_length=300,
                description="The method's own if left out: "
                + ", ".join(f"`{model}` for `{method}`" for method, model in BASE_MODELS.items()),
            ),
        ]
        | None
    ) = None
    method: Annotated[Method | None, msgspec.Meta(description=WHICH_METHOD)] = None
    split: SplitConfig = SplitConfig()
    hyperparameters: Annotated[HyperparameterChoices, msgspec.Meta(description=DEFAULTS)] = (
        HyperparameterChoices()
    )
    seed: Seed = 0
    priority: JobPriority = DEFAULT_PRIORITY
    pool: PoolName | None = None
    needs: Annotated[Needs, msgspec.Meta(description=NEEDS)] = Needs()


class PriorityBody(msgspec.Struct, forbid_unknown_fields=True):
    priority: JobPriority


class Progress(msgspec.Struct):
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0  # 0 until an attempt has started
    percent: float = 0.0
    eta_s: float | None = None


class Failure(msgspec.Struct):
    code: str
    message: str


class VersionRef(msgspec.Struct):
    model: str
    number: int
    id: UUID


class Epoch(msgspec.Struct):
    epoch: int
    step: int
    attempt: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    time: datetime


class Segment(msgspec.Struct):
    text: str
    supervised: bool


class Supervision(msgspec.Struct):
    """What the loss of a language model is taken over, in its own tokens, and one row as it reads it."""

    rows: int
    tokens: int
    supervised_tokens: int
    truncated_rows: int
    dropped_rows: int
    longest_row: int
    padding_share: float
    example: list[Segment]


class Job(msgspec.Struct):
    """A training job from its submission to its end.

    `method` and `base_model` are null while it is not decided what suits the dataset.
    `base_model_record` and `supervision` are there once an attempt has started. `waiting` is there where
    one job is read that is in the queue; lists and the past are without it.
    """

    id: UUID
    model: str
    base_model: str | None
    base_model_record: BaseModelFacts | None
    method: str | None
    status: JobStatus
    attempt: int
    agent_id: str | None
    progress: Progress
    loss: float | None
    tokens_per_s: float | None
    dataset_id: UUID
    test_dataset_id: UUID | None
    spec: dict[str, Any]
    submitted_by: str
    priority: int
    pool: str | None
    needs: dict[str, Any]
    waiting: Waiting | None
    supervision: Supervision | None
    epochs: list[Epoch]
    error: Failure | None
    version: VersionRef | None
    evaluation_id: UUID | None
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class StepMetrics(msgspec.Struct):
    """One optimizer step; the loss is the mean cross-entropy in nats per row.

    Of a language model it is in nats per supervised token.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    eta_s: float
    attempt: int
    time: datetime


class JobsController(Controller):
    path = "/jobs"
    tags = ("jobs",)

    @post("/", status_code=202)
    async def submit(
        self,
        data: JSONBody[SubmitBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
    ) -> Response[Job]:
        """Ask for a new version of a model. The job is queued and starts when an agent is free."""
        command = _submit(data, caller.resource_id)
        done = await commands.send(caller, "job", command.job_id, command)
        found = await queries.job(workspace, command.job_id) if done.readable else None
        job = job_answer(found) if found else _as_asked(command, done)
        return Response(job, status_code=202, headers={"Location": f"/api/v1/jobs/{job.id}"})

    @get("/")
    async def list_jobs(
        self,
        request: Request[Principal, Any, Any],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        status: Annotated[JobStatus | None, QueryParameter()] = None,
        model: Annotated[str | None, QueryParameter(max_length=63)] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> Response[Page[Job]]:
        """Newest first."""
        before = decode_cursor(cursor)
        found = await queries.jobs(
            workspace, status=status, model=model, limit=limit + 1, before=before
        )
        page = page_of(found, limit, lambda job: job.row.created_sequence, job_answer)
        return linked(request, page)

    @get("/{job_id:uuid}")
    async def get_job(
        self,
        job_id: FromPath[UUID],
        shown: NamedDependency[Shown],
        workspace: NamedDependency[str],
        waits: NamedDependency[Waits],
    ) -> Response[Job]:
        """One job with its progress, what each epoch came to and, while it is queued, why it waits.

        With `as_of` the progress is what events told: without the steps since the last of them, and
        without speed and time left.
        """
        found = await require_job(shown.queries, workspace, job_id)
        epochs = await shown.queries.job_epochs(workspace, job_id)
        answer = job_answer(found, epochs)
        if answer.status == "queued" and shown.queries.sequence is None:
            answer.waiting = await waits.of(job_id)
        return shown.answered(answer)

    @post("/{job_id:uuid}/cancel", status_code=202)
    async def cancel(
        self,
        job_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Job:
        """Stop it: at once where it waits, within one optimizer step where it runs."""
        if if_match is not None:
            require_revision(if_match, (await require_job(queries, workspace, job_id)).row.sequence)
        done = await commands.send(caller, "job", job_id, CancelJob(job_id=job_id))
        return job_answer(await require_job(queries, workspace, job_id), done=done)

    @post("/{job_id:uuid}/priority", status_code=202)
    async def change_priority(
        self,
        job_id: FromPath[UUID],
        data: JSONBody[PriorityBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Job:
        """Let it start earlier or later. What runs goes on; its next attempt has the new priority."""
        if if_match is not None:
            require_revision(if_match, (await require_job(queries, workspace, job_id)).row.sequence)
        command = ChangePriority(job_id=job_id, priority=data.priority)
        done = await commands.send(caller, "job", job_id, command)
        return job_answer(await require_job(queries, workspace, job_id), done=done)

    @get("/{job_id:uuid}/metrics")
    async def metrics(
        self,
        job_id: FromPath[UUID],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        points: Points = 500,
    ) -> Page[StepMetrics]:
        """Steps in order, thinned where there are more than asked for."""
        await require_job(queries, workspace, job_id)
        steps = await queries.job_steps(workspace, job_id, points=points)
        return Page([_step(step) for step in steps])


async def require_job(queries: Readable, workspace: str, job_id: UUID) -> answers.Job:
    found = await queries.job(workspace, job_id)
    if found is None:
        raise missing(queries, f"job {job_id}")
    return found


def _submit(body: SubmitBody, job_id: UUID) -> SubmitJob:
    return SubmitJob(
        job_id=job_id,
        model_name=body.model,
        method=body.method,
        base_model=body.base_model,
        dataset_id=body.dataset_id,
        test_dataset_id=body.test_dataset_id,
        split=body.split,
        hyperparameters=body.hyperparameters,
        seed=body.seed,
        priority=body.priority,
        pool=body.pool,
        needs=body.needs,
    )


def job_answer(
    found: answers.Job, epochs: list[EpochRow] | None = None, done: Done | None = None
) -> Job:
    row = found.row
    failed = row.error_code is not None
    return Job(
        id=row.id,
        model=row.model,
        base_model=row.base_model,
        base_model_record=base_model_of(row.base_model_record),
        method=row.method,
        status=row.status,
        attempt=row.attempt,
        agent_id=row.agent_id,
        progress=_progress(found.progress),
        loss=found.loss,
        tokens_per_s=found.tokens_per_s,
        dataset_id=row.dataset_id,
        test_dataset_id=row.test_dataset_id,
        spec=row.spec,
        submitted_by=row.submitted_by,
        priority=row.priority,
        pool=row.pool,
        needs=row.needs,
        waiting=None,
        supervision=_supervision(row.supervision),
        epochs=[_epoch(epoch) for epoch in epochs or []],
        error=Failure(row.error_code or "", row.error_message or "") if failed else None,
        version=_version(row.model, row.version_number, row.version_id),
        evaluation_id=row.evaluation_id,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        sequence=row.sequence,
        note=note_of(done),
    )


def _progress(progress: answers.Progress) -> Progress:
    return Progress(
        progress.epoch,
        progress.epochs,
        progress.step,
        progress.steps or 0,
        progress.percent or 0.0,
        progress.eta_s,
    )


def _supervision(found: dict[str, Any] | None) -> Supervision | None:
    return None if found is None else msgspec.convert(found, Supervision)


def _version(model: str, number: int | None, id_: UUID | None) -> VersionRef | None:
    return VersionRef(model, number, id_) if number is not None and id_ is not None else None


def _epoch(row: EpochRow) -> Epoch:
    return Epoch(
        row.epoch,
        row.step,
        row.attempt,
        row.train_loss,
        row.validation_loss,
        row.validation_accuracy,
        row.seconds,
        row.time,
    )


def _step(row: StepRow) -> StepMetrics:
    return StepMetrics(
        step=row.step,
        epoch=row.epoch,
        loss=row.loss,
        learning_rate=row.learning_rate,
        grad_norm=row.grad_norm,
        tokens_per_s=row.tokens_per_s,
        eta_s=row.eta_s,
        attempt=row.attempt,
        time=row.time,
    )


def _as_asked(command: SubmitJob, done: Done) -> Job:
    """What will be there once it is decided, or once the read model is back."""
    needs = command.needs.model_dump(mode="json")
    asked = {"dataset_id", "test_dataset_id", "split", "hyperparameters", "seed"}
    return Job(
        id=command.job_id,
        model=command.model_name,
        base_model=command.base_model,
        base_model_record=None,
        method=command.method,
        status="queued",
        attempt=0,
        agent_id=None,
        progress=Progress(epochs=command.hyperparameters.epochs or 0),
        loss=None,
        tokens_per_s=None,
        dataset_id=command.dataset_id,
        test_dataset_id=command.test_dataset_id,
        spec=command.model_dump(mode="json", include=asked, exclude_none=True),
        submitted_by="",
        priority=command.priority,
        pool=command.pool,
        needs=needs,
        waiting=None,
        supervision=None,
        epochs=[],
        error=None,
        version=None,
        evaluation_id=None,
        created_at=None,
        started_at=None,
        ended_at=None,
        sequence=done.sequence,
        note=note_of(done),
    )
