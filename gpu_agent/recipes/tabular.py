"""A model of a table: a flat generator of facts from rows to a folder of JSON and safetensors."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from domain.jobs.spec import JobSpec
from domain.jobs.tabular import (
    GRADIENT_BOOSTING,
    LOGISTIC_REGRESSION,
    MLP,
    TAKEN,
    TabularConfig,
    flat,
)
from domain.work import EpochDone, Fact, Started, TrainAssignment, TrainingFinished
from gpu_agent.environment import describe, set_up
from gpu_agent.protocol import ChildInput
from gpu_agent.schedule import in_words, log, total_steps, warning
from gpu_agent.tabular import mlp
from gpu_agent.tabular.features import Features
from gpu_agent.tabular.fitting import Part, fit_boosting, fit_regression
from gpu_agent.tabular.model import TabularModel
from gpu_agent.tabular.rows import TableSplits, label_numbers, read_table_splits, values_of
from gpu_agent.tabular.scores import log_loss


@dataclass(frozen=True, slots=True)
class Trained:
    model: TabularModel
    steps: int
    final_loss: float
    validation_accuracy: float | None
    best_step: int | None = None


def train(order: ChildInput, assignment: TrainAssignment) -> Iterator[Fact]:
    """Train as ``assignment`` says, from its checkpoint if it has one, and leave a model's folder.

    One thread and the CPU, whatever the machine has: more are slower at such sizes, and the bytes
    are the same everywhere.

    Raises:
        WorkFailed: the job cannot be done as it is stated.
    """
    spec = assignment.spec
    device = set_up("cpu", threads=1)
    splits = read_table_splits(spec, order.files.train, order.files.test)
    features = Features.fit(splits.schema, values_of(splits.train))
    yield from _told(spec, splits, features)
    parameters = _parameters(spec, len(features.names), len(splits.labels))
    steps = total_steps(len(splits.train), spec.hyperparameters) if spec.base_model == MLP else 1
    yield Started(
        environment=describe(device),
        total_steps=steps,
        total_epochs=spec.hyperparameters.epochs if spec.base_model == MLP else 1,
        first_step=assignment.resume_from.step if assignment.resume_from else 0,
        train_rows=len(splits.train),
        validation_rows=len(splits.validation),
        test_rows=len(splits.test),
        trainable_parameters=parameters,
        total_parameters=parameters,
    )
    started = time.monotonic()
    trained = yield from fit(order, assignment, splits, features)
    folder = order.work_dir / "model"
    trained.model.save(folder, _settings(spec))
    yield log(f"finished after {trained.steps} steps; training loss {trained.final_loss:.4f}")
    yield TrainingFinished(
        folder=str(folder),
        labels=splits.labels,
        train_rows=len(splits.train),
        trained_tokens=0,
        steps=trained.steps,
        seconds=time.monotonic() - started,
        final_loss=trained.final_loss,
        validation_accuracy=trained.validation_accuracy,
        best_step=trained.best_step,
    )


def fit(
    order: ChildInput, assignment: TrainAssignment, splits: TableSplits, features: Features
) -> Generator[Fact, None, Trained]:
    """Train the family that the job names."""
    spec = assignment.spec
    rows, validation = (_part(features, splits, which) for which in ("train", "validation"))
    own = _own(spec)
    if spec.base_model == MLP:
        return (yield from _mlp(order, assignment, splits, features, rows, validation, own))
    began = time.monotonic()
    if spec.base_model == LOGISTIC_REGRESSION:
        fitted = fit_regression(rows, own)
    else:
        fitted = fit_boosting(rows, validation, spec.hyperparameters, own, spec.seed)
    for remark in fitted.remarks:
        yield log(remark)
    model = TabularModel(spec.base_model, splits.schema, features, splits.labels, fitted.arrays)
    done = _epoch(model, rows, validation, time.monotonic() - began)
    yield done
    yield log(in_words(done, 1))
    return Trained(model, 1, done.train_loss, done.validation_accuracy)


def _mlp(
    order: ChildInput,
    assignment: TrainAssignment,
    splits: TableSplits,
    features: Features,
    rows: Part,
    validation: Part,
    own: TabularConfig,
) -> Generator[Fact, None, Trained]:
    spec = assignment.spec
    network = mlp.build(len(features.names), len(splits.labels), own, spec.seed)
    state = yield from mlp.steps(
        network,
        mlp.Examples.of(rows.matrix, rows.targets),
        mlp.Examples.of(validation.matrix, validation.targets),
        _class_weights(rows, len(splits.labels)) if own.balanced else None,
        spec.hyperparameters,
        spec.seed,
        order.files.checkpoint if assignment.resume_from else None,
        order.work_dir / "checkpoints",
    )
    arrays = mlp.arrays_of(network.state_dict())
    model = TabularModel(spec.base_model, splits.schema, features, splits.labels, arrays)
    best = state.best_step if spec.hyperparameters.keep_best else None
    return Trained(model, state.step, state.final_loss, state.validation_accuracy, best)


def _part(features: Features, splits: TableSplits, which: str) -> Part:
    rows = splits.train if which == "train" else splits.validation
    return Part(features.matrix(values_of(rows)), label_numbers(rows, splits.labels))


def _epoch(model: TabularModel, rows: Part, validation: Part, seconds: float) -> EpochDone:
    loss = accuracy = None
    if len(validation):
        shares = model.of_matrix(validation.matrix)
        loss = log_loss(shares, validation.targets)
        accuracy = float((shares.argmax(axis=1) == validation.targets).mean())
    return EpochDone(
        epoch=1,
        step=1,
        train_loss=log_loss(model.of_matrix(rows.matrix), rows.targets),
        validation_loss=loss,
        validation_accuracy=accuracy,
        seconds=seconds,
    )


def _class_weights(rows: Part, labels: int) -> torch.Tensor:
    """All rows over classes times the rows of each class, as scikit-learn's "balanced" has it."""
    counts = np.bincount(rows.targets, minlength=labels)
    return torch.from_numpy(len(rows) / (labels * counts)).float()


