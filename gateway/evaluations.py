"""Evaluations over HTTP: base against fine-tuned, asked for, read, cancelled."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from domain.evaluations.commands import CancelEvaluation, RunEvaluation
from gateway.as_of import Listed, Readable, Shown, missing
from gateway.bodies import ModelName, VersionNumber
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.etags import IfMatch, require_revision
from gateway.jobs import Failure
from gateway.pages import Limit, Page
from gateway.registry import require_model, require_version
from projections import answers
from projections.evaluations import EvaluationStatus
from projections.queries import Queries


class EvaluateBody(msgspec.Struct, forbid_unknown_fields=True):
    model: ModelName
    version: VersionNumber


class Evaluation(msgspec.Struct):
    """Base against fine-tuned on the same held-out rows, paired; `summary` once it is completed.

    `summary.metric` says what the verdict is about: `accuracy`, or `bits_per_byte` for a language
    model whose answers are no labels; then `ci95` is that of `bits_per_byte_delta`, and less is
    better.
    """

    id: UUID
    model: str
    version: int
    status: EvaluationStatus
    summary: dict[str, Any] | None
    error: Failure | None
    created_at: datetime | None
    ended_at: datetime | None
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class EvaluationsController(Controller):
    path = "/evaluations"
    tags = ("evaluations",)

    @get("/")
    async def list_evaluations(
        self,
        listed: NamedDependency[Listed],
        workspace: NamedDependency[str],
        model: Annotated[str | None, QueryParameter(max_length=63)] = None,
        version: Annotated[int | None, QueryParameter(ge=1, le=2**31 - 1)] = None,
        limit: Limit = 20,
    ) -> Response[Page[Evaluation]]:
        """Newest first."""
        found = await listed.queries.evaluations(
            workspace, model=model, version=version, limit=limit + 1, before=listed.before
        )
        return listed.page(found, limit, lambda one: one.row.created_sequence, evaluation_answer)

    @post("/", status_code=202)
    async def evaluate(
        self,
        data: JSONBody[EvaluateBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
    ) -> Response[Evaluation]:
        """Evaluate a ready version once more; the first time happens by itself."""
        model = await require_model(queries, workspace, data.model)
        version = await require_version(queries, workspace, model, data.version)
        command = RunEvaluation(evaluation_id=caller.resource_id, version_id=version.row.id)
        done = await commands.send(caller, "evaluation", command.evaluation_id, command)
        found = await queries.evaluation(workspace, caller.resource_id) if done.readable else None
        answer = evaluation_answer(found) if found else _as_asked(caller.resource_id, data, done)
        where = {"Location": f"/api/v1/evaluations/{answer.id}"}
        return Response(answer, status_code=202, headers=where)

    @get("/{evaluation_id:uuid}")
    async def get_evaluation(
        self,
        evaluation_id: FromPath[UUID],
        shown: NamedDependency[Shown],
        workspace: NamedDependency[str],
    ) -> Response[Evaluation]:
        """One evaluation with its figures."""
        found = await require_evaluation(shown.queries, workspace, evaluation_id)
        return shown.answered(evaluation_answer(found))

    @get("/{evaluation_id:uuid}/examples")
    async def examples(
        self,
        evaluation_id: FromPath[UUID],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
    ) -> Page[dict[str, Any]]:
        """Twenty rows side by side: the text, the answer expected, what base and fine-tuned said."""
        await require_evaluation(queries, workspace, evaluation_id)
        return Page(await queries.evaluation_examples(workspace, evaluation_id) or [])

    @post("/{evaluation_id:uuid}/cancel", status_code=202)
    async def cancel(
        self,
        evaluation_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Evaluation:
        """Stop it, whether it waits or runs."""
        if if_match is not None:
            found = await require_evaluation(queries, workspace, evaluation_id)
            require_revision(if_match, found.row.sequence)
        command = CancelEvaluation(evaluation_id=evaluation_id)
        done = await commands.send(caller, "evaluation", evaluation_id, command)
        return evaluation_answer(await require_evaluation(queries, workspace, evaluation_id), done)


async def require_evaluation(
    queries: Readable, workspace: str, evaluation_id: UUID
) -> answers.Evaluation:
    found = await queries.evaluation(workspace, evaluation_id)
    if found is None:
        raise missing(queries, f"evaluation {evaluation_id}")
    return found


def evaluation_answer(found: answers.Evaluation, done: Done | None = None) -> Evaluation:
    row = found.row
    failed = row.error_code is not None
    return Evaluation(
        id=row.id,
        model=row.model,
        version=found.version_number or 0,
        status=row.status,
        summary=row.summary,
        error=Failure(row.error_code or "", row.error_message or "") if failed else None,
        created_at=row.created_at,
        ended_at=row.ended_at,
        sequence=row.sequence,
        note=note_of(done),
    )


def _as_asked(evaluation_id: UUID, body: EvaluateBody, done: Done) -> Evaluation:
    return Evaluation(
        id=evaluation_id,
        model=body.model,
        version=body.version,
        status="queued",
        summary=None,
        error=None,
        created_at=None,
        ended_at=None,
        sequence=done.sequence,
        note=note_of(done),
    )
