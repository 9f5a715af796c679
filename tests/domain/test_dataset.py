"""The rules of a dataset."""

from domain.datasets.commands import DeleteDataset, RecordValidation, RegisterDataset
from domain.datasets.dataset import DatasetExists, decider
from domain.datasets.events import (
    DatasetDeleted,
    DatasetRegistered,
    DatasetRejected,
    DatasetValidated,
)
from domain.errors import NotFound
from tests import samples
from tests.samples import DATASET
from tests.spec import Spec

dataset = Spec(decider)

register = RegisterDataset(
    dataset_id=DATASET,
    name="intents.csv",
    blob=samples.blob(7),
    format="csv",
    delimiter=",",
    text_column="text",
    label_column="intent",
    rows=400,
    labels={"refund": 200, "cancel": 200},
)
registered = DatasetRegistered(**register.model_dump(exclude={"type"}))
validate = RecordValidation(
    dataset_id=DATASET, duplicate_rows=1, longest_text_chars=80, mean_text_chars=40.5
)
validated = DatasetValidated(
    dataset_id=DATASET,
    duplicate_rows=1,
    conflicting_texts=0,
    longest_text_chars=80,
    mean_text_chars=40.5,
)
refuse = RecordValidation(dataset_id=DATASET, problem_code="blob_missing", problem="gone")
rejected = DatasetRejected(dataset_id=DATASET, code="blob_missing", message="gone")
delete = DeleteDataset(dataset_id=DATASET)
deleted = DatasetDeleted(dataset_id=DATASET)


def test_an_upload_is_registered_once() -> None:
    dataset.when(register).then(registered)
    dataset.given(registered).when(register).then_rejected(DatasetExists)
    dataset.given(registered, deleted).when(register).then_rejected(DatasetExists)


def test_it_is_judged_once() -> None:
    dataset.given(registered).when(validate).then(validated)
    dataset.given(registered).when(refuse).then(rejected)
    for verdict in (validated, rejected, deleted):
        dataset.given(registered, verdict).when(validate).then_nothing()
        dataset.given(registered, verdict).when(refuse).then_nothing()


def test_deleting_is_final_and_may_be_asked_twice() -> None:
    dataset.given(registered, validated).when(delete).then(deleted)
    dataset.given(registered, deleted).when(delete).then_nothing()


def test_what_was_never_registered_is_not_found() -> None:
    dataset.when(validate).then_rejected(NotFound)
    dataset.when(delete).then_rejected(NotFound)


def test_the_reference_names_bytes_columns_and_sorted_labels() -> None:
    state = decider.fold([registered, validated])

    assert getattr(state, "ref", None) == samples.TRAIN
