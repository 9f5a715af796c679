"""Which weights answer: the versions in service, any other ready one, and the models they are based on."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from domain.base_models import BaseModelRecord
from domain.inference import InService, ServedModel
from domain.jobs.spec import LANGUAGE_METHODS
from domain.subjects import derived_id
from gateway.predicting import adapter_of
from projections.model_versions import VersionRow
from projections.models import ModelRow
from projections.queries import Queries
from projections.registry import ReadModelUnavailable

PAGE: Final = 100
MOST_TOLD: Final = 100  # to agents, which keep fewer; some hundreds would outgrow a message of NATS


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model of a language model in service, as it was when that one was trained."""

    name: str
    inference_id: UUID  # what its requests are addressed to
    served: ServedModel
    version: VersionRow  # the one it is known from


class Catalog:
    """Reads what can be asked; a version never changes, so those in service are read once."""

    def __init__(self, queries: Queries, workspace: str) -> None:
        self._queries = queries
        self._workspace = workspace
        self._known: dict[UUID, VersionRow] = {}

    async def in_service(self) -> InService | None:
        """For agents, the newest models; None while the read model is away."""
        try:
            active = await self.active()
        except ReadModelUnavailable:
            return None
        return InService(models=tuple(map(served_model, active[:MOST_TOLD])))

    async def active(self, methods: Collection[str] | None = None) -> list[VersionRow]:
        """The version in service of every model that has one, the newest model first."""
        active = {}
        async for model in self._models():
            if model.active_version_id is not None and model.active_number is not None:
                row = self._known.get(model.active_version_id)
                row = row or await self.version(model, model.active_number)
                if row is not None:
                    active[row.id] = row
        self._known = active
        return [row for row in active.values() if methods is None or row.spec["method"] in methods]

    async def model(self, name: str) -> ModelRow | None:
        return await self._queries.model(self._workspace, name)

    async def version(self, model: ModelRow, number: int) -> VersionRow | None:
        if number == model.active_number and model.active_version_id in self._known:
            return self._known[model.active_version_id]
        found = await self._queries.version(self._workspace, model.id, number)
        return found.row if found else None

    async def base_models(self) -> list[BaseModel]:
        """Those of the language models in service, each once."""
        found = {}
        for row in await self.active(LANGUAGE_METHODS):
            if row.base_model not in found:
                found[row.base_model] = self._base_model(row)
        return list(found.values())

    def _base_model(self, row: VersionRow) -> BaseModel:
        served = served_model(row).model_copy(update={"version_id": None, "adapter": ()})
        inference_id = derived_id(self._workspace, "base_model", row.base_model)
        return BaseModel(row.base_model, inference_id, served, row)

    async def _models(self) -> AsyncIterator[ModelRow]:
        before: int | None = None
        while True:
            page = await self._queries.models(self._workspace, limit=PAGE, before=before)
            for model in page:
                yield model
            if len(page) < PAGE:
                return
            before = page[-1].created_sequence


def served_model(row: VersionRow) -> ServedModel:
    record = row.base_model_record
    return ServedModel(
        method=row.spec["method"],
        version_id=row.id,
        base_model=row.base_model,
        base=BaseModelRecord.model_validate(record) if record else None,
        adapter=adapter_of(row),
        labels=tuple(row.labels),
        max_length=row.spec["hyperparameters"]["max_length"],
    )
