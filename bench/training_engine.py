"""One engine of `bench.training`, in a process of its own: prints its figures as one JSON line.

    python -m bench.training_engine ours|trainer|grouped|trl|trl_packed FOLDER SEED

Every engine gets the same rows, first weights, steps and learning rates. It says "waiting" before each step
and takes it when a line comes. Memory is counted from what the process holds once its libraries are loaded.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from typing_extensions import override

from domain.jobs.spec import ALL_LINEAR, Hyperparameters, LoraConfig
from domain.work import StepDone
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.data import shuffled_batches
from gpu_agent.environment import set_up
from gpu_agent.language_model import LanguageModel, load_language_model
from gpu_agent.learner import MICRO_BATCH_TOKENS
from gpu_agent.loop import Plan
from gpu_agent.lora import add_lora
from gpu_agent.recipes import sft
from gpu_agent.rendering import Rendered

WAITING = "waiting"
THREADS = 2
BATCH = 8
RANK, ALPHA, LEARNING_RATE = 16, 32.0, 1e-3
LORA = LoraConfig(rank=RANK, alpha=ALPHA, dropout=0.0, target_modules=(ALL_LINEAR,))
CONFIG = Hyperparameters(
    epochs=1,
    batch_size=BATCH,
    learning_rate=LEARNING_RATE,
    warmup_ratio=0.0,
    weight_decay=0.0,
    checkpoint_every=10**6,
    lora=LORA,
)
Forward = Callable[..., Any]


def read_rows(path: Path) -> list[Rendered]:
    content = json.loads(path.read_bytes())
    return [
        Rendered(tuple(ids), tuple(supervised), truncated=False, full_length=len(ids))
        for ids, supervised in content
    ]


def padded(rows: Sequence[Rendered]) -> dict[str, Tensor]:
    """What a data collator makes of a batch."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for at, row in enumerate(rows):
        length = len(row.ids)
        ids[at, :length], mask[at, :length] = torch.tensor(row.ids), 1
        learned = torch.tensor(row.supervised)
        labels[at, :length][learned] = ids[at, :length][learned]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@torch.no_grad()
def held_out_loss(forward: Forward, rows: Sequence[Rendered]) -> float:
    """Per supervised token, one row at a time: the same arithmetic for every engine."""
    total = 0.0
    for row in rows:
        batch = padded([row])
        logits = forward(input_ids=batch["input_ids"]).logits[0, :-1]
        total += cross_entropy(logits, batch["labels"][0, 1:], reduction="sum").item()
    return total / sum(row.targets for row in rows)


def memory(field: str) -> float:
    """MiB of this process: ``VmRSS`` now, or ``VmHWM`` at most since it was last set back."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def load(folder: Path) -> LanguageModel:
    files = find_base_model("model", Places(models=folder))
    return load_language_model(files, torch.device("cpu"))


class Turns:
    """Takes the time of steps that are taken one by one, when the parent says so."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self._began: tuple[float, float] | None = None

    def wait(self) -> None:
        self.end()
        print(WAITING, flush=True)
        sys.stdin.readline()
        self._began = time.perf_counter(), time.process_time()

    def end(self) -> None:
        if self._began:
            self.seconds += time.perf_counter() - self._began[0]
            self.cpu_seconds += time.process_time() - self._began[1]
        self._began = None


def ours(
    folder: Path, seed: int, rows: list[Rendered], turns: Turns
) -> tuple[list[float], Forward]:
    model = load(folder)
    weights = add_lora(model, LORA, seed)
    plan = Plan(CONFIG, seed, "float32", MICRO_BATCH_TOKENS, folder / f"ours-{seed}")
    losses: list[float] = []
    turns.wait()
    for fact in sft.steps(model, weights, rows, (), plan):
        if isinstance(fact, StepDone):
            losses.append(fact.loss)
            if fact.eta_s:
                turns.wait()
    turns.end()
    return losses, model.network


def adapted(folder: Path, seed: int) -> Any:
    """The network under peft's own adapter, with the first weights that ours begins with."""
    import peft  # noqa: PLC0415 - our own engine does without these two
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    first = {name: weight.data for name, weight in add_lora(load(folder), LORA, seed).items()}
    bare = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    network = peft.get_peft_model(bare, config)
    peft.set_peft_model_state_dict(network, first)
    return network


