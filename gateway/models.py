"""Models over HTTP: list, activate, predict, download."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, HttpMethod, Request, Response, get, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from domain.models.commands import ActivateModel
from gateway.as_of import Listed, Shown
from gateway.authentication import Principal
from gateway.bodies import VersionNumber
from gateway.commanding import Caller, Commands
from gateway.dates import DateFrom, DateTo, behind, first_moment
from gateway.downloads import MEDIA_TYPE, Archive, archive_of
from gateway.etags import IfMatch, require_revision
from gateway.pages import Limit, Page, PageNumber
from gateway.ports import Blobs
from gateway.predicting import Predictions, Predictor
from gateway.problems import invalid
from gateway.ranged import OCTETS, ranged
from gateway.registry import (
    Activation,
    Model,
    Version,
    activation_answer,
    model_answer,
    require_model,
    require_ready,
    require_version,
    version_answer,
)
from projections.model_filter import ModelFilter, ModelStatus
from projections.queries import Queries

Status = Annotated[ModelStatus | None, QueryParameter(description="`active`: a version is in service; otherwise: a version has this status.")]  # fmt: skip
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]


class ActivateBody(msgspec.Struct, forbid_unknown_fields=True):
    version: VersionNumber


Rows = Annotated[
    list[dict[str, int | float | str | bool | None]], msgspec.Meta(min_length=1, max_length=1000)
]


class PredictBody(msgspec.Struct, forbid_unknown_fields=True):
    """Texts to classify, or rows of a table, by the version in service or by another ready one.

    A row names columns and their values: numbers for columns of numbers, texts for categories. What
    is left out or null is missing; each prediction names what was.
    """

    texts: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=256)] | None = None
    rows: Rows | None = None
    version: VersionNumber | None = None


class ModelsController(Controller):
    path = "/models"
    tags = ("models",)

    @get("/")
    async def list_models(
        self,
        listed: NamedDependency[Listed],
        workspace: NamedDependency[str],
        base_model: Annotated[str | None, QueryParameter(max_length=300)] = None,
        status: Status = None,
        date_from: DateFrom = None,
        date_to: DateTo = None,
        limit: Limit = 20,
        page: PageNumber = None,
    ) -> Response[Page[Model]]:
        """Newest first; pages by `cursor`, which new models do not shift, or by `page`, which they do."""
        if page is not None and listed.before is not None:
            raise invalid("page", "this or `cursor`, not both")
        chosen = ModelFilter(base_model, status, first_moment(date_from), behind(date_to))
        rows = await listed.queries.models(
            workspace,
            chosen,
            limit=limit + 1,
            before=listed.before,
            offset=limit * (page - 1) if page else 0,
        )
        return listed.page(rows, limit, lambda row: row.created_sequence, model_answer, page)

    @get("/{name:str}")
    async def get_model(
        self,
        name: FromPath[str],
        shown: NamedDependency[Shown],
        workspace: NamedDependency[str],
    ) -> Response[Model]:
        """One model and what is in service of it."""
        return shown.answered(model_answer(await require_model(shown.queries, workspace, name)))

    @get("/{name:str}/activations")
    async def activations(
        self,
        name: FromPath[str],
        listed: NamedDependency[Listed],
        workspace: NamedDependency[str],
        limit: Limit = 20,
    ) -> Response[Page[Activation]]:
        """What was in service when, and who put it there; newest first."""
        model = await require_model(listed.queries, workspace, name)
        found = await listed.queries.activations(
            workspace, model.id, limit=limit + 1, before=listed.before
        )
        return listed.page(found, limit, lambda one: one.sequence, activation_answer)

    @get("/{name:str}/versions")
    async def versions(
        self,
        name: FromPath[str],
        listed: NamedDependency[Listed],
        workspace: NamedDependency[str],
        limit: Limit = 20,
    ) -> Response[Page[Version]]:
        """Newest first."""
        model = await require_model(listed.queries, workspace, name)
        found = await listed.queries.versions(
            workspace, model.id, limit=limit + 1, before=listed.before
        )
        return listed.page(found, limit, lambda one: one.row.created_sequence, version_answer)

    @get("/{name:str}/versions/{number:int}")
    async def version(
        self,
        name: FromPath[str],
        number: FromPath[int],
        shown: NamedDependency[Shown],
        workspace: NamedDependency[str],
    ) -> Response[Version]:
        """One version: files, lineage, training and evaluation."""
        model = await require_model(shown.queries, workspace, name)
        version = await require_version(shown.queries, workspace, model, number)
        return shown.answered(version_answer(version))

    @route(
        "/{name:str}/versions/{number:int}/download",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        media_type=MEDIA_TYPE,
    )
    async def download(
        self,
        request: Request[Principal, Any, Any],
        name: FromPath[str],
        number: FromPath[int],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        blobs: NamedDependency[Blobs],
    ) -> Response[None] | Stream:
        """The version as a ZIP: `lora_adapters/`, a model card as `README.md`, `metrics.json`.

        A model of a table has `model/` instead, with its schema and its weights.

        Where the base model was made here, and so can be had from nowhere else, also `base_model/`.
        A download that broke off goes on with `Range` and `If-Range`.
        """
        archive = await require_archive(queries, workspace, name, number)
        return ranged(request, await archive.content(blobs))

    @route(
        "/{name:str}/versions/{number:int}/files/{path:path}",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        media_type=OCTETS,
    )
    async def file(
        self,
        request: Request[Principal, Any, Any],
        name: FromPath[str],
        number: FromPath[int],
        path: FromPath[str],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        blobs: NamedDependency[Blobs],
    ) -> Response[None] | Stream:
        """One file of the version, by its name in the ZIP."""
        archive = await require_archive(queries, workspace, name, number)
        return ranged(request, await archive.file(blobs, path.removeprefix("/")))

    @post("/{name:str}/activate", status_code=200)
    async def activate(
        self,
        name: FromPath[str],
        data: JSONBody[ActivateBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Model:
        """Put a ready version into service; activating an older one again takes it back."""
        model = await require_model(queries, workspace, name)
        require_revision(if_match, model.sequence)
        version = await require_version(queries, workspace, model, data.version)
        command = ActivateModel(model_id=model.id, version_id=version.row.id)
        done = await commands.send(caller, "model", model.id, command)
        return model_answer(await require_model(queries, workspace, name), done)

    @post("/{name:str}/predict", status_code=200)
    async def predict(
        self,
        name: FromPath[str],
        data: JSONBody[PredictBody],
        request: Request[Principal, Any, Any],
        predictor: NamedDependency[Predictor],
    ) -> Predictions:
        """Classify texts, or rows of a table, with the version in service, or with the one named.

        Language models answer at `/v1/chat/completions`.
        """
        return await predictor.predict(request.scope, name, data.version, data.texts, data.rows)


async def require_archive(queries: Queries, workspace: str, name: str, number: int) -> Archive:
    model = await require_model(queries, workspace, name)
    version = await require_version(queries, workspace, model, number)
    require_ready(version.row)
    return archive_of(version)
