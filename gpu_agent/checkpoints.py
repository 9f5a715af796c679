"""Writes and reads training checkpoints: all that a run needs to go on as if nothing had happened.

A checkpoint is a folder of two files. ``tensors.safetensors`` holds the trainable weights, the
optimizer's state, the best weights so far where they are kept, and the states of the random
generators; ``state.json`` says where the loop stands. The order of the rows and the learning rate
need no state: they are functions of seed and step.
"""

import ctypes
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from domain.work import CheckpointWritten
from gpu_agent.outcomes import CheckpointUnreadable

TENSORS: Final = "tensors.safetensors"
STATE: Final = "state.json"

Weights = Mapping[str, nn.Parameter]


@dataclass(frozen=True, slots=True)
class LoopState:
    """Where the loop stands, and all that changes its arithmetic on the way."""

    step: int = 0  # optimizer steps done; the next batch to run is the one of this number
    epoch_loss: float = 0.0  # summed over the epoch so far, nats
    epoch_terms: int = 0  # what the epoch's mean is taken over: rows, supervised tokens or pairs
    tokens: int = 0  # trained so far, padding left out
    final_loss: float = 0.0  # mean over the last whole epoch
    validation_accuracy: float | None = None  # after the last whole epoch
    precision: str | None = None  # of the frozen weights, or of autocast
    micro_batch_tokens: int = 0  # at once, from the first step on; less once memory ran out
    first_loss: float | None = None  # mean of the first steps
    recent_loss: float | None = None  # running mean
    best_loss: float | None = None  # least validation loss of a whole epoch
    best_accuracy: float | None = None  # of that epoch
    best_step: int | None = None
    epochs_since_best: int = 0
    loss_scale: float | None = None  # of float16
    scale_growth: int = 0  # steps since that scale changed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint that is not written yet, in memory that no later step touches."""

    tensors: dict[str, Tensor]
    state: LoopState


def read_state(folder: Path) -> LoopState:
    """Read where the loop stood, before there is a network to put the weights into.

    Raises:
        CheckpointUnreadable: it is damaged, or of an unknown version.
    """
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if "epoch_rows" in content:  # as it was written before both were one
            content["epoch_terms"] = content.pop("epoch_rows") + content.pop("epoch_targets")
        return LoopState(**content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointUnreadable(f"the training checkpoint does not fit: {error}") from error


def load_checkpoint(
    folder: Path, weights: Weights, optimizer: Optimizer
) -> tuple[LoopState, dict[str, Tensor]]:
    """Put everything back; the second value is the best weights so far, if they are kept.

    Raises:
        CheckpointUnreadable: it is damaged, or was made by another network.
    """
    state = read_state(folder)
    try:
        tensors = load_file(folder / TENSORS)
        _put_back(tensors, weights, optimizer)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointUnreadable(f"the training checkpoint does not fit: {error}") from error
    return state, _below("best", tensors)


def save_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write under a temporary name, force to disk, and rename: a folder that exists is whole."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(snapshot.tensors, partial / TENSORS)
    content = json.dumps(asdict(snapshot.state), sort_keys=True)
    (partial / STATE).write_text(content, encoding="utf-8")
    for path in (partial / TENSORS, partial / STATE, partial):
        _force_to_disk(path)
    shutil.rmtree(folder, ignore_errors=True)  # an earlier attempt's; this one's is equal
    partial.rename(folder)
    _force_to_disk(folder.parent)


class Checkpoints:
    """Takes a checkpoint at once and writes it in a thread, one at a time, while steps go on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._memory: dict[str, Tensor] = {}  # used again: to ask for it anew costs page faults
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: tuple[CheckpointWritten, Future[None]] | None = None
        self.last_step: int | None = None  # of the last one that is whole

    def take(
        self,
        weights: Weights,
        optimizer: Optimizer,
        best: Mapping[str, Tensor],
        state: LoopState,
        epoch: int,
    ) -> None:
        """Copy what belongs to it; the one before must be written."""
        folder = self._folder / f"step-{state.step:06}"
        snapshot = self._snapshot(weights, optimizer, best, state)
        written = CheckpointWritten(step=state.step, epoch=epoch, folder=str(folder))
        self._writing = (written, self._thread.submit(save_checkpoint, folder, snapshot))

    def written(self, *, wait: bool) -> CheckpointWritten | None:
        """Give the checkpoint that has reached the disk, once.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is None or not (wait or self._writing[1].done()):
            return None
        (written, writing), self._writing = self._writing, None
        writing.result()
        self.last_step = written.step
        return written

    def close(self) -> None:
        """Let what is being written come to its end."""
        self._thread.shutdown()

    def _snapshot(
        self, weights: Weights, optimizer: Optimizer, best: Mapping[str, Tensor], state: LoopState
    ) -> Snapshot:
        tensors = snapshot(weights, optimizer, best, state).tensors
        for name, tensor in tensors.items():
            kept = self._memory.get(name)
            if kept is None or (kept.shape, kept.dtype) != (tensor.shape, tensor.dtype):
                kept = self._memory[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            _copy(tensor, kept)
        return Snapshot({name: self._memory[name] for name in tensors}, state)


def _copy(tensor: Tensor, kept: Tensor) -> None:
    """Copy on one thread: torch's many wait for one another, on a busy machine four times as long."""
    if tensor.device.type == "cpu" and tensor.is_contiguous():
        ctypes.memmove(kept.data_ptr(), tensor.data_ptr(), tensor.numel() * tensor.element_size())
    else:
        kept.copy_(tensor)


def snapshot(
    weights: Weights, optimizer: Optimizer, best: Mapping[str, Tensor], state: LoopState
) -> Snapshot:
    """Name what belongs to a checkpoint; nothing is copied yet."""
    tensors = {f"weight.{name}": weight.detach() for name, weight in weights.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for name, weight in weights.items():
        for key, value in optimizer.state.get(weight, {}).items():
            # bitsandbytes counts its steps in Python's numbers, torch in a tensor of floats.
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    return Snapshot(tensors | random_state(), state)


def random_state() -> dict[str, Tensor]:
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng.cuda"] = torch.cuda.get_rng_state()
    return states


def put_random_state_back(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])


def _put_back(tensors: dict[str, Tensor], weights: Weights, optimizer: Optimizer) -> None:
    saved = _below("weight", tensors)
    if saved.keys() != weights.keys():
        raise ValueError("its weights have other names")
    held: dict[str, dict[str, Any]] = {}
    for full_name, tensor in _below("optimizer", tensors).items():
        key, _, name = full_name.partition(".")
        held.setdefault(name, {})[key] = tensor
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
            if name in held:
                optimizer.state[weight] = {
                    key: int(value) if value.dtype == torch.int64 else value.to(weight.device)
                    for key, value in held[name].items()
                }
    put_random_state_back(tensors)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name[len(start) :]: each for name, each in tensors.items() if name.startswith(start)}


def _force_to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
