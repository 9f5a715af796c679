"""Supervised fine-tuning, measured: our recipe beside transformers' Trainer on the same model, rows and steps.

    python -m bench.recipes [--json] [--seeds N] [--steps N]

A model of 7 million parameters with weights at random learns from ragged conversations by LoRA of rank 16
on all linear layers, in float32. Every engine runs in a process of its own, with the environment that an
agent gives its children. The engines take turns step by step, so that a neighbour on the machine meets them
all alike, and none computes while another does. The last line is one JSON object.
"""

import argparse
import ast
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bench.main_job import ROOT, calibration
from bench.random_model import VOCABULARY, random_model
from bench.recipe_engine import BATCH, THREADS, WAITING
from domain.datasets.conversations import Conversation, Message
from gpu_agent.protocol import child_environment
from gpu_agent.rendering import Rendered, render
from gpu_agent.supervision import padding_share
from gpu_agent.tiny.tokenizer import CHAT_TEMPLATE, END, END_OF_TEXT, SPECIAL

ENGINES = ("ours", "trainer", "grouped")
CONTEXT = 384  # tokens; longer rows lose their end
CHARACTERS = (120, 1400)  # of a conversation, at least and at most
SPREAD = (5.9, 0.75)  # mean and deviation of the logarithm of the characters: half would be padding
ASKED = 0.55  # share of a conversation that is read and not learned
HELD_OUT = 64  # conversations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    chosen = parser.parse_args()
    before = calibration()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepare(folder, chosen.steps * BATCH)
        for seed in range(chosen.seeds):
            runs += by_turns(folder, seed)
            if not chosen.json:
                print("\n".join(in_words(run) for run in runs[-len(ENGINES) :]), flush=True)
        serving = by_turns(folder, 0, ("serving",))[0]
    result = {
        "data": data,
        "engines": {engine: summary(runs, engine) for engine in ENGINES},
        "calibration": {"before": before, "after": calibration()},
        "tokens_ratio_vs_trainer": ratio(runs, "tokens_per_s", "trainer"),
        "tokens_ratio_vs_trainer_grouped": ratio(runs, "tokens_per_s", "grouped"),
        "memory_ratio_vs_trainer": ratio(runs, "memory_mib", "trainer"),
        "serving_16_vs_1": round(serving["serving_16_vs_1"], 2),
    }
    print(json.dumps(result))


def prepare(folder: Path, rows: int) -> dict[str, Any]:
    """Write the model and the rows, as every engine will read them."""
    texts = list(docstrings())
    random.Random(0).shuffle(texts)
    tokenizer = train_tokenizer(texts)
    network = random_model(CONTEXT, tokenizer.eos_token_id, tokenizer.pad_token_id)
    network.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    drawn = random.Random(0)
    rendered = [render(tokenizer, chat(text, drawn), CONTEXT) for text in texts[: rows + HELD_OUT]]
    train = write_rows(folder / "train.json", rendered[:rows])
    write_rows(folder / "held_out.json", rendered[rows:])
    return {
        "parameters": network.num_parameters(),
        "rows": len(train),
        "tokens": sum(len(row.ids) for row in train),
        "supervised_tokens": sum(row.targets for row in train),
        "padding_share": round(padding_share(train, BATCH, seed=0), 3),
        "batch_size": BATCH,
    }


def docstrings() -> Iterator[str]:
    """English in different lengths that every machine has: what Python's own library says of itself."""
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) > CHARACTERS[0]:
                    yield text


def chat(text: str, drawn: random.Random) -> Conversation:
    length = int(min(CHARACTERS[1], max(CHARACTERS[0], drawn.lognormvariate(*SPREAD))))
    text = (text * (length // len(text) + 1))[:length]
    cut = int(length * ASKED)
    asked = Message("user", text[:cut], supervised=False)
    return Conversation(1, (asked, Message("assistant", text[cut:], supervised=True)))


def train_tokenizer(texts: list[str]) -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )


def write_rows(path: Path, rows: list[Rendered]) -> list[Rendered]:
    path.write_text(json.dumps([[row.ids, row.supervised] for row in rows]), encoding="ascii")
    return rows


def by_turns(folder: Path, seed: int, engines: tuple[str, ...] = ENGINES) -> list[dict[str, Any]]:
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
            [sys.executable, "-m", "bench.recipe_engine", engine, str(folder), str(seed)],
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
        f"seed {run['seed']}  {run['engine']:8} {run['tokens_per_s']:8.1f} tokens/s  "
        f"{run['seconds']:6.2f} s  {run['cpu_s']:6.2f} CPU s  {run['memory_mib']:5} MiB  "
        f"loss {run['losses'][0]:.3f} to {run['losses'][-1]:.3f}, held out {run['held_out_loss']:.4f}"
    )


if __name__ == "__main__":
    main()
