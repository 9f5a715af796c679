"""A model of a table against logistic regression and the commonest class, paired row by row."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final

from domain.datasets.table_scan import TableRow
from domain.jobs.tabular import LOGISTIC_REGRESSION, TabularConfig
from domain.work import (
    EvaluateAssignment,
    EvaluationFinished,
    EvaluationSummary,
    Fact,
    Majority,
    Scores,
)
from gpu_agent.environment import describe, set_up
from gpu_agent.examples import choose_examples, side_by_side
from gpu_agent.outcomes import CheckpointUnreadable, DataUnreadable
from gpu_agent.protocol import ChildInput
from gpu_agent.schedule import log
from gpu_agent.statistics import Comparison, compare
from gpu_agent.tabular.features import Features
from gpu_agent.tabular.fitting import Part, fit_regression
from gpu_agent.tabular.model import TabularModel
from gpu_agent.tabular.rows import (
    TableSplits,
    in_words,
    label_numbers,
    read_table_splits,
    values_of,
)
from gpu_agent.tabular.scores import by_class, log_loss, scores

TIMED_ROWS: Final = 40  # one at a time, as for classifiers of text


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one system says of every held-out row."""

    labels: list[str]
    scores: Scores


def evaluate(order: ChildInput, assignment: EvaluateAssignment) -> Iterator[Fact]:
    """Compare three systems on rows that none of them has seen.

    The base is logistic regression on the same training rows, or the commonest class where it is
    logistic regression that is evaluated.

    Raises:
        WorkFailed: the evaluation cannot be done as it is stated.
    """
    began = time.monotonic()
    spec = assignment.spec
    yield log(f"evaluating on {describe(set_up('cpu', threads=1)).device_name}")
    splits = read_table_splits(spec, order.files.train, order.files.test)
    model = _model(order, splits, assignment.labels)
    tuned, commonest = _run(model, splits.test), _commonest(splits)
    base = commonest
    if spec.base_model != LOGISTIC_REGRESSION:
        base = _run(regression(splits), splits.test)
    path = order.work_dir / "outputs.jsonl"
    _write_outputs(path, splits.test, base, commonest, tuned)
    summary = _summary(splits.test, base, commonest, tuned, began)
    yield log(
        f"accuracy on {summary.rows} held-out rows: base {summary.base.accuracy:.4f}, commonest "
        f"class {commonest.scores.accuracy:.4f}, trained {summary.fine_tuned.accuracy:.4f}, "
        f"p {summary.p_value:.3g}: {summary.verdict}"
    )
    yield EvaluationFinished(summary=summary, outputs_path=str(path))


def regression(splits: TableSplits) -> TabularModel:
    """Fit logistic regression with its defaults to the training rows."""
    features = Features.fit(splits.schema, values_of(splits.train))
    part = Part(
        features.matrix(values_of(splits.train)), label_numbers(splits.train, splits.labels)
    )
    fitted = fit_regression(part, TabularConfig())
    family = LOGISTIC_REGRESSION
    return TabularModel(family, splits.schema, features, splits.labels, fitted.arrays)


def _model(order: ChildInput, splits: TableSplits, labels: Sequence[str]) -> TabularModel:
    if not splits.test:
        raise DataUnreadable("no row is held out, so nothing can be evaluated")
    if order.files.adapter is None:
        raise CheckpointUnreadable("the evaluation was given no model")
    model = TabularModel.load(order.files.adapter)
    if model.labels != tuple(labels):
        raise CheckpointUnreadable("the model was trained for other classes")
    return model


def _run(model: TabularModel, rows: Sequence[TableRow]) -> Outputs:
    values, expected = values_of(rows), [row.label for row in rows]
    shares = model.probabilities(values)
    said = [model.labels[at] for at in shares.argmax(axis=1).tolist()]
    found = scores(said, expected, log_loss(shares, label_numbers(rows, model.labels)))
    times_ms = []
    for at in range(TIMED_ROWS):
        clock = time.perf_counter()
        model.predict([values[at % len(values)]])
        times_ms.append((time.perf_counter() - clock) * 1000)
    latency = {"latency_ms_p50": median(times_ms), "latency_ms_mean": fmean(times_ms)}
    return Outputs(said, found.model_copy(update=latency))


def _commonest(splits: TableSplits) -> Outputs:
    labels = [row.label for row in splits.train]
    most = min(splits.labels, key=lambda label: (-labels.count(label), label))
    said = [most] * len(splits.test)
    return Outputs(said, scores(said, [row.label for row in splits.test], None))


def _summary(
    rows: Sequence[TableRow], base: Outputs, commonest: Outputs, tuned: Outputs, began: float
) -> EvaluationSummary:
    expected = [row.label for row in rows]
    paired, beside = _paired(base, tuned, expected), _paired(commonest, tuned, expected)
    delta = tuned.scores.accuracy - base.scores.accuracy
    f1, base_f1 = tuned.scores.f1, base.scores.f1
    return EvaluationSummary(
        rows=len(rows),
        base=base.scores,
        untrained=None,
        fine_tuned=tuned.scores,
        accuracy_delta=delta,
        accuracy_delta_relative=delta / base.scores.accuracy if base.scores.accuracy else None,
        f1_delta=None if f1 is None or base_f1 is None else f1 - base_f1,
        p_value=paired.p_value,
        ci95=paired.ci95,
        only_base_right=paired.only_first,
        only_fine_tuned_right=paired.only_second,
        verdict=paired.verdict,
        examples=tuple(
            side_by_side(in_words(rows[at]), expected[at], base.labels[at], tuned.labels[at])
            for at in choose_examples(base.labels, tuned.labels)
        ),
        seconds=time.monotonic() - began,
        majority=Majority(
            label=commonest.labels[0],
            scores=commonest.scores,
            p_value=beside.p_value,
            ci95=beside.ci95,
            verdict=beside.verdict,
        ),
        by_class=by_class(tuned.labels, expected),
    )


def _paired(first: Outputs, second: Outputs, expected: Sequence[str]) -> Comparison:
    return compare(
        [one == right for one, right in zip(first.labels, expected, strict=True)],
        [one == right for one, right in zip(second.labels, expected, strict=True)],
    )


def _write_outputs(
    path: Path, rows: Sequence[TableRow], base: Outputs, commonest: Outputs, tuned: Outputs
) -> None:
    said = zip(rows, base.labels, commonest.labels, tuned.labels, strict=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row, by_base, by_commonest, by_tuned in said:
            line = {
                "line": row.line,
                "text": in_words(row),
                "expected": row.label,
                "base": by_base,
                "majority": by_commonest,
                "fine_tuned": by_tuned,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
