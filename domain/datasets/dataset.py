"""The rules of a dataset: registered once, judged once, never trained on after it was refused or deleted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from domain.datasets.commands import (
    DatasetCommand,
    DeleteDataset,
    RecordValidation,
    RegisterDataset,
)
from domain.datasets.events import (
    DatasetDeleted,
    DatasetEvent,
    DatasetRegistered,
    DatasetRejected,
    DatasetValidated,
)
from domain.errors import NotFound, Rejected
from domain.jobs.spec import DatasetRef
from domain.messages import Decider
from domain.people.person import require_remembered, require_sealed

NOT_QUOTED: Final = "its rows are a person's, so what is wrong with them is not quoted"


class DatasetExists(Rejected):
    """Another upload already took this id."""

    code = "dataset_exists"


@dataclass(frozen=True, slots=True)
class Absent:
    """Nobody registered it."""


@dataclass(frozen=True, slots=True)
class Pending:
    ref: DatasetRef


@dataclass(frozen=True, slots=True)
class Valid:
    ref: DatasetRef


@dataclass(frozen=True, slots=True)
class Refused:
    ref: DatasetRef
    message: str


@dataclass(frozen=True, slots=True)
class Deleted:
    ref: DatasetRef


Dataset = Absent | Pending | Valid | Refused | Deleted


def decide(command: DatasetCommand, dataset: Dataset) -> Sequence[DatasetEvent]:
    if isinstance(command, RegisterDataset):
        if not isinstance(dataset, Absent):
            raise DatasetExists(f"dataset {command.dataset_id} is registered already")
        return [_registered(command)]
    if isinstance(dataset, Absent):
        raise NotFound(f"there is no dataset {command.dataset_id}")
    match command:
        case RecordValidation():
            # Anything but a pending one is judged already, or no longer of interest.
            return [_verdict(command, dataset.ref)] if isinstance(dataset, Pending) else []
        case DeleteDataset():
            gone = isinstance(dataset, Deleted)
            return [] if gone else [DatasetDeleted(dataset_id=command.dataset_id)]
        case _:
            assert_never(command)


def evolve(dataset: Dataset, event: DatasetEvent) -> Dataset:
    match event:
        case DatasetRegistered():
            return Pending(_ref(event))
        case DatasetValidated():
            return Valid(_judged(dataset.ref, event)) if isinstance(dataset, Pending) else dataset
        case DatasetRejected():
            return Refused(dataset.ref, event.message) if isinstance(dataset, Pending) else dataset
        case DatasetDeleted():
            return dataset if isinstance(dataset, Absent) else Deleted(dataset.ref)
        case _:
            assert_never(event)


def _registered(command: RegisterDataset) -> DatasetRegistered:
    if command.person_id is not None:
        require_remembered(command.person_id, forgotten=command.forgotten)
        require_sealed(command.name, command.person_id, "the dataset's name")
    return DatasetRegistered(**command.model_dump(exclude={"type", "forgotten"}))


def _verdict(command: RecordValidation, ref: DatasetRef) -> DatasetValidated | DatasetRejected:
    """What was found; rows that are all one person's are not quoted."""
    personal = ref.person_id is not None
    if command.problem_code:
        return DatasetRejected(
            dataset_id=command.dataset_id,
            code=command.problem_code,
            message=NOT_QUOTED if personal else command.problem,
        )
    return DatasetValidated(
        dataset_id=command.dataset_id,
        duplicate_rows=command.duplicate_rows,
        conflicting_texts=command.conflicting_texts,
        longest_text_chars=command.longest_text_chars,
        mean_text_chars=command.mean_text_chars,
        messages=command.messages,
        supervised_messages=command.supervised_messages,
        example=() if personal else command.example,
        table=command.table and command.table.quoting(nothing=personal),
    )


def _judged(ref: DatasetRef, event: DatasetValidated) -> DatasetRef:
    """What a job takes along: of a table also how much of it was cleaned."""
    return ref.model_copy(update={"cleaned": event.table.counts}) if event.table else ref


def _ref(event: DatasetRegistered) -> DatasetRef:
    return DatasetRef(
        dataset_id=event.dataset_id,
        # A name that can be read would stand in every job for ever, a sealed one help nobody there.
        name=event.name if event.person_id is None else f"dataset {event.dataset_id}",
        blob=event.blob,
        format=event.format,
        delimiter=event.delimiter,
        kind=event.kind,
        text_column=event.text_column,
        label_column=event.label_column,
        rows=event.rows,
        labels=tuple(sorted(event.labels)),
        table=event.table,
        person_id=event.person_id,
    )


decider: Decider[DatasetCommand, Dataset, DatasetEvent] = Decider(Absent(), decide, evolve)