def _parameters(spec: JobSpec, features: int, labels: int) -> int:
    """Numbers that are learned; how many a tree has shows when it is grown."""
    if spec.base_model == GRADIENT_BOOSTING:
        return 0
    if spec.base_model == LOGISTIC_REGRESSION:
        return (features + 1) * (labels if labels > 2 else 1)
    size = _own(spec).hidden_size
    return (features + 1) * size + (size + 1) * size + (size + 1) * labels


def _settings(spec: JobSpec) -> dict[str, object]:
    """What decided the model beside its rows."""
    values = flat(spec.in_full()["hyperparameters"])
    taken = TAKEN[spec.base_model]
    return {name: value for name, value in values.items() if name in taken} | {"seed": spec.seed}


def _own(spec: JobSpec) -> TabularConfig:
    return spec.hyperparameters.tabular or TabularConfig()


def _told(spec: JobSpec, splits: TableSplits, features: Features) -> Iterator[Fact]:
    """Say in words what is learned from what."""
    inputs = ", ".join(column.name for column in splits.schema.inputs)
    yield log(f"{spec.base_model}: {splits.schema.target} from {inputs}")
    yield log(
        f"{len(splits.labels)} classes; rows: {len(splits.train)} for training, "
        f"{len(splits.validation)} for validation, {len(splits.test)} held out; "
        f"{splits.groups} groups, none of them parted"
    )
    for name, count in features.filled().items():
        median = features.numeric[name].median
        yield warning(
            f"{name}: {count} of {len(splits.train)} training rows have no number and take the "
            f"median of the others, {median:g}"
        )
    if splits.leaked:
        yield warning(
            f"{splits.leaked} training rows were left out: a row of the test file has the same "
            "inputs, or is of the same group"
        )
    if splits.untested:
        yield warning(f"no row is held out of the classes {', '.join(splits.untested[:20])}")
    if not splits.validation:
        yield warning("no row is left for validation: every epoch is run, and the last is kept")
