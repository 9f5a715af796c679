"""Which models a list shows: by base model, by status, by when they were created."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import FromClause, Select, exists

# active: a version is in service; otherwise: a version has this status
ModelStatus = Literal["active", "uploading", "ready", "error"]


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """What is None does not choose."""

    base_model: str | None = None
    status: ModelStatus | None = None
    created_from: datetime | None = None  # this moment too
    created_before: datetime | None = None  # this moment no more


ALL_MODELS: Final = ModelFilter()


def with_filter(
    models: Select[Any], chosen: ModelFilter, model: FromClause, version: FromClause
) -> Select[Any]:
    """Of ``models``, which are rows of ``model``, those that are chosen."""
    if chosen.base_model is not None:
        models = models.where(model.c.base_model == chosen.base_model)
    if chosen.created_from is not None:
        models = models.where(model.c.created_at >= chosen.created_from)
    if chosen.created_before is not None:
        models = models.where(model.c.created_at < chosen.created_before)
    if chosen.status == "active":
        models = models.where(model.c.active_version_id.is_not(None))
    elif chosen.status is not None:
        mine = exists().where(
            version.c.workspace == model.c.workspace,
            version.c.model_id == model.c.id,
            version.c.status == chosen.status,
        )
        models = models.where(mine)
    return models
