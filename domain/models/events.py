"""What happens to a model."""

from typing import Literal
from uuid import UUID

from domain.messages import Event


class ModelCreated(Event):
    type: Literal["ModelCreated"] = "ModelCreated"
    model_id: UUID
    name: str
    base_model: str


class VersionNumbered(Event):
    """The next number of this model belongs to that version; numbers have no gaps."""

    type: Literal["VersionNumbered"] = "VersionNumbered"
    model_id: UUID
    version_id: UUID
    number: int
    job_id: UUID


class ModelActivated(Event):
    type: Literal["ModelActivated"] = "ModelActivated"
    model_id: UUID
    version_id: UUID
    number: int
    previous_version_id: UUID | None


ModelEvent = ModelCreated | VersionNumbered | ModelActivated
