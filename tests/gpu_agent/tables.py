"""Small tables and jobs over them: training takes moments."""

import random
from pathlib import Path
from typing import Any
from uuid import UUID

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
from domain.work import EvaluateAssignment, Fact, TrainAssignment, TrainingCheckpoint
from gpu_agent.protocol import ChildFiles, ChildInput
from gpu_agent.recipes import tabular
from gpu_agent.tabular import evaluation

ID = UUID(int=7)


def write(path: Path, rows: int = 240, classes: int = 3, seed: int = 0, missing: int = 5) -> Path:
    """Numbers and a category that tell the class but for some noise; some rows are of one person."""
    chance = random.Random(seed)
    lines = ["patient_id,size,weight,colour,class"]
    for at in range(rows):
        size, weight = chance.gauss(0, 1), chance.gauss(10, 3)
        colour = chance.choice(["red", "green", "blue"])
        score = size + 0.2 * weight + (colour == "red") + chance.gauss(0, 0.2)
        label = min(classes - 1, max(0, int((score - 1) * classes / 3)))
        told = "" if at < missing else f"{size:.4f}"
        lines.append(f"p{chance.randrange(rows)},{told},{weight:.3f},{colour},c{label}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def dataset(path: Path, choice: TableChoice | None = None) -> DatasetRef:
    reader = RowReader(kind="tabular", table=choice or TableChoice(), filename=path.name)
    reader.feed(path.read_bytes())
    reader.finish()
    assert reader.problems == []
    assert reader.format is not None
    return DatasetRef(
        dataset_id=ID,
        name=path.name,
        blob=BlobRef(sha256="0" * 64, size=path.stat().st_size, crc32=0),
        format=reader.format,
        delimiter=reader.delimiter,
        kind="tabular",
        text_column="",
        label_column=reader.label_column or "",
        rows=reader.row_count,
        labels=tuple(reader.labels),
        table=reader.schema,
    )


def spec(
    path: Path,
    family: str,
    *,
    test: Path | None = None,
    choice: TableChoice | None = None,
    split: SplitConfig | None = None,
    seed: int = 0,
    **chosen: Any,
) -> JobSpec:
    choices = HyperparameterChoices.model_validate(chosen)
    held_out = dataset(test, choice).model_copy(update={"table": None}) if test else None
    return JobSpec(
        method="tabular",
        base_model=family,
        model_name="risk",
        train=dataset(path, choice),
        test=held_out,
        split=split or SplitConfig(),
        hyperparameters=hyperparameters("tabular", family, choices),
        seed=seed,
    )


def train_order(
    job: JobSpec, data: Path, folder: Path, test: Path | None = None, checkpoint: Path | None = None
) -> ChildInput:
    step = int(checkpoint.name.partition("-")[2]) if checkpoint else 0
    resume = TrainingCheckpoint(step=step, epoch=0, files=()) if checkpoint else None
    assignment = TrainAssignment(
        workspace="tests",
        job_id=ID,
        attempt=1,
        spec=job,
        resume_from=resume,
        correlation_id=ID,
    )
    files = ChildFiles(train=data, test=test, checkpoint=checkpoint)
    return ChildInput(assignment=assignment, work_dir=folder, files=files, threads=1)


def train(
    job: JobSpec, data: Path, folder: Path, test: Path | None = None, checkpoint: Path | None = None
) -> list[Fact]:
    order = train_order(job, data, folder, test, checkpoint)
    assert isinstance(order.assignment, TrainAssignment)
    return list(tabular.train(order, order.assignment))


def evaluate(
    job: JobSpec,
    data: Path,
    folder: Path,
    model: Path,
    labels: tuple[str, ...],
    test: Path | None = None,
) -> list[Fact]:
    assignment = EvaluateAssignment(
        workspace="tests",
        evaluation_id=ID,
        attempt=1,
        spec=job,
        labels=labels,
        adapter=(),
        correlation_id=ID,
    )
    files = ChildFiles(train=data, test=test, adapter=model)
    order = ChildInput(assignment=assignment, work_dir=folder, files=files, threads=1)
    return list(evaluation.evaluate(order, assignment))
