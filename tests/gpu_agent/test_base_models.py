"""Only known, pinned weights are loaded, and nothing that could run as code."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from gpu_agent import base_models
from gpu_agent.base_models import MINILM_FILES, Places, find_base_model
from gpu_agent.outcomes import BaseModelRefused
from tests.gpu_agent import tiny


@pytest.fixture
def folder(models_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil; its models folder is the parent."""
    copy = tmp_path / "models" / tiny.NAME
    shutil.copytree(models_folder / tiny.NAME, copy)
    return copy


def refused(name: str, models_folder: Path | None) -> str:
    with pytest.raises(BaseModelRefused) as refusal:
        find_base_model(name, Places(models_folder))
    return str(refusal.value)


def test_bundled_model_is_the_one_that_was_published() -> None:
    found = find_base_model("finetrail/minilm", Places())

    assert found.sha256 == MINILM_FILES
    assert found.id == "finetrail/minilm"


def test_bundled_model_with_other_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base_models.MINILM_FILES, "config.json", "0" * 64)

    assert "config.json" in refused("finetrail/minilm", None)


def test_folder_of_safetensors_is_found_and_hashed(folder: Path) -> None:
    found = find_base_model(tiny.NAME, Places(folder.parent))

    assert found.path == folder
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= found.sha256.keys()


@pytest.mark.parametrize("name", ["org/model@main", "org/model@v1.0", "org/model@abc123", "a@b@c"])
def test_hub_id_with_a_name_that_can_be_moved_is_refused(name: str, tmp_path: Path) -> None:
    assert "whole commit id" in refused(name, tmp_path)


def test_hub_id_without_a_commit_is_refused(tmp_path: Path) -> None:
    assert "org/name@<40 hex digits>" in refused("org/model", tmp_path)
    assert "org/name@<40 hex digits>" in refused("org/model", None)


@pytest.mark.parametrize("name", ["../outside", "/etc", "tiny-bert/../../outside", "."])
def test_folder_outside_the_models_folder_is_refused(name: str, folder: Path) -> None:
    (folder.parent.parent / "outside").mkdir()

    assert "outside the agent's models folder" in refused(name, folder.parent)


def test_link_out_of_the_models_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")

    assert "links out" in refused(tiny.NAME, folder.parent)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "innocent.safetensors", "notes.txt"])
def test_pickle_is_refused_whatever_its_name(name: str, folder: Path) -> None:
    (folder / name).write_bytes(pickle.dumps({"weights": 1}))

    assert "is a pickle" in refused(tiny.NAME, folder.parent)


def test_what_torch_save_writes_is_refused(folder: Path) -> None:
    (folder / "weights").write_bytes(b"PK\x03\x04and so on")

    assert "is a pickle" in refused(tiny.NAME, folder.parent)


def test_code_is_refused(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "modeling.py").write_text("print(1)", encoding="utf-8")

    assert "is code" in refused(tiny.NAME, folder.parent)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_configuration_that_asks_for_code_is_refused(name: str, folder: Path) -> None:
    content = json.loads((folder / name).read_bytes())
    (folder / name).write_text(json.dumps(content | {"auto_map": {}}), encoding="utf-8")

    assert "auto_map" in refused(tiny.NAME, folder.parent)


def test_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()

    assert "weights in safetensors" in refused(tiny.NAME, folder.parent)
