"""Models of tables: equal to those they were made of, the same bytes every time, honestly compared."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearn_log_loss

from domain.datasets.tables import TableChoice, TableColumn, TableSchema
from domain.jobs.spec import HyperparameterChoices, SplitConfig, hyperparameters
from domain.jobs.tabular import (
    GRADIENT_BOOSTING,
    LOGISTIC_REGRESSION,
    MLP,
    TABULAR_MODELS,
    TabularConfig,
)
from domain.work import (
    CheckpointWritten,
    EpochDone,
    EvaluationFinished,
    EvaluationSummary,
    Fact,
    LogLine,
    Started,
    StepDone,
    TrainingFinished,
)
from gpu_agent.metrics import quality
from gpu_agent.outcomes import CheckpointUnreadable, DataUnreadable
from gpu_agent.tabular import mlp
from gpu_agent.tabular.features import Features
from gpu_agent.tabular.fitting import Part, fit_boosting, fit_regression, one_thread
from gpu_agent.tabular.model import TabularModel
from gpu_agent.tabular.rows import read_table_splits, values_of
from gpu_agent.tabular.scores import log_loss, scores
from gpu_agent.tabular.trees import raw_scores, shares, tree_arrays
from tests.gpu_agent import tables
from tests.gpu_agent.tiny import of_kind
from tests.published import published


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tables.write(tmp_path_factory.mktemp("table") / "rows.csv")


def last(facts: list[Fact]) -> TrainingFinished:
    assert isinstance(facts[-1], TrainingFinished)
    return facts[-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def summary_of(facts: list[Fact]) -> EvaluationSummary:
    assert isinstance(facts[-1], EvaluationFinished)
    return facts[-1].summary


def numbers(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], list[int]]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 6))
    matrix[:, 5] = rng.integers(0, 3, size=rows)  # few values, as of a category
    targets = (matrix[:, 0] + matrix[:, 1] * matrix[:, 2] + 0.3 * matrix[:, 5]) * classes / 4
    return matrix, np.clip(targets + classes / 2, 0, classes - 1).astype(int).tolist()


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("rows", [60, 900])
def test_own_trees_say_what_scikit_learns_say_to_twelve_digits(classes: int, rows: int) -> None:
    matrix, targets = numbers(rows, classes)
    boosting = HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=5, early_stopping=False)
    with one_thread():
        boosting.fit(matrix, targets)
    asked = np.concatenate([matrix, np.random.default_rng(1).normal(size=(500, 6)) * 3])

    arrays = tree_arrays(boosting, 30)

    with one_thread():
        expected = boosting.predict_proba(asked)
    assert np.abs(shares(raw_scores(arrays, asked)) - expected).max() <= 1e-12


@pytest.mark.parametrize("classes", [2, 4])
def test_own_regression_says_what_scikit_learns_says(classes: int) -> None:
    matrix, targets = numbers(300, classes)
    regression = LogisticRegression(C=1.0, max_iter=200, random_state=0).fit(matrix, targets)

    fitted = fit_regression(Part(matrix, targets), TabularConfig())
    model = TabularModel(
        LOGISTIC_REGRESSION,
        TableSchema(target="t", target_why="", classes=(), columns=()),
        Features((), {}),
        tuple("abcd"[:classes]),
        fitted.arrays,
    )

    assert np.abs(model.of_matrix(matrix) - regression.predict_proba(matrix)).max() <= 1e-12


def test_the_served_perceptron_says_what_torch_trained(table: Path, tmp_path: Path) -> None:
    job = tables.spec(table, MLP, epochs=3)

    folder = Path(last(tables.train(job, table, tmp_path)).folder)
    model = TabularModel.load(folder)
    splits = read_table_splits(job, table, None)
    matrix = model.features.matrix(values_of(splits.test))
    network = mlp.build(matrix.shape[1], len(model.labels), TabularConfig(), 0)
    network.load_state_dict({name: torch.from_numpy(each) for name, each in model.arrays.items()})
    with torch.inference_mode():
        expected = network(torch.from_numpy(matrix).float()).softmax(dim=1).double().numpy()

    assert np.abs(model.of_matrix(matrix) - expected).max() <= 1e-5


@pytest.mark.parametrize("family", TABULAR_MODELS)
def test_a_model_that_was_read_back_is_the_one_that_was_written(
    family: str, table: Path, tmp_path: Path
) -> None:
    job = tables.spec(table, family)
    folder = Path(last(tables.train(job, table, tmp_path)).folder)

    model = TabularModel.load(folder)
    model.save(tmp_path / "again", json.loads((folder / "model.json").read_text())["settings"])

    assert contents(tmp_path / "again") == contents(folder)
    assert set(contents(folder)) == {
        "labels.json",
        "model.json",
        "model.safetensors",
        "schema.json",
    }
    assert b"pickle" not in b"".join(contents(folder).values())


@pytest.mark.parametrize("family", TABULAR_MODELS)
def test_the_same_job_ends_with_the_same_bytes(family: str, table: Path, tmp_path: Path) -> None:
    job = tables.spec(table, family)

    first, second = (last(tables.train(job, table, tmp_path / name)) for name in ("a", "b"))

    assert contents(Path(first.folder)) == contents(Path(second.folder))


@pytest.mark.parametrize("keep_best", [True, False])
def test_a_perceptron_that_was_interrupted_ends_with_the_same_bytes(
    table: Path, tmp_path: Path, *, keep_best: bool
) -> None:
    chosen = {"epochs": 12, "checkpoint_every": 7, "keep_best": keep_best, "batch_size": 16}
    job = tables.spec(table, MLP, **chosen)
    facts = tables.train(job, table, tmp_path / "whole")
    checkpoints = [Path(fact.folder) for fact in of_kind(facts, CheckpointWritten)]
    assert len(checkpoints) > 5
    middle = checkpoints[len(checkpoints) // 2]

    resumed = tables.train(job, table, tmp_path / "rest", checkpoint=middle)

    assert of_kind(resumed, StepDone)[0].step == int(middle.name.partition("-")[2]) + 1
    assert contents(Path(last(resumed).folder)) == contents(Path(last(facts).folder))
    assert last(resumed).final_loss == last(facts).final_loss


@pytest.mark.parametrize("left_out", ["optimizer", "state"])
def test_a_resume_without_all_of_its_state_ends_with_other_bytes(
    left_out: str, table: Path, tmp_path: Path
) -> None:
    job = tables.spec(table, MLP, epochs=12, checkpoint_every=7, batch_size=16, keep_best=False)
    facts = tables.train(job, table, tmp_path / "whole")
    middle = Path(of_kind(facts, CheckpointWritten)[2].folder)
    if left_out == "optimizer":
        kept = load_file(middle / "tensors.safetensors")
        without = {name: each * 0 if "exp_avg" in name else each for name, each in kept.items()}
        save_file(without, middle / "tensors.safetensors")
    else:
        state = json.loads((middle / "state.json").read_text())
        (middle / "state.json").write_text(json.dumps(state | {"step": state["step"] - 3}))

    resumed = tables.train(job, table, tmp_path / "rest", checkpoint=middle)

    assert contents(Path(last(resumed).folder)) != contents(Path(last(facts).folder))


def test_a_perceptron_stops_when_its_validation_loss_no_longer_falls(
    table: Path, tmp_path: Path
) -> None:
    job = tables.spec(table, MLP, epochs=400, early_stopping_patience=4, learning_rate=0.02)

    facts = tables.train(job, table, tmp_path)

    started, finished = of_kind(facts, Started)[0], last(facts)
    assert finished.steps < started.total_steps
    assert finished.best_step is not None
    assert finished.best_step < finished.steps
    assert len(of_kind(facts, EpochDone)) <= 21
    assert of_kind(facts, EpochDone)[-1].step == finished.steps


@pytest.mark.parametrize("family", [GRADIENT_BOOSTING, LOGISTIC_REGRESSION])
def test_what_is_fitted_in_one_go_tells_one_epoch(family: str, table: Path, tmp_path: Path) -> None:
    facts = tables.train(tables.spec(table, family), table, tmp_path)

    (epoch,) = of_kind(facts, EpochDone)
    assert (epoch.epoch, last(facts).steps) == (1, 1)
    assert epoch.validation_loss is not None
    assert epoch.validation_accuracy == last(facts).validation_accuracy


def test_boosting_keeps_the_rounds_up_to_the_least_validation_loss() -> None:
    matrix, targets = numbers(400, 3)
    rows, validation = Part(matrix[:300], targets[:300]), Part(matrix[300:], targets[300:])
    config, own = _boosting(keep_best=True)

    kept = fit_boosting(rows, validation, config, own, 0)
    whole = fit_boosting(rows, validation, _boosting(keep_best=False)[0], own, 0)

    def loss(arrays: dict[str, np.ndarray[Any, Any]]) -> float:
        return log_loss(shares(raw_scores(arrays, validation.matrix)), validation.targets)

    assert len(kept.arrays["start"]) < len(whole.arrays["start"])
    assert loss(kept.arrays) < loss(whole.arrays)


def _boosting(*, keep_best: bool) -> Any:
    config = hyperparameters(
        "tabular", GRADIENT_BOOSTING, HyperparameterChoices(keep_best=keep_best)
    )
    return config, config.tabular


def test_missing_numbers_take_the_median_of_the_training_rows_and_the_log_says_how_many(
    table: Path, tmp_path: Path
) -> None:
    job = tables.spec(table, LOGISTIC_REGRESSION)

    facts = tables.train(job, table, tmp_path)

    splits = read_table_splits(job, table, None)
    present = [row.values["size"] for row in splits.train if row.values["size"] is not None]
    missing = len(splits.train) - len(present)
    said = json.loads((Path(last(facts).folder) / "model.json").read_text())["numeric"]["size"]
    assert missing > 0
    assert said["median"] == np.median(np.array(present, dtype=float))
    assert said["missing"] == missing
    (warned,) = [one for one in of_kind(facts, LogLine) if one.level == "WARNING"]
    assert warned.message.startswith(f"size: {missing} of {len(splits.train)} training rows")


def test_no_person_is_trained_on_and_tested(table: Path) -> None:
    splits = read_table_splits(tables.spec(table, MLP), table, None)

    sides = defaultdict(set)
    for side in ("train", "validation", "test"):
        for row in getattr(splits, side):
            sides[row.groups].add(side)
    assert len(sides) < 240
    assert all(len(found) == 1 for found in sides.values())


def test_training_rows_that_a_test_file_knows_are_left_out(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    test = tmp_path / "test.csv"
    test.write_text("\n".join([lines[0], *lines[50:80]]))

    splits = read_table_splits(tables.spec(table, MLP, test=test), table, test)

    tested = {row.groups for row in splits.test}
    assert len(splits.test) == 30
    assert splits.leaked >= 30
    assert tested.isdisjoint(row.groups for row in (*splits.train, *splits.validation))


def test_a_table_of_one_person_cannot_be_parted(tmp_path: Path) -> None:
    table = tables.write(tmp_path / "rows.csv", rows=40)
    job = tables.spec(table, MLP, choice=TableChoice(group=("colour",)))
    one = tmp_path / "one.csv"
    one.write_text(table.read_text().replace("red", "blue").replace("green", "blue"))

    with pytest.raises(DataUnreadable, match="40 rows in 1 groups"):
        read_table_splits(job, one, None)


@pytest.mark.parametrize("family", TABULAR_MODELS)
def test_a_model_is_compared_with_regression_and_the_commonest_class(
    family: str, table: Path, tmp_path: Path
) -> None:
    job = tables.spec(table, family, split=SplitConfig(test_fraction=0.4))
    trained = last(tables.train(job, table, tmp_path))

    facts = tables.evaluate(job, table, tmp_path, Path(trained.folder), trained.labels)

    found = summary_of(facts)
    splits = read_table_splits(job, table, None)
    expected = [row.label for row in splits.test]
    commonest = max(sorted(splits.labels), key=[row.label for row in splits.train].count)
    assert found.majority is not None
    assert found.rows == len(expected)
    assert found.majority.label == commonest
    assert found.majority.scores.accuracy == expected.count(commonest) / len(expected)
    assert found.majority.verdict == "better"
    assert (found.base == found.majority.scores) == (family == LOGISTIC_REGRESSION)
    assert sum(one.rows for one in found.by_class) == len(expected)
    assert found.fine_tuned.loss is not None
    said = (tmp_path / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
    outputs = [json.loads(line) for line in said]
    right = [one["fine_tuned"] == one["expected"] for one in outputs]
    assert found.fine_tuned.accuracy == sum(right) / len(right)


def test_a_model_of_other_classes_is_not_evaluated(table: Path, tmp_path: Path) -> None:
    job = tables.spec(table, LOGISTIC_REGRESSION)
    trained = last(tables.train(job, table, tmp_path))

    with pytest.raises(CheckpointUnreadable, match="other classes"):
        tables.evaluate(job, table, tmp_path, Path(trained.folder), ("c0", "c1"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.json", b"{}"),
        ("model.json", b'{"format": 2, "family": "finetrail/mlp", "numeric": {}}'),
        ("schema.json", b"[]"),
        ("labels.json", b'["c0"]'),
        ("model.safetensors", b"\x80\x04pickle"),
    ],
)
def test_a_damaged_model_is_refused(name: str, content: bytes, table: Path, tmp_path: Path) -> None:
    folder = Path(last(tables.train(tables.spec(table, MLP, epochs=1), table, tmp_path)).folder)
    (folder / name).write_bytes(content)

    with pytest.raises(CheckpointUnreadable, match="the model cannot be read"):
        TabularModel.load(folder)


def test_balanced_classes_weigh_the_same(tmp_path: Path) -> None:
    table = tables.write(tmp_path / "rows.csv", rows=400, classes=4)
    recalls = {}
    for balanced in (False, True):
        job = tables.spec(table, LOGISTIC_REGRESSION, tabular={"balanced": balanced, "c": 0.01})
        folder = Path(last(tables.train(job, table, tmp_path / str(balanced))).folder)
        rows = read_table_splits(job, table, None).train
        said = TabularModel.load(folder).predict(values_of(rows))
        rarest = min({row.label for row in rows}, key=[row.label for row in rows].count)
        recalls[balanced] = sum(
            one == rarest == row.label for one, row in zip(said, rows, strict=True)
        )

    assert recalls[True] > recalls[False]


def test_scores_are_those_of_the_other_classifiers(tmp_path: Path) -> None:
    said, expected = ["a", "b", "c", "a", "d"], ["a", "b", "b", "c", "a"]

    own, other = scores(said, expected, None), quality(said, expected, tmp_path)

    assert (own.accuracy, own.f1, own.precision, own.recall) == (
        other.accuracy,
        other.f1,
        other.precision,
        other.recall,
    )


def test_the_loss_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    said = rng.dirichlet([1, 1, 1], size=50)
    targets = rng.integers(0, 3, size=50).tolist()

    assert log_loss(said, targets) == pytest.approx(sklearn_log_loss(targets, said), abs=1e-12)


values = st.fixed_dictionaries(
    {
        "size": st.one_of(st.none(), st.floats(-1e9, 1e9)),
        "colour": st.one_of(st.none(), st.sampled_from(["red", "green", "unheard of"])),
    }
)


@given(rows=st.lists(values, min_size=1, max_size=30))
@settings(deadline=None)  # on a busy machine
def test_every_row_becomes_finite_numbers(rows: list[dict[str, Any]]) -> None:
    schema = TableSchema(
        target="class",
        target_why="chosen",
        classes=("a", "b"),
        columns=(
            TableColumn(name="size", role="numeric", why="chosen"),
            TableColumn(
                name="colour", role="categorical", why="chosen", categories=("green", "red")
            ),
        ),
    )

    features = Features.fit(schema, rows)
    matrix = features.matrix(rows)

    assert features.names == ("size", "colour=green", "colour=red")
    assert matrix.shape == (len(rows), 3)
    assert np.isfinite(matrix).all()
    for row, line in zip(rows, matrix, strict=True):
        assert line[1:].tolist() == [row["colour"] == "green", row["colour"] == "red"]
    assert features.missing({"colour": "red"}) == ("size",)


@pytest.mark.parametrize(
    ("family", "least"),
    [(GRADIENT_BOOSTING, 0.94), (MLP, 0.88), (LOGISTIC_REGRESSION, 0.88)],
)
def test_the_published_file_trains_as_it_is(family: str, least: float, tmp_path: Path) -> None:
    data = published("diabetes/diabetes.csv")
    job = tables.spec(data, family)

    trained = last(tables.train(job, data, tmp_path))
    found = summary_of(tables.evaluate(job, data, tmp_path, Path(trained.folder), trained.labels))

    assert found.rows == 200
    assert found.fine_tuned.accuracy >= least
