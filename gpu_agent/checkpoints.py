"""Writes and reads training checkpoints: all that a run needs to go on as if nothing had happened.

A checkpoint is a folder of two files. ``tensors.safetensors`` holds the trainable weights, AdamW's
state and the states of the random generators; ``state.json`` says where the loop stands. The order
of the rows and the learning rate need no state: they are functions of seed and step.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from gpu_agent.outcomes import CheckpointUnreadable

TENSORS = "tensors.safetensors"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class LoopState:
    """Where the loop stands; sums go over a whole epoch, so that means come out the same."""

    step: int = 0  # optimizer steps done; the next batch to run is the one of this number
    epoch_loss: float = 0.0  # summed over the epoch so far, nats
    epoch_rows: int = 0
    epoch_targets: int = 0  # supervised tokens, of a language model
    tokens: int = 0  # trained so far, padding left out
    final_loss: float = 0.0  # mean over the last whole epoch
    validation_accuracy: float | None = None  # after the last whole epoch


def save_checkpoint(
    folder: Path, weights: dict[str, nn.Parameter], optimizer: Optimizer, state: LoopState
) -> None:
    """Write under a temporary name, force to disk, and rename: a folder that exists is whole."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {f"weight.{name}": weight.detach() for name, weight in weights.items()}
    for name, weight in weights.items():
        for key, value in optimizer.state[weight].items():
            tensors[f"optimizer.{key}.{name}"] = value
    save_file(
        {name: tensor.cpu() for name, tensor in (tensors | _rng()).items()}, partial / TENSORS
    )
    (partial / STATE).write_text(json.dumps(asdict(state), sort_keys=True), encoding="utf-8")
    for path in (partial / TENSORS, partial / STATE, partial):
        _force_to_disk(path)
    shutil.rmtree(folder, ignore_errors=True)  # an earlier attempt's; this one's is equal
    partial.rename(folder)
    _force_to_disk(folder.parent)


def load_checkpoint(
    folder: Path, weights: dict[str, nn.Parameter], optimizer: Optimizer
) -> LoopState:
    """Put everything back.

    Raises:
        CheckpointUnreadable: it is damaged, or was made by another network.
    """
    try:
        tensors = load_file(folder / TENSORS)
        state = LoopState(**json.loads((folder / STATE).read_text(encoding="utf-8")))
        _put_back(tensors, weights, optimizer)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointUnreadable(f"the training checkpoint does not fit: {error}") from error
    return state


def _put_back(
    tensors: dict[str, Tensor], weights: dict[str, nn.Parameter], optimizer: Optimizer
) -> None:
    expected = {f"weight.{name}" for name in weights}
    if expected != {name for name in tensors if name.startswith("weight.")}:
        raise ValueError("its weights have other names")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[f"weight.{name}"])
            optimizer.state[weight] = {
                "step": tensors[f"optimizer.step.{name}"].to(weight.device),
                "exp_avg": tensors[f"optimizer.exp_avg.{name}"].to(weight.device),
                "exp_avg_sq": tensors[f"optimizer.exp_avg_sq.{name}"].to(weight.device),
            }
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])


def _rng() -> dict[str, Tensor]:
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def _force_to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
