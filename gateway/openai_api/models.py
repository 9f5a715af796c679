"""What can be asked, as ``/v1/models`` shows it, and which of it an id means."""

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath, PathParameter

from domain.inference import ServedModel
from domain.jobs.spec import LANGUAGE_METHODS
from domain.subjects import NAME
from gateway.inference import BaseModel, Catalog, served_model
from gateway.openai_api.errors import Failure
from projections.model_versions import VersionRow
from projections.models import ModelRow

_ID: Final = re.compile(rf"({NAME})(?::([1-9]\d{{0,8}}))?\Z")


class ModelObject(msgspec.Struct):
    """A model in service, or a base model of one; `root` says which version answers now."""

    id: str
    created: int
    owned_by: str
    root: str
    parent: str | None
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct):
    data: list[ModelObject]
    object: Literal["list"] = "list"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an id means at this moment."""

    root: str
    inference_id: UUID
    served: ServedModel
    shown: ModelObject


class Models:
    """Models by OpenAI's ids: ``<name>``, ``<name>:<number>`` and the names of base models."""

    def __init__(self, catalog: Catalog, workspace: str) -> None:
        self._catalog = catalog
        self._workspace = workspace

    async def listed(self) -> list[ModelObject]:
        active = [
            self._version(row.model, row) for row in await self._catalog.active(LANGUAGE_METHODS)
        ]
        return [*active, *map(self._base, await self._catalog.base_models())]

    async def choose(self, id_: str) -> Chosen:
        """Look up a model that can talk.

        Raises:
            Failure: There is none of this id, or it cannot.
        """
        matched = _ID.match(id_)
        model = await self._catalog.model(matched[1]) if matched else None
        if matched and model:
            row = await self._ready(model, int(matched[2]) if matched[2] else None)
            shown = self._version(id_, row)
            return Chosen(shown.root, row.model_id, served_model(row), shown)
        for base in await self._catalog.base_models():
            if base.name == id_:
                return Chosen(id_, base.inference_id, base.served, self._base(base))
        raise _no_model(f"The model '{id_}' does not exist.")

    async def _ready(self, model: ModelRow, number: int | None) -> VersionRow:
        chosen = number or model.active_number
        if chosen is None:
            raise _no_model(
                f"No version of '{model.name}' is active; activate one, "
                f"or name one as '{model.name}:{model.latest or 1}'."
            )
        row = await self._catalog.version(model, chosen)
        if row is None:
            raise _no_model(f"The model '{model.name}' has no version {chosen}.")
        if row.spec["method"] not in LANGUAGE_METHODS:
            raise _no_model(
                f"The model '{model.name}' classifies and cannot talk; "
                f"use POST /api/v1/models/{model.name}/predict."
            )
        if row.status != "ready":
            raise _no_model(f"Version {chosen} of '{model.name}' is {row.status}, not ready.")
        return row

    def _version(self, id_: str, row: VersionRow) -> ModelObject:
        root = f"{row.model}:{row.number}"
        return self._object(id_, row, root, row.base_model)

    def _base(self, base: BaseModel) -> ModelObject:
        return self._object(base.name, base.version, base.name, None)

    def _object(self, id_: str, row: VersionRow, root: str, parent: str | None) -> ModelObject:
        return ModelObject(id_, int(row.created_at.timestamp()), self._workspace, root, parent)


class ModelsController(Controller):
    path = "/models"
    tags = ("openai",)

    @get("/")
    async def list_models(self, openai_models: NamedDependency[Models]) -> ModelList:
        """Every language model that is in service, and the models they are based on."""
        return ModelList(await openai_models.listed())

    @get("/{model_id:path}")
    async def get_model(
        self,
        model_id: Annotated[
            FromPath[str], PathParameter(description="As listed, or `<name>:<number>`.")
        ],
        openai_models: NamedDependency[Models],
    ) -> ModelObject:
        """One of them; `<name>:<number>` is a version that need not be in service."""
        return (await openai_models.choose(model_id.removeprefix("/"))).shown


def _no_model(message: str) -> Failure:
    return Failure(404, message, code="model_not_found", param="model")
