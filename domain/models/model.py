"""The rules of a model: numbers without gaps, and only a ready version goes into service."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never
from uuid import UUID

from domain.errors import NotFound, Rejected
from domain.messages import Decider
from domain.models.commands import ActivateModel, CreateModel, ModelCommand, NumberVersion
from domain.models.events import ModelActivated, ModelCreated, ModelEvent, VersionNumbered


class VersionNotReady(Rejected):
    """The version is still being uploaded, failed, or belongs to another model."""

    code = "version_not_ready"


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody created it."""


@dataclass(frozen=True, slots=True)
class Existing:
    name: str
    numbers: dict[UUID, int] = field(default_factory=dict)  # version -> number
    active: UUID | None = None


Model = Absent | Existing


def decide(command: ModelCommand, model: Model) -> Sequence[ModelEvent]:
    if isinstance(command, CreateModel):
        # The id is made of the name, so whoever asks again means the same model.
        return [_created(command)] if isinstance(model, Absent) else []
    if isinstance(model, Absent):
        raise NotFound(f"there is no model {command.model_id}")
    match command:
        case NumberVersion():
            known = command.version_id in model.numbers
            return [] if known else [_numbered(command, model)]
        case ActivateModel():
            return [_activated(command, model)]
        case _:
            assert_never(command)


def evolve(model: Model, event: ModelEvent) -> Model:
    match event, model:
        case ModelCreated(), Absent():
            return Existing(event.name)
        case VersionNumbered(), Existing():
            return replace(model, numbers=model.numbers | {event.version_id: event.number})
        case ModelActivated(), Existing():
            return replace(model, active=event.version_id)
        case _:
            return model


def _created(command: CreateModel) -> ModelCreated:
    return ModelCreated(model_id=command.model_id, name=command.name, base_model=command.base_model)


def _numbered(command: NumberVersion, model: Existing) -> VersionNumbered:
    return VersionNumbered(
        model_id=command.model_id,
        version_id=command.version_id,
        number=len(model.numbers) + 1,
        job_id=command.job_id,
    )


def _activated(command: ActivateModel, model: Existing) -> ModelActivated:
    """Recorded even when that version is active already.

    A command that left no trace could be decided again, much later, after another version was activated.
    """
    number = model.numbers.get(command.version_id)
    if number is None:
        raise VersionNotReady(f"{model.name} has no version {command.version_id}")
    if command.version_status != "ready":
        raise VersionNotReady(
            f"version {number} of {model.name} is {command.version_status}, not ready"
        )
    return ModelActivated(
        model_id=command.model_id,
        version_id=command.version_id,
        number=number,
        previous_version_id=model.active,
    )


decider: Decider[ModelCommand, Model, ModelEvent] = Decider(Absent(), decide, evolve)
