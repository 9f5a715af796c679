"""The rules of a model."""

from typing import Literal
from uuid import UUID

from domain.errors import NotFound
from domain.models.commands import ActivateModel, CreateModel, NumberVersion
from domain.models.events import ModelActivated, ModelCreated, VersionNumbered
from domain.models.model import VersionNotReady, decider
from tests.samples import JOB, MODEL
from tests.spec import Spec

model = Spec(decider)

create = CreateModel(model_id=MODEL, name="support", base_model="finetrail/minilm")
created = ModelCreated(model_id=MODEL, name="support", base_model="finetrail/minilm")


def version(number: int) -> UUID:
    return UUID(int=number)


def number_version(number: int) -> NumberVersion:
    return NumberVersion(model_id=MODEL, version_id=version(number), job_id=JOB)


def numbered(number: int) -> VersionNumbered:
    return VersionNumbered(model_id=MODEL, version_id=version(number), number=number, job_id=JOB)


def activate(
    number: int, status: Literal["absent", "uploading", "ready", "error"] = "ready"
) -> ActivateModel:
    return ActivateModel(model_id=MODEL, version_id=version(number), version_status=status)


def activated(number: int, previous: int | None = None) -> ModelActivated:
    return ModelActivated(
        model_id=MODEL,
        version_id=version(number),
        number=number,
        previous_version_id=version(previous) if previous else None,
    )


def test_a_model_is_created_once_whoever_asks() -> None:
    model.when(create).then(created)
    model.given(created).when(create).then_nothing()


def test_versions_are_numbered_from_one_without_gaps() -> None:
    model.given(created).when(number_version(1)).then(numbered(1))
    model.given(created, numbered(1)).when(number_version(2)).then(numbered(2))


def test_a_version_keeps_its_number() -> None:
    model.given(created, numbered(1), numbered(2)).when(number_version(1)).then_nothing()


def test_a_ready_version_goes_into_service() -> None:
    model.given(created, numbered(1)).when(activate(1)).then(activated(1))


def test_the_event_names_what_was_in_service_before() -> None:
    history = (created, numbered(1), numbered(2), activated(2))

    model.given(*history).when(activate(1)).then(activated(1, previous=2))


def test_activating_the_active_version_is_recorded_too() -> None:
    history = (created, numbered(1), activated(1))

    model.given(*history).when(activate(1)).then(activated(1, previous=1))


def test_a_version_that_is_not_ready_is_refused() -> None:
    for status in ("absent", "uploading", "error"):
        model.given(created, numbered(1)).when(activate(1, status)).then_rejected(
            VersionNotReady, status
        )


def test_a_version_of_another_model_is_refused() -> None:
    model.given(created, numbered(1)).when(activate(9)).then_rejected(VersionNotReady, "no version")


def test_what_was_never_created_is_not_found() -> None:
    model.when(number_version(1)).then_rejected(NotFound)
    model.when(activate(1)).then_rejected(NotFound)
