"""The main job, measured: seconds by phase, accuracy, peak memory of the whole tree, and the machine's own speed.

    python -m bench.main_job [--runs N]
    python -m bench.main_job --train train.csv --test test.csv --intents 10

With ``--intents N`` the first N intents in alphabetical order are kept of both files. The last line is one
JSON object.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).parents[1]
SAMPLE_S = 0.25


class PeakMemory:
    """Samples the proportional set size of a process and all its children."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, self._sample())

    def _sample(self) -> int:
        total = 0
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._pid)
            for process in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += process.memory_full_info().pss
        return total


def calibration() -> dict[str, float]:
    """What the machine gives right now: fp32 matrix product and load."""
    program = (
        "import time,torch;a=torch.randn(1024,1024);[a@a for _ in range(5)];t=time.time();"
        "[a@a for _ in range(40)];print(40*2*1024**3/(time.time()-t)/1e9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return {"matmul_gflops": round(float(done.stdout), 1), "load_1min": psutil.getloadavg()[0]}


def demo(*arguments: str) -> dict[str, Any]:
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "finetrail", "demo", "--json", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with PeakMemory(process.pid) as memory:
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the demo failed with exit status {process.returncode}")
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    result["wall_s"] = round(time.monotonic() - began, 1)
    result["peak_gib"] = round(memory.peak_bytes / 1024**3, 2)
    return result


def first_intents(source: Path, target: Path, label: str, kept: set[str]) -> int:
    with source.open(newline="") as given, target.open("w", newline="") as chosen:
        reader = csv.DictReader(given)
        writer = csv.DictWriter(chosen, reader.fieldnames or [])
        writer.writeheader()
        rows = [row for row in reader if row[label] in kept]
        writer.writerows(rows)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--label", default="category")
    parser.add_argument("--intents", type=int, default=10)
    parser.add_argument("--runs", type=int, default=1)
    asked = parser.parse_args()
    before = calibration()
    with tempfile.TemporaryDirectory() as scratch:
        arguments: list[str] = []
        intents: list[str] = []
        if asked.train and asked.test:
            with asked.train.open(newline="") as file:
                intents = sorted({row[asked.label] for row in csv.DictReader(file)})[
                    : asked.intents
                ]
            for name, source in (("data", asked.train), ("test", asked.test)):
                target = Path(scratch) / f"{name}.csv"
                rows = first_intents(source, target, asked.label, set(intents))
                print(f"{name}: {rows} rows of {len(intents)} intents")
                arguments += [f"--{name}", str(target)]
            arguments += ["--label", asked.label]
        runs = [demo(*arguments) for _ in range(asked.runs)]
    report = {"before": before, "after": calibration(), "intents": intents, "runs": runs}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