def trl(
    folder: Path, seed: int, rows: list[Rendered], *, packing: bool, turns: Turns
) -> tuple[list[float], Forward]:
    """TRL's SFTTrainer on the same tokens, with the loss on the same ones.

    Packed, a batch has as many full rows as come nearest to the tokens of ours, so that the steps
    are as many; without flash attention its rows see one another.
    """
    from datasets import Dataset  # noqa: PLC0415 - our own engine does without these
    from transformers import TrainerCallback  # noqa: PLC0415
    from trl.trainer.sft_config import SFTConfig  # noqa: PLC0415
    from trl.trainer.sft_trainer import SFTTrainer  # noqa: PLC0415

    losses: list[float] = []

    class Watched(SFTTrainer):
        @override
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss: Any = super().compute_loss(*given, **named)  # type: ignore[no-untyped-call]
            losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    class OneByOne(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()

    tokens = sum(len(row.ids) for row in rows)
    context = load_context(folder)
    size = max(1, round(tokens / context / (len(rows) / BATCH))) if packing else BATCH
    arguments = SFTConfig(
        output_dir=str(folder / f"trl-{packing}-{seed}"),
        per_device_train_batch_size=size,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_length=context,
        packing=packing,
        gradient_checkpointing=False,
        bf16=False,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    network = adapted(folder, seed)
    data = Dataset.from_list(
        [
            {"input_ids": list(row.ids), "completion_mask": [int(each) for each in row.supervised]}
            for row in rows
        ]
    )
    Watched(
        model=network,
        args=arguments,
        train_dataset=data,
        processing_class=load(folder).tokenizer,
        callbacks=[OneByOne()],
    ).train()
    turns.end()
    return losses, network.eval()


def load_context(folder: Path) -> int:
    context: int = json.loads((folder / "model" / "config.json").read_bytes())[
        "max_position_embeddings"
    ]
    return context


def trainer(
    folder: Path, seed: int, rows: list[Rendered], sampling: str, turns: Turns
) -> tuple[list[float], Forward]:
    """transformers' Trainer over peft, as its documentation shows it."""
    from transformers import (  # noqa: PLC0415 - our own engine does without it
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    losses: list[float] = []

    class Watched(Trainer):  # type: ignore[misc]
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss = super().compute_loss(*given, **named)
            losses.append(loss.item())
            return loss

    class OneByOne(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()

    network = adapted(folder, seed)
    arguments = TrainingArguments(
        output_dir=str(folder / f"{sampling}-{seed}"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        train_sampling_strategy=sampling,
        remove_unused_columns=False,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    Watched(
        model=network,
        args=arguments,
        train_dataset=[{"row": row, "input_ids": row.ids} for row in rows],
        data_collator=lambda batch: padded([each["row"] for each in batch]),
        callbacks=[OneByOne()],
    ).train()
    turns.end()
    return losses, network.eval()


def measure(engine: str, folder: Path, seed: int) -> dict[str, Any]:
    rows, held_out = read_rows(folder / "train.json"), read_rows(folder / "held_out.json")
    if engine != "ours":
        own = ("datasets", "trl.trainer.sft_trainer") if engine.startswith("trl") else ()
        for library in ("accelerate", "peft", "transformers.trainer", *own):
            importlib.import_module(library)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak back
    before = memory("VmRSS")
    turns = Turns()
    if engine == "ours":
        losses, forward = ours(folder, seed, rows, turns)
    else:
        # Ours shuffles by itself, and these are its batches; grouping by length chooses its own.
        batches = shuffled_batches(len(rows), BATCH, seed, epoch=0)
        ordered = [rows[at] for batch in batches for at in batch]
        if engine.startswith("trl"):
            packing = engine == "trl_packed"
            losses, forward = trl(folder, seed, ordered, packing=packing, turns=turns)
        else:
            sampling = "sequential" if engine == "trainer" else "group_by_length"
            losses, forward = trainer(folder, seed, ordered, sampling, turns)
    peak = memory("VmHWM")
    return {
        "engine": engine,
        "seed": seed,
        "steps": len(losses),
        "seconds": round(turns.seconds, 2),
        "cpu_s": round(turns.cpu_seconds, 2),
        "tokens_per_s": round(sum(len(row.ids) for row in rows) / turns.seconds, 1),
        "memory_mib": round(peak - before),
        "losses": [round(loss, 4) for loss in losses],
        "held_out_loss": round(held_out_loss(forward, held_out), 4),
    }


def main() -> None:
    set_up("cpu", THREADS)
    result = measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
