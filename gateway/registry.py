"""Models and their versions as the API shows them."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from gateway.as_of import Readable, missing
from gateway.commanding import Done, note_of
from gateway.problems import Problem
from projections.answers import Activation as FoundActivation
from projections.answers import Version as FoundVersion
from projections.evaluations import EvaluationRow
from projections.model_versions import VersionRow
from projections.models import ModelRow


class Active(msgspec.Struct):
    """What is in service, since when, and who put it there."""

    number: int
    version_id: UUID
    activated_at: datetime | None
    activated_by: str | None


class Model(msgspec.Struct):
    """A named line of versions."""

    id: UUID
    name: str
    base_model: str
    versions: int
    latest: int | None
    active: Active | None
    created_at: datetime
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class Activation(msgspec.Struct):
    """A version that was put into service, and when another one took its place; null: it is there."""

    number: int
    version_id: UUID
    activated_at: datetime
    activated_by: str
    until: datetime | None
    sequence: int
    until_sequence: int | None


class File(msgspec.Struct):
    path: str
    size: int
    sha256: str


class BaseModelFacts(msgspec.Struct):
    """What a base model was when it was trained on; whatever loads it for the result checks it."""

    id: str
    revision: str | None
    license: str | None
    parameters: int | None
    sha256: dict[str, str]  # by file name
    stored: bool  # its files are kept with the version: it was made here


class Lineage(msgspec.Struct):
    """Everything that the bytes of a version depended on."""

    dataset_id: UUID
    dataset_sha256: str
    test_dataset_id: UUID | None
    test_sha256: str | None
    seed: int
    split: dict[str, Any]
    base_model_record: BaseModelFacts | None
    code: str
    packages: dict[str, str]
    device: str
    threads: int


class Training(msgspec.Struct):
    rows: int
    tokens: int
    steps: int
    seconds: float
    final_loss: float
    validation_accuracy: float | None


class Version(msgspec.Struct):
    """One trained version; `evaluation` holds its figures, its id and its status."""

    id: UUID
    model: str
    number: int
    label: str
    status: Literal["uploading", "ready", "error"]
    message: str | None
    job_id: UUID
    method: str
    base_model: str
    labels: list[str]
    files: list[File]
    size: int
    lineage: Lineage
    training: Training
    evaluation: dict[str, Any] | None
    created_at: datetime
    sequence: int


async def require_model(queries: Readable, workspace: str, name: str) -> ModelRow:
    row = await queries.model(workspace, name)
    if row is None:
        raise missing(queries, f"model {name!r}")
    return row


async def require_version(
    queries: Readable, workspace: str, model: ModelRow, number: int
) -> FoundVersion:
    # A larger number does not fit into the column that is asked.
    found = await queries.version(workspace, model.id, number) if number < 2**31 else None
    if found is None:
        if queries.sequence is not None:
            raise missing(queries, f"version {number} of {model.name}")
        raise Problem("not_found", f"{model.name} has no version {number}.")
    return found


def require_ready(version: VersionRow) -> None:
    if version.status != "ready":
        raise Problem(
            "version_not_ready",
            f"Version {version.number} of {version.model} is {version.status}, not ready.",
        )


def model_answer(row: ModelRow, done: Done | None = None) -> Model:
    active = None
    if row.active_number is not None and row.active_version_id is not None:
        active = Active(
            row.active_number, row.active_version_id, row.activated_at, row.activated_by
        )
    return Model(
        id=row.id,
        name=row.name,
        base_model=row.base_model,
        versions=row.versions,
        latest=row.latest,
        active=active,
        created_at=row.created_at,
        sequence=row.sequence,
        note=note_of(done),
    )


def activation_answer(row: FoundActivation) -> Activation:
    return Activation(
        number=row.number,
        version_id=row.version_id,
        activated_at=row.activated_at,
        activated_by=row.activated_by,
        until=row.until,
        sequence=row.sequence,
        until_sequence=row.until_sequence,
    )


def version_answer(found: FoundVersion) -> Version:
    row = found.row
    return Version(
        id=row.id,
        model=row.model,
        number=row.number,
        label=row.label,
        status=row.status,
        message=row.message,
        job_id=row.job_id,
        method=row.method,
        base_model=row.base_model,
        labels=row.labels,
        files=[File(file["path"], file["size"], file["sha256"]) for file in row.files],
        size=row.size,
        lineage=lineage_of(row),
        training=training_of(row),
        evaluation=evaluation_of(found.evaluation),
        created_at=row.created_at,
        sequence=row.sequence,
    )


def lineage_of(row: VersionRow) -> Lineage:
    train, test = row.spec["train"], row.spec.get("test")
    return Lineage(
        dataset_id=UUID(train["dataset_id"]),
        dataset_sha256=train["blob"]["sha256"],
        test_dataset_id=UUID(test["dataset_id"]) if test else None,
        test_sha256=test["blob"]["sha256"] if test else None,
        seed=row.spec["seed"],
        split=row.spec["split"],
        base_model_record=base_model_of(row.base_model_record),
        code=row.environment["code"],
        packages=row.environment["packages"],
        device=row.environment["device"],
        threads=row.environment["threads"],
    )


def base_model_of(record: dict[str, Any] | None) -> BaseModelFacts | None:
    if record is None:
        return None
    return BaseModelFacts(
        id=record["id"],
        revision=record["revision"],
        license=record["license"],
        parameters=record["parameters"],
        sha256=record["sha256"],
        stored=bool(record["files"]),
    )


def training_of(row: VersionRow) -> Training:
    return Training(
        row.train_rows,
        row.trained_tokens,
        row.steps,
        row.seconds,
        row.final_loss,
        row.validation_accuracy,
    )


def evaluation_of(row: EvaluationRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {**(row.summary or {}), "id": str(row.id), "status": row.status}
