"""What may be asked of a model."""

from typing import Literal
from uuid import UUID

from domain.messages import Command


class CreateModel(Command):
    type: Literal["CreateModel"] = "CreateModel"
    model_id: UUID
    name: str
    base_model: str


class NumberVersion(Command):
    type: Literal["NumberVersion"] = "NumberVersion"
    model_id: UUID
    version_id: UUID
    job_id: UUID


class ActivateModel(Command):
    """The handler looks the version up and puts its status into the command."""

    type: Literal["ActivateModel"] = "ActivateModel"
    model_id: UUID
    version_id: UUID
    version_status: Literal["absent", "uploading", "ready", "error"] = "absent"


ModelCommand = CreateModel | NumberVersion | ActivateModel
