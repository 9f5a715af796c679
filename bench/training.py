"""Supervised fine-tuning, measured: our recipe beside transformers' Trainer and TRL's SFTTrainer.

    python -m bench.training [--json] [--seeds N] [--steps N] [--only 7M,even,30M,overhead]

Models of 7 and 30 million parameters with weights at random learn from conversations by LoRA of rank 16 on
all linear layers, in float32: ragged ones, where half of a padded batch is padding, and ones of even length.
Every engine runs in a process of its own, with the environment that an agent gives its children. The engines
take turns step by step, so that a neighbour on the machine meets them all alike, and none computes while
another does. What the platform costs beside the steps is measured in a training through a real stack. The last
line is one JSON object.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.main_job import ROOT, calibration
from bench.platform_overhead import overhead
from bench.random_model import random_model
from bench.training_engine import BATCH, THREADS, WAITING
from bench.training_rows import CONTEXT, EVEN, RAGGED, Spread, chat, docstrings, train_tokenizer
from gpu_agent.protocol import child_environment
from gpu_agent.rendering import Rendered, render
from gpu_agent.supervision import padding_share

ENGINES = ("ours", "trainer", "grouped", "trl", "trl_packed")
HELD_OUT = 64  # conversations
LARGE_STEPS = 12  # of the model of 30 million parameters, which takes four times as long


@dataclass(frozen=True, slots=True)
class Course:
    """A model, rows, and who learns from them."""

    name: str
    size: str
    spread: Spread
    engines: tuple[str, ...]
    steps: int


def courses(steps: int) -> list[Course]:
    return [
        Course("7M", "7M", RAGGED, ENGINES, steps),
        Course("even", "7M", EVEN, ("ours", "trainer"), steps),
        Course("30M", "30M", RAGGED, ENGINES, min(steps, LARGE_STEPS)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--only", default="7M,even,30M,overhead")
    chosen = parser.parse_args()
    wanted = chosen.only.split(",")
    before = calibration()
    result: dict[str, Any] = {}
    for course in courses(chosen.steps):
        if course.name in wanted:
            result[course.name] = run(course, chosen.seeds, quiet=chosen.json)
    if "overhead" in wanted:
        result["overhead"] = overhead()
    result["calibration"] = {"before": before, "after": calibration()}
    print(json.dumps(result | headline(result)))


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """The figures that are asked for, of the model of 7 million parameters; none of what was not run."""
    ragged, even = result.get("7M", {}), result.get("even", {})
    return {
        "ratio_vs_trainer": ragged.get("ratio_vs_trainer"),
        "ratio_vs_trainer_grouped": ragged.get("ratio_vs_grouped"),
        "ratio_vs_trl": ragged.get("ratio_vs_trl"),
        "ratio_vs_trl_packed": ragged.get("ratio_vs_trl_packed"),
        "unpadded_ratio_vs_trainer": even.get("ratio_vs_trainer"),
        "memory_ratio_vs_trainer": ragged.get("memory_ratio_vs_trainer"),
        "overhead_pct": result.get("overhead", {}).get("overhead_pct"),
    }


def run(course: Course, seeds: int, *, quiet: bool) -> dict[str, Any]:
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepare(folder, course)
        for seed in range(seeds):
            runs += by_turns(folder, seed, course.engines)
            if not quiet:
                print(
                    "\n".join(
                        f"{course.name:5} {in_words(each)}" for each in runs[-len(course.engines) :]
                    ),
                    flush=True,
                )
    others = [engine for engine in course.engines if engine != "ours"]
    return {
        "data": data,
        "engines": {engine: summary(runs, engine) for engine in course.engines},
        **{f"ratio_vs_{other}": ratio(runs, "tokens_per_s", other) for other in others},
        **{f"memory_ratio_vs_{other}": ratio(runs, "memory_mib", other) for other in others},
        "loss_gap_to_trainer": loss_gap(runs),
    }


def loss_gap(runs: list[dict[str, Any]]) -> float:
    """The largest difference of ours to Trainer's, of the same batches, in nats a token: rounding."""
    gaps: list[float] = [
        abs(mine - theirs)
        for one, other in zip(of(runs, "ours"), of(runs, "trainer"), strict=True)
        for mine, theirs in zip(one["losses"], other["losses"], strict=True)
    ]
    return round(max(gaps), 5)


