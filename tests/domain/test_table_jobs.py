"""A job over a table: what goes together, and what it takes along of how the table was read."""

from uuid import UUID

import pytest

from domain.blobs import BlobRef
from domain.datasets.commands import RecordValidation, RegisterDataset
from domain.datasets.dataset import Valid
from domain.datasets.dataset import decider as datasets
from domain.datasets.events import DatasetRegistered, DatasetValidated
from domain.datasets.tables import Cleaning, TableColumn, TableReport, TableSchema
from domain.jobs.commands import DatasetFacts, SubmitJob
from domain.jobs.events import JobSubmitted
from domain.jobs.job import LabelsDiffer, MethodUnfit
from domain.jobs.job import decider as jobs
from domain.jobs.spec import DatasetRef, HyperparameterChoices, JobSpec, Method
from domain.jobs.tabular import (
    GRADIENT_BOOSTING,
    LOGISTIC_REGRESSION,
    MLP,
    TABULAR_DEFAULTS,
    TABULAR_MODELS,
    TAKEN,
    TabularConfig,
)
from tests import samples

ID = UUID(int=5)
SCHEMA = TableSchema(
    target="risk",
    target_why="chosen",
    classes=("high", "low"),
    columns=(
        TableColumn(name="age", role="numeric", why="chosen"),
        TableColumn(name="ward", role="categorical", why="chosen", categories=("a", "b")),
        TableColumn(name="note", role="ignored", why="chosen"),
    ),
)
REPORT = TableReport(
    cleaned=1,
    by_reason={"spelling": 1},
    missing={},
    groups=9,
    largest_group=2,
    first=(Cleaning(line=3, column="ward", was="A", became="a", why="spelling"),),
)


def registered(
    schema: TableSchema = SCHEMA, labels: tuple[str, ...] = ("high", "low")
) -> RegisterDataset:
    return RegisterDataset(
        dataset_id=ID,
        name="patients",
        blob=BlobRef(sha256="a" * 64, size=9, crc32=1),
        format="csv",
        delimiter=",",
        kind="tabular",
        text_column="",
        label_column=schema.target,
        rows=10 * len(labels),
        labels=dict.fromkeys(labels, 10),
        table=schema,
    )


def ref(schema: TableSchema = SCHEMA, labels: tuple[str, ...] = ("high", "low")) -> DatasetRef:
    events = datasets.decide(registered(schema, labels), datasets.initial)
    state = datasets.fold(events)
    judged = RecordValidation(dataset_id=ID, table=REPORT)
    state = datasets.fold([*events, *datasets.decide(judged, state)])
    assert isinstance(state, Valid)
    return state.ref


def submitted(
    base_model: str | None = None,
    method: Method | None = None,
    test: DatasetRef | None = None,
    train: DatasetRef | None = None,
    **chosen: object,
) -> JobSpec:
    command = SubmitJob(
        job_id=ID,
        model_name="risk",
        method=method,
        base_model=base_model,
        dataset_id=ID,
        test_dataset_id=ID if test else None,
        hyperparameters=HyperparameterChoices.model_validate(chosen),
        train=DatasetFacts(status="valid", ref=train or ref()),
        test=DatasetFacts(status="valid", ref=test) if test else None,
    )
    (event,) = jobs.decide(command, jobs.initial)
    assert isinstance(event, JobSubmitted)
    return event.spec


def test_a_table_is_for_the_method_of_tables_and_brings_its_schema_along() -> None:
    spec = submitted()

    assert (spec.method, spec.base_model) == ("tabular", GRADIENT_BOOSTING)
    assert spec.train.table == SCHEMA
    assert spec.train.cleaned == REPORT.counts


def test_what_was_cleaned_is_in_the_log_but_for_a_persons_rows() -> None:
    (event,) = datasets.decide(registered(), datasets.initial)
    assert isinstance(event, DatasetRegistered)
    personal = event.model_copy(update={"person_id": UUID(int=6)})
    judged = RecordValidation(dataset_id=ID, table=REPORT)

    (validated,) = datasets.decide(judged, datasets.fold([event]))
    (quoting_nobody,) = datasets.decide(judged, datasets.fold([personal]))

    assert isinstance(validated, DatasetValidated)
    assert validated.table == REPORT
    assert isinstance(quoting_nobody, DatasetValidated)
    assert quoting_nobody.table == REPORT.model_copy(update={"first": ()})


@pytest.mark.parametrize("family", TABULAR_MODELS)
def test_what_is_left_out_takes_the_familys_default(family: str) -> None:
    config = submitted(family).hyperparameters

    assert config.tabular == TabularConfig()
    for name, value in TABULAR_DEFAULTS[family].items():
        assert getattr(config, name) == value


def test_what_is_chosen_is_laid_over_the_defaults() -> None:
    config = submitted(MLP, epochs=7, tabular={"hidden_size": 9}).hyperparameters

    assert config.tabular == TabularConfig(hidden_size=9)
    assert (config.epochs, config.batch_size) == (7, TABULAR_DEFAULTS[MLP]["batch_size"])


@pytest.mark.parametrize("family", TABULAR_MODELS)
def test_the_hyperparameters_of_a_job_can_be_given_to_another_one(family: str) -> None:
    first = submitted(family)

    assert submitted(family, **first.in_full()["hyperparameters"]) == first


@pytest.mark.parametrize(
    ("base_model", "chosen", "said"),
    [
        ("finetrail/minilm", {}, "the models of tables are finetrail/gradient-boosting"),
        (MLP, {"max_length": 64}, "finetrail/mlp takes no max_length"),
        (MLP, {"lora": {"rank": 4}}, "finetrail/mlp takes no lora.rank"),
        (GRADIENT_BOOSTING, {"epochs": 4}, "takes no epochs"),
        (LOGISTIC_REGRESSION, {"tabular": {"hidden_size": 4}}, "takes no tabular.hidden_size"),
    ],
)
def test_what_does_not_go_together_is_refused(
    base_model: str, chosen: dict[str, object], said: str
) -> None:
    with pytest.raises(MethodUnfit, match=said):
        submitted(base_model, **chosen)


def test_texts_are_not_for_models_of_tables_and_take_none_of_their_choices() -> None:
    texts = samples.SPEC.train

    with pytest.raises(MethodUnfit):
        submitted(MLP, method="sequence_classification", train=texts)
    with pytest.raises(MethodUnfit):
        submitted(method="tabular", train=texts)
    with pytest.raises(MethodUnfit, match=r"takes no tabular\.balanced"):
        submitted(train=texts, tabular={"balanced": True})


def test_a_test_file_is_read_by_the_schema_of_the_training_file() -> None:
    spelled = SCHEMA.model_copy(update={"target": "RISK", "classes": ("HIGH",)})

    spec = submitted(test=ref(spelled, ("HIGH",)))

    assert spec.test is not None
    assert (spec.test.table, spec.test.cleaned) == (None, None)


def test_a_test_file_without_a_column_or_with_another_class_is_refused() -> None:
    narrow = SCHEMA.model_copy(update={"columns": SCHEMA.columns[:1]})

    with pytest.raises(MethodUnfit, match="lacks columns of the training dataset: \\['ward'\\]"):
        submitted(test=ref(narrow))
    with pytest.raises(LabelsDiffer, match="medium"):
        submitted(test=ref(labels=("high", "medium")))


def test_every_family_says_what_it_takes() -> None:
    known = {f"tabular.{name}" for name in TabularConfig.model_fields}

    assert TAKEN.keys() == TABULAR_DEFAULTS.keys() == set(TABULAR_MODELS)
    assert known <= frozenset().union(*TAKEN.values())
