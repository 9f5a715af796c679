"""What the platform costs beside the steps of a training: events, telemetry, training checkpoints; through a real stack.

    python -m bench.platform_overhead [--steps N]

A model of 7 million parameters learns on a private stack of real servers. The steps themselves take what the
training process says of each; what is left of its loop's time is writing facts and training checkpoints.
The agent's own processor time is counted as if it had kept the training waiting. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import random
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psutil
import torch

from bench.random_model import random_model
from bench.training_rows import CONTEXT, RAGGED, chat, docstrings, train_tokenizer
from domain.blobs import BlobRef
from domain.jobs.spec import DatasetRef, JobSpec, SplitConfig
from finetrail.cli import following, session
from finetrail.client import Client
from finetrail.owner import issue_key
from finetrail.private_stack import interruptible, private_folder, private_stack
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.data import read_conversation_splits, shuffled_batches
from gpu_agent.language_model import load_language_model
from gpu_agent.rendering import render

BATCH: Final = 8
STEPS: Final = 150  # three training checkpoints by default, and the last one
POINTS: Final = 5_000  # all steps, and as many as the server gives
SPLIT: Final = SplitConfig(validation_fraction=0.0, test_fraction=0.01)


def overhead(steps: int = STEPS) -> dict[str, Any]:
    with interruptible(), private_folder(keep=False) as folder:
        data = write_chats(folder / "chats.jsonl", steps * BATCH)
        with private_stack(folder / "data") as settings:
            models = settings.folder / "models"
            write_model(models / "random")
            key = asyncio.run(issue_key(settings, name="bench", role="admin"))
            with Client(settings.gateway_url, key, patience_s=30) as client:
                session.wait_until_accepted(client)
                return measured(client, data, models)


def measured(client: Client, data: Path, models: Path) -> dict[str, Any]:
    dataset = client.upload_dataset(data)
    agent = agent_process()
    before = sum(agent.cpu_times()[:2])
    job = client.submit_job(
        "random",
        dataset.id,
        base_model="random",
        split=SPLIT.model_dump(),
        hyperparameters={"epochs": 1, "batch_size": BATCH, "max_length": CONTEXT},
    )
    job = following.follow_job(client, job.id)
    if job.status != "succeeded":
        raise SystemExit(f"the training {job.status}: {job.error}")
    agent_s = sum(agent.cpu_times()[:2]) - before
    said = {each.step: each.tokens_per_s for each in client.metrics(job.id, points=POINTS)}
    counts = tokens_of_steps(data, models)
    steps_s = sum(counts[step - 1] / rate for step, rate in said.items())
    events = client.events(after=0, limit=POINTS)
    saved = [event for event in events if event.type == "CheckpointSaved"]
    (ended,) = (event for event in events if event.type == "JobSucceeded")
    loop_s = float(ended.data["seconds"])
    return {
        "steps": len(said),
        "steps_s": round(steps_s, 2),
        "loop_s": round(loop_s, 2),
        "agent_cpu_s": round(agent_s, 2),
        "checkpoints": len(saved),
        "in_the_loop_pct": round(100 * (loop_s - steps_s) / steps_s, 2),
        "overhead_pct": round(100 * (loop_s - steps_s + agent_s) / steps_s, 2),
    }


def write_model(folder: Path) -> None:
    tokenizer = train_tokenizer(list(docstrings()))
    random_model(CONTEXT, tokenizer.eos_token_id, tokenizer.pad_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_chats(path: Path, rows: int) -> Path:
    drawn = random.Random(0)
    texts = list(docstrings())
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            turns = chat(f"{row} {texts[row % len(texts)]}", drawn, RAGGED).messages
            messages = [{"role": each.role, "content": each.content} for each in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def agent_process() -> psutil.Process:
    """Find the stack's agent among the processes that this one has started."""
    for process in psutil.Process().children(recursive=True):
        if process.cmdline()[-2:] == ["finetrail", "agent"]:
            return process
    raise SystemExit("the stack runs no agent")


def tokens_of_steps(data: Path, models: Path) -> list[int]:
    """Count what each step reads: the rows and their order follow from the job alone."""
    ref = DatasetRef(
        dataset_id=UUID(int=0),
        name=data.name,
        blob=BlobRef(sha256="0" * 64, size=data.stat().st_size, crc32=0),
        format="jsonl",
        delimiter=None,
        kind="chat",
        text_column="messages",
        label_column="",
        rows=0,
        labels=(),
    )
    spec = JobSpec(method="sft", model_name="random", train=ref, split=SPLIT)
    model = load_language_model(find_base_model("random", Places(models)), torch.device("cpu"))
    splits = read_conversation_splits(spec, data, None)
    lengths = [render(model.tokenizer, row, CONTEXT).tokens for row in splits.train]
    batches = shuffled_batches(len(lengths), BATCH, spec.seed, epoch=0)
    return [sum(lengths[row] for row in batch) for batch in batches]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    print(json.dumps(overhead(parser.parse_args().steps)))


if __name__ == "__main__":
    main()
