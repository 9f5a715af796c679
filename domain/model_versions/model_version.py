"""The rules of a model version: registered once, then ready or failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from domain.errors import NotFound, Rejected
from domain.messages import Decider
from domain.model_versions.commands import (
    ModelVersionCommand,
    RecordFailure,
    RecordReady,
    RegisterVersion,
)
from domain.model_versions.events import (
    ModelFailed,
    ModelReady,
    ModelVersionEvent,
    VersionRegistered,
)


class VersionExists(Rejected):
    """This id is registered already, by another command."""

    code = "version_exists"


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody registered it."""


@dataclass(frozen=True, slots=True)
class Known:
    registered: VersionRegistered
    status: Literal["uploading", "ready", "error"] = "uploading"


ModelVersion = Absent | Known


def decide(command: ModelVersionCommand, version: ModelVersion) -> Sequence[ModelVersionEvent]:
    if isinstance(command, RegisterVersion):
        if isinstance(version, Known):
            raise VersionExists(f"version {command.version_id} is registered already")
        return [VersionRegistered(**command.model_dump(exclude={"type"}))]
    if isinstance(version, Absent):
        raise NotFound(f"there is no model version {command.version_id}")
    if version.status != "uploading":
        return []  # its readiness is settled
    model_id = version.registered.model_id
    match command:
        case RecordReady():
            return [ModelReady(version_id=command.version_id, model_id=model_id)]
        case RecordFailure():
            return [
                ModelFailed(
                    version_id=command.version_id, model_id=model_id, message=command.message
                )
            ]
        case _:
            assert_never(command)


def evolve(version: ModelVersion, event: ModelVersionEvent) -> ModelVersion:
    match event, version:
        case VersionRegistered(), Absent():
            return Known(event)
        case ModelReady(), Known():
            return Known(version.registered, "ready")
        case ModelFailed(), Known():
            return Known(version.registered, "error")
        case _:
            return version


decider: Decider[ModelVersionCommand, ModelVersion, ModelVersionEvent] = Decider(
    Absent(), decide, evolve
)
