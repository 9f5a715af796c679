"""Base against fine-tuned on the same held-out rows: what is compared, and that it comes out the same twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from domain.work import EvaluateAssignment, EvaluationFinished, TrainAssignment
from gpu_agent.evaluation import evaluate
from gpu_agent.outcomes import CheckpointUnreadable
from gpu_agent.recipes.sequence_classification import train
from tests.gpu_agent import tiny


@pytest.fixture(scope="module")
def adapter(data: Path, tmp_path_factory: pytest.TempPathFactory, models_folder: Path) -> Path:
    work_dir = tmp_path_factory.mktemp("work")
    order = tiny.train_order(tiny.spec(data, epochs=6), data, work_dir, models_folder)
    assert isinstance(order.assignment, TrainAssignment)
    list(train(order, order.assignment))
    return work_dir / "adapter"


def evaluated(
    data: Path,
    work_dir: Path,
    models_folder: Path,
    adapter: Path,
    labels: tuple[str, ...] = tiny.LABELS,
) -> EvaluationFinished:
    job = tiny.spec(data, epochs=6)
    order = tiny.evaluate_order(job, data, work_dir, models_folder, adapter, labels)
    assert isinstance(order.assignment, EvaluateAssignment)
    finished = list(evaluate(order, order.assignment))[-1]
    assert isinstance(finished, EvaluationFinished)
    return finished


def read_outputs(finished: EvaluationFinished) -> list[dict[str, Any]]:
    lines = Path(finished.outputs_path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_summary_follows_from_the_outputs_of_each_row(
    data: Path, tmp_path: Path, models_folder: Path, adapter: Path
) -> None:
    finished = evaluated(data, tmp_path, models_folder, adapter)
    summary, outputs = finished.summary, read_outputs(finished)

    def accuracy(system: str) -> float:
        return sum(row[system] == row["expected"] for row in outputs) / len(outputs)

    assert summary.rows == len(outputs) == 12
    assert summary.base.accuracy == pytest.approx(accuracy("base"))
    assert summary.untrained is not None
    assert summary.untrained.accuracy == pytest.approx(accuracy("untrained"))
    assert summary.fine_tuned.accuracy == pytest.approx(accuracy("fine_tuned"))
    assert summary.accuracy_delta == pytest.approx(accuracy("fine_tuned") - accuracy("base"))
    assert (summary.only_fine_tuned_right - summary.only_base_right) / 12 == pytest.approx(
        summary.accuracy_delta
    )
    assert summary.ci95[0] <= summary.accuracy_delta <= summary.ci95[1]


def test_times_are_measured_for_what_would_be_served(
    data: Path, tmp_path: Path, models_folder: Path, adapter: Path
) -> None:
    summary = evaluated(data, tmp_path, models_folder, adapter).summary

    for scores in (summary.base, summary.fine_tuned):
        assert scores.latency_ms_p50 is not None
        assert scores.latency_ms_p50 > 0
        assert scores.latency_ms_mean is not None
        assert scores.latency_ms_mean > 0
    assert summary.untrained is not None
    assert summary.untrained.latency_ms_p50 is None


def test_everything_but_the_times_is_the_same_twice(
    data: Path, tmp_path: Path, models_folder: Path, adapter: Path
) -> None:
    (tmp_path / "second").mkdir()
    first = evaluated(data, tmp_path, models_folder, adapter)
    second = evaluated(data, tmp_path / "second", models_folder, adapter)

    timeless = {"seconds": True}
    timeless |= {
        system: {"latency_ms_p50", "latency_ms_mean"}
        for system in ("base", "untrained", "fine_tuned")
    }
    assert first.summary.model_dump(exclude=timeless) == second.summary.model_dump(exclude=timeless)
    assert read_outputs(first) == read_outputs(second)


def test_adapter_for_other_labels_is_an_outcome(
    data: Path, tmp_path: Path, models_folder: Path, adapter: Path
) -> None:
    with pytest.raises(CheckpointUnreadable, match="other labels"):
        evaluated(data, tmp_path, models_folder, adapter, ("colour", "food"))
