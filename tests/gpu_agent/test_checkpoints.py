"""A training checkpoint is whole or not there, and comes back as it was."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from gpu_agent.checkpoints import LoopState, load_checkpoint, save_checkpoint
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
    state = LoopState(step=7, epoch_loss=1 / 3, epoch_rows=20, tokens=99, validation_accuracy=0.5)
    save_checkpoint(tmp_path / "step-7", weights, optimizer, state)
    drawn = torch.rand(4)

    others, other_optimizer = fresh()
    restored = load_checkpoint(tmp_path / "step-7", others, other_optimizer)

    assert restored == state
    assert torch.equal(torch.rand(4), drawn)
    for name, weight in weights.items():
        assert torch.equal(others[name], weight)
        for key, value in optimizer.state[weight].items():
            assert torch.equal(other_optimizer.state[others[name]][key], value)


def test_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    weights, optimizer = trained()
    for folder in ("a", "b"):
        save_checkpoint(tmp_path / folder, weights, optimizer, LoopState(step=1))

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
        save_checkpoint(tmp_path / "step-1", weights, optimizer, LoopState(step=1))

    assert not (tmp_path / "step-1").exists()


def test_remains_of_an_earlier_attempt_are_replaced(tmp_path: Path) -> None:
    weights, optimizer = trained()
    (tmp_path / "step-1.partial").mkdir()
    (tmp_path / "step-1.partial" / "junk").touch()
    (tmp_path / "step-1").mkdir()

    save_checkpoint(tmp_path / "step-1", weights, optimizer, LoopState(step=1))

    assert {path.name for path in tmp_path.iterdir()} == {"step-1"}
    assert load_checkpoint(tmp_path / "step-1", *fresh()).step == 1


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_damaged_file_is_an_outcome(name: str, tmp_path: Path) -> None:
    weights, optimizer = trained()
    save_checkpoint(tmp_path / "step-1", weights, optimizer, LoopState(step=1))
    (tmp_path / "step-1" / name).write_bytes(b"{}")

    if name == "state.json":  # an empty state is the state of a loop that has not begun
        (tmp_path / "step-1" / name).write_bytes(b'{"unknown": 1}')
    with pytest.raises(CheckpointUnreadable):
        load_checkpoint(tmp_path / "step-1", *fresh())


def test_checkpoint_of_other_weights_is_an_outcome(tmp_path: Path) -> None:
    weights, optimizer = trained()
    save_checkpoint(tmp_path / "step-1", weights, optimizer, LoopState(step=1))
    others = dict(nn.Linear(4, 2).named_parameters())

    with pytest.raises(CheckpointUnreadable):
        load_checkpoint(tmp_path / "step-1", others, AdamW(others.values()))