def prepare(folder: Path, course: Course) -> dict[str, Any]:
    """Write the model and the rows, as every engine will read them."""
    texts = list(docstrings())
    random.Random(0).shuffle(texts)
    tokenizer = train_tokenizer(texts)
    network = random_model(CONTEXT, tokenizer.eos_token_id, tokenizer.pad_token_id, course.size)
    network.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    drawn, rows = random.Random(0), course.steps * BATCH
    rendered = [
        render(tokenizer, chat(text, drawn, course.spread), CONTEXT)
        for text in texts[: rows + HELD_OUT]
    ]
    if course.spread == EVEN:
        shortest = min(len(row.ids) for row in rendered)
        rendered = [cut(row, shortest) for row in rendered]
    train = write_rows(folder / "train.json", rendered[:rows])
    write_rows(folder / "held_out.json", rendered[rows:])
    return {
        "parameters": network.num_parameters(),
        "rows": len(train),
        "tokens": sum(len(row.ids) for row in train),
        "supervised_tokens": sum(row.targets for row in train),
        "padding_share": round(padding_share(train, BATCH, seed=0), 3),
        "batch_size": BATCH,
        "steps": course.steps,
    }


def cut(row: Rendered, length: int) -> Rendered:
    """Take the first tokens off, so that what is learned stays."""
    return Rendered(row.ids[-length:], row.supervised[-length:], truncated=True, full_length=length)


def write_rows(path: Path, rows: list[Rendered]) -> list[Rendered]:
    path.write_text(json.dumps([[row.ids, row.supervised] for row in rows]), encoding="ascii")
    return rows


def by_turns(folder: Path, seed: int, engines: tuple[str, ...]) -> list[dict[str, Any]]:
    """Let each engine take its next step in turn, until all have ended; what they found."""
    with ExitStack() as stack:
        children = {
            engine: stack.enter_context(started(engine, folder, seed)) for engine in engines
        }
        lines = {engine: said(child, engine, folder) for engine, child in children.items()}
        while WAITING in lines.values():
            for engine, child in children.items():
                if lines[engine] == WAITING:
                    assert child.stdin
                    child.stdin.write("go\n")
                    child.stdin.flush()
                    lines[engine] = said(child, engine, folder)
        return [json.loads(line) for line in lines.values()]


@contextmanager
def started(engine: str, folder: Path, seed: int) -> Iterator["subprocess.Popen[str]"]:
    with (folder / f"{engine}.log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.training_engine", engine, str(folder), str(seed)],
            cwd=ROOT,
            env={**os.environ, **child_environment(THREADS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield child
        finally:
            child.kill()
            child.communicate()


def said(child: "subprocess.Popen[str]", engine: str, folder: Path) -> str:
    """Read on to what is meant for us; Trainer prints too."""
    assert child.stdout
    for line in child.stdout:
        if line.strip() == WAITING or line.startswith('{"'):
            return line.strip()
    raise SystemExit(f"{engine} failed:\n{(folder / f'{engine}.log').read_text()}")


def of(runs: list[dict[str, Any]], engine: str) -> list[dict[str, Any]]:
    return [run for run in runs if run["engine"] == engine]


def summary(runs: list[dict[str, Any]], engine: str) -> dict[str, Any]:
    mine = of(runs, engine)
    return {
        "tokens_per_s": [run["tokens_per_s"] for run in mine],
        "cpu_s": [run["cpu_s"] for run in mine],
        "memory_mib": [run["memory_mib"] for run in mine],
        "first_loss": [run["losses"][0] for run in mine],
        "last_loss": [run["losses"][-1] for run in mine],
        "held_out_loss": [run["held_out_loss"] for run in mine],
    }


def ratio(runs: list[dict[str, Any]], figure: str, other: str) -> float:
    """Ours to the other's, seed by seed; the median."""
    pairs = zip(of(runs, "ours"), of(runs, other), strict=True)
    return round(
        statistics.median(float(mine[figure] / theirs[figure]) for mine, theirs in pairs), 3
    )


def in_words(run: dict[str, Any]) -> str:
    return (
        f"seed {run['seed']}  {run['engine']:10} {run['tokens_per_s']:8.1f} tokens/s  "
        f"{run['seconds']:6.2f} s  {run['cpu_s']:6.2f} CPU s  {run['memory_mib']:5} MiB  "
        f"loss {run['losses'][0]:.3f} to {run['losses'][-1]:.3f}, held out {run['held_out_loss']:.4f}"
    )


if __name__ == "__main__":
    main()
