"""Trains and evaluates every family of table models on one file: how long it takes, and how good it is.

    python -m bench.tables [--data FILE] [--schema diabetes] [--seeds N] [--json]

Without a file, 1,000 invented rows. The recipe runs in this process, so loading torch is left out.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any, Final
from uuid import UUID

from bench import patients
from bench.machine import machine
from domain.blobs import BlobRef
from domain.datasets.rows import RowReader
from domain.datasets.tables import TableChoice
from domain.jobs.spec import (
    DatasetRef,
    HyperparameterChoices,
    JobSpec,
    SplitConfig,
    hyperparameters,
)
from domain.jobs.tabular import TABULAR_MODELS
from domain.work import EvaluateAssignment, EvaluationFinished, TrainAssignment, TrainingFinished
from gpu_agent.protocol import ChildFiles, ChildInput
from gpu_agent.recipes import tabular
from gpu_agent.tabular import evaluation

ROWS: Final = 1000
ID: Final = UUID(int=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--schema")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data: Path = asked.data or folder / "rows.csv"
        if asked.data is None:
            data.write_bytes(patients.table(ROWS))
        began = time.perf_counter()
        ref = dataset(data, TableChoice(shipped=asked.schema))
        read_s = time.perf_counter() - began
        families = {
            family: measured(family, ref, data, folder, asked.seeds) for family in TABULAR_MODELS
        }
    result = {"rows": ref.rows, "scan_s": read_s, "families": families, "machine": machine()}
    if not asked.json:
        for family, found in families.items():
            print(f"{family:32}", "  ".join(f"{key} {value:.4g}" for key, value in found.items()))
    print(json.dumps(result))


def measured(
    family: str, ref: DatasetRef, data: Path, folder: Path, seeds: int
) -> dict[str, float]:
    runs = [run(family, ref, data, folder / f"{family}-{seed}", seed) for seed in range(seeds)]
    return {key: fmean(each[key] for each in runs) for key in runs[0]}


def run(family: str, ref: DatasetRef, data: Path, folder: Path, seed: int) -> dict[str, float]:
    spec = JobSpec(
        method="tabular",
        base_model=family,
        model_name="bench",
        train=ref,
        split=SplitConfig(seed=seed),
        hyperparameters=hyperparameters("tabular", family, HyperparameterChoices()),
        seed=seed,
    )
    common: dict[str, Any] = {
        "workspace": "bench",
        "attempt": 1,
        "spec": spec,
        "correlation_id": ID,
    }
    training = TrainAssignment(job_id=ID, **common)
    order = ChildInput(
        assignment=training, work_dir=folder, files=ChildFiles(train=data), threads=1
    )
    *_, finished = tabular.train(order, training)
    assert isinstance(finished, TrainingFinished)
    evaluating = EvaluateAssignment(evaluation_id=ID, labels=finished.labels, adapter=(), **common)
    files = ChildFiles(train=data, adapter=Path(finished.folder))
    order = ChildInput(assignment=evaluating, work_dir=folder, files=files, threads=1)
    *_, evaluated = evaluation.evaluate(order, evaluating)
    assert isinstance(evaluated, EvaluationFinished)
    summary = evaluated.summary
    assert summary.majority is not None
    return {
        "train_s": finished.seconds,
        "steps": finished.steps,
        "accuracy": summary.fine_tuned.accuracy,
        "f1": summary.fine_tuned.f1 or 0.0,
        "loss": summary.fine_tuned.loss or 0.0,
        "base_accuracy": summary.base.accuracy,
        "majority_accuracy": summary.majority.scores.accuracy,
        "row_ms": summary.fine_tuned.latency_ms_p50 or 0.0,
    }


def dataset(data: Path, choice: TableChoice) -> DatasetRef:
    reader = RowReader(kind="tabular", table=choice, filename=data.name)
    reader.feed(data.read_bytes())
    reader.finish()
    if reader.schema is None or reader.format is None:
        raise SystemExit(f"{data}: {reader.problems[0].message}")
    return DatasetRef(
        dataset_id=ID,
        name=data.name,
        blob=BlobRef(sha256="0" * 64, size=data.stat().st_size, crc32=0),
        format=reader.format,
        delimiter=reader.delimiter,
        kind="tabular",
        text_column="",
        label_column=reader.schema.target,
        rows=reader.row_count,
        labels=tuple(reader.labels),
        table=reader.schema,
    )


if __name__ == "__main__":
    main()
