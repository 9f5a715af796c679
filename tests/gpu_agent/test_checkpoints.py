"""A training checkpoint is whole or not there, and comes back as it was."""

import json
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from gpu_agent import checkpoints
from gpu_agent.checkpoints import (
    Checkpoints,
    LoopState,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)
from gpu_agent.outcomes import CheckpointUnreadable


def trained() -> tuple[dict[str, nn.Parameter], AdamW]:
    torch.manual_seed(3)
    weights = dict(nn.Linear(3, 2).named_parameters())
    optimizer = AdamW(weights.values(), lr=0.1, fused=True)
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return weights, optimizer


def fresh() -> tuple[dict[str, nn.Parameter], AdamW]:
    weights = dict(nn.Linear(3, 2).named_parameters())
    return weights, AdamW(weights.values(), lr=0.1, fused=True)


def test_everything_comes_back(tmp_path: Path) -> None:
    weights, optimizer = trained()
    state = LoopState(step=7, epoch_loss=1 / 3, epoch_terms=20, tokens=99, validation_accuracy=0.5)
    save_checkpoint(tmp_path / "step-7", snapshot(weights, optimizer, {}, state))
    drawn = torch.rand(4)

    others, other_optimizer = fresh()
    restored, best = load_checkpoint(tmp_path / "step-7", others, other_optimizer)

    assert restored == state
    assert best == {}
    assert torch.equal(torch.rand(4), drawn)
    for name, weight in weights.items():
        assert torch.equal(others[name], weight)
        for key, value in optimizer.state[weight].items():
            assert torch.equal(other_optimizer.state[others[name]][key], value)


def test_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    weights, optimizer = trained()
    for folder in ("a", "b"):
        save_checkpoint(tmp_path / folder, snapshot(weights, optimizer, {}, LoopState(step=1)))

    for name in ("tensors.safetensors", "state.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_write_that_breaks_off_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    weights, optimizer = trained()
    monkeypatch.setattr("gpu_agent.checkpoints._force_to_disk", broken)

    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "step-1", snapshot(weights, optimizer, {}, LoopState(step=1)))

    assert not (tmp_path / "step-1").exists()


def test_remains_of_an_earlier_attempt_are_replaced(tmp_path: Path) -> None:
    weights, optimizer = trained()
    (tmp_path / "step-1.partial").mkdir()
    (tmp_path / "step-1.partial" / "junk").touch()
    (tmp_path / "step-1").mkdir()

    save_checkpoint(tmp_path / "step-1", snapshot(weights, optimizer, {}, LoopState(step=1)))

    assert {path.name for path in tmp_path.iterdir()} == {"step-1"}
    assert load_checkpoint(tmp_path / "step-1", *fresh())[0].step == 1


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_damaged_file_is_an_outcome(name: str, tmp_path: Path) -> None:
    weights, optimizer = trained()
    save_checkpoint(tmp_path / "step-1", snapshot(weights, optimizer, {}, LoopState(step=1)))
    (tmp_path / "step-1" / name).write_bytes(b"{}")

    if name == "state.json":  # an empty state is the state of a loop that has not begun
        (tmp_path / "step-1" / name).write_bytes(b'{"unknown": 1}')
    with pytest.raises(CheckpointUnreadable):
        load_checkpoint(tmp_path / "step-1", *fresh())


def test_checkpoint_of_other_weights_is_an_outcome(tmp_path: Path) -> None:
    weights, optimizer = trained()
    save_checkpoint(tmp_path / "step-1", snapshot(weights, optimizer, {}, LoopState(step=1)))
    others = dict(nn.Linear(4, 2).named_parameters())

    with pytest.raises(CheckpointUnreadable):
        load_checkpoint(tmp_path / "step-1", others, AdamW(others.values()))


def test_best_weights_come_back_beside_the_latest(tmp_path: Path) -> None:
    weights, optimizer = trained()
    best = {name: torch.full_like(weight, 7.0) for name, weight in weights.items()}
    save_checkpoint(tmp_path / "step-1", snapshot(weights, optimizer, best, LoopState(step=1)))

    others, other_optimizer = fresh()
    _, restored = load_checkpoint(tmp_path / "step-1", others, other_optimizer)

    assert restored.keys() == best.keys()
    assert all(torch.equal(restored[name], tensor) for name, tensor in best.items())
    assert all(torch.equal(others[name], weight) for name, weight in weights.items())


def test_checkpoint_of_the_release_before_is_read(tmp_path: Path) -> None:
    weights, optimizer = trained()
    save_checkpoint(tmp_path / "step-1", snapshot(weights, optimizer, {}, LoopState(step=1)))
    before = {
        "step": 7,
        "epoch_loss": 0.5,
        "epoch_rows": 3,
        "epoch_targets": 0,
        "tokens": 99,
        "final_loss": 0.0,
        "validation_accuracy": None,
    }
    (tmp_path / "step-1" / "state.json").write_text(json.dumps(before), encoding="utf-8")

    state, _ = load_checkpoint(tmp_path / "step-1", *fresh())

    assert state == LoopState(step=7, epoch_loss=0.5, epoch_terms=3, tokens=99)


def test_checkpoint_is_of_the_moment_it_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps go on while it is written; the next one waits for it."""
    weights, optimizer = trained()
    as_taken = {name: weight.detach().clone() for name, weight in weights.items()}
    changed = Event()
    whole = checkpoints.save_checkpoint

    def late(folder: Path, taken: checkpoints.Snapshot) -> None:
        assert changed.wait(10)
        whole(folder, taken)

    monkeypatch.setattr(checkpoints, "save_checkpoint", late)
    with closing(Checkpoints(tmp_path)) as writing:
        writing.take(weights, optimizer, {}, LoopState(step=1), epoch=0)
        assert writing.written(wait=False) is None
        for weight in weights.values():
            torch.nn.init.zeros_(weight)
        changed.set()
        written = writing.written(wait=True)
        assert writing.written(wait=True) is None

    assert written is not None
    assert writing.last_step == written.step == 1
    others, other_optimizer = fresh()
    load_checkpoint(Path(written.folder), others, other_optimizer)
    assert all(torch.equal(others[name], tensor) for name, tensor in as_taken.items())


def test_write_that_fails_in_the_background_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "_force_to_disk", broken)
    with closing(Checkpoints(tmp_path)) as writing:
        writing.take(*trained(), {}, LoopState(step=1), epoch=0)
        with pytest.raises(OSError, match="No space left"):
            writing.written(wait=True)

    assert writing.last_step is None
