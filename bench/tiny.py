"""The tiny model before and after fine-tuning, on slot values and on wordings that neither run has seen.

    python -m bench.tiny [--json] [--seeds 0 1 2]

For each seed a base is made, trained on with the product's own defaults, and both are scored by the
likelihood of the labels. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.main_job import ROOT, calibration
from domain.blobs import BlobRef
from domain.jobs.spec import TINY, TINY_SFT, DatasetRef, JobSpec
from domain.work import (
    EvaluateAssignment,
    EvaluationFinished,
    EvaluationSummary,
    Fact,
    Failed,
    TrainAssignment,
    TrainingFinished,
)
from gpu_agent.protocol import ChildFiles, ChildInput, child_environment, decode_fact

EXAMPLES = ROOT / "examples"
TRAIN = EXAMPLES / "support_chat.jsonl"
HELD_OUT = {
    "slots": EXAMPLES / "support_chat_test.jsonl",
    "wordings": EXAMPLES / "support_chat_wordings.jsonl",
}


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs what an agent would run, in processes like an agent's."""

    folder: Path
    threads: int
    seed: int

    def make(self) -> float:
        from gpu_agent.tiny.make import folder_name  # noqa: PLC0415 - torch

        began = time.monotonic()
        arguments = [
            "--make",
            str(self.folder / "made" / folder_name()),
            "--threads",
            str(self.threads),
        ]
        subprocess.run(
            [sys.executable, "-m", "bench.tiny", "--seeds", str(self.seed), *arguments],
            cwd=ROOT,
            env=os.environ | child_environment(self.threads),
            check=True,
        )
        return time.monotonic() - began

    def train(self) -> tuple[Path, float]:
        began = time.monotonic()
        assignment = TrainAssignment(
            workspace="bench",
            job_id=UUID(int=1),
            attempt=1,
            spec=self._spec(HELD_OUT["slots"]),
            correlation_id=UUID(int=2),
        )
        done = self._child(assignment, ChildFiles(train=TRAIN, test=HELD_OUT["slots"]), "train")
        assert isinstance(done, TrainingFinished)
        return Path(done.folder), time.monotonic() - began

    def score(self, name: str, adapter: Path) -> EvaluationSummary:
        assignment = EvaluateAssignment(
            workspace="bench",
            evaluation_id=UUID(int=3),
            attempt=1,
            spec=self._spec(HELD_OUT[name]),
            labels=(),
            adapter=(),
            correlation_id=UUID(int=2),
        )
        files = ChildFiles(train=TRAIN, test=HELD_OUT[name], adapter=adapter)
        done = self._child(assignment, files, name)
        assert isinstance(done, EvaluationFinished)
        return done.summary

    def _spec(self, test: Path) -> JobSpec:
        return JobSpec(
            method="sft",
            base_model=TINY,
            model_name="tiny",
            train=dataset(TRAIN),
            test=dataset(test),
            hyperparameters=TINY_SFT,
            seed=self.seed,
        )

    def _child(
        self, assignment: TrainAssignment | EvaluateAssignment, files: ChildFiles, name: str
    ) -> Fact:
        work = self.folder / name
        work.mkdir()
        order = ChildInput(
            assignment=assignment,
            work_dir=work,
            files=files,
            made_folder=self.folder / "made",
            device="cpu",
            threads=self.threads,
        )
        with subprocess.Popen(
            [sys.executable, "-m", "gpu_agent.child"],
            cwd=ROOT,
            env=os.environ | child_environment(self.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(order.model_dump_json().encode() + b"\n")
            process.stdin.flush()  # and left open: the child ends with its parent
            last = [decode_fact(line) for line in process.stdout][-1]
        if isinstance(last, Failed):
            raise SystemExit(f"{name}: {last.code}: {last.message}")
        return last


def dataset(path: Path) -> DatasetRef:
    return DatasetRef(
        dataset_id=UUID(int=4),
        name=path.name,
        blob=BlobRef(sha256="0" * 64, size=path.stat().st_size, crc32=0),
        format="jsonl",
        delimiter=None,
        kind="chat",
        text_column="messages",
        label_column="",
        rows=len(path.read_bytes().splitlines()),
        labels=(),
    )


def run(seed: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), threads, seed)
        make_s = bench.make()
        adapter, train_s = bench.train()
        result: dict[str, Any] = {
            "seed": seed,
            "make_s": round(make_s, 1),
            "train_s": round(train_s, 1),
        }
        for name in HELD_OUT:
            summary = bench.score(name, adapter)
            result[name] = {
                "rows": summary.rows,
                "base": round(summary.base.accuracy, 3),
                "tuned": round(summary.fine_tuned.accuracy, 3),
                "generated_right": round(summary.fine_tuned.exact_match or 0.0, 3),  # of a sample
                "p_value": summary.p_value,
            }
        return result


def make(folder: Path, seed: int, threads: int) -> None:
    from gpu_agent.environment import set_up  # noqa: PLC0415 - torch
    from gpu_agent.tiny.make import make_tiny  # noqa: PLC0415

    set_up("cpu", threads)
    make_tiny(folder, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make:
        make(asked.make, asked.seeds[0], asked.threads)
        return
    before = calibration()
    runs = []
    for seed in asked.seeds:
        runs.append(run(seed, asked.threads))
        if not asked.json:
            print(json.dumps(runs[-1]))
    lowest = min(one["slots"]["tuned"] for one in runs)
    highest_p = max(one["slots"]["p_value"] for one in runs)
    report = {"before": before, "runs": runs, "lowest_tuned": lowest, "highest_p": highest_p}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
