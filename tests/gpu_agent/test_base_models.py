"""Only known, pinned weights are loaded, and nothing that could run as code."""

import json
import pickle
import shutil
from fnmatch import fnmatch
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


def test_chat_template_belongs_to_the_model_and_its_card_does_not(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (folder / "README.md").write_text("A model.", encoding="utf-8")

    found = find_base_model(tiny.NAME, Places(folder.parent))

    assert "chat_template.jinja" in found.sha256
    assert "README.md" not in found.sha256


@pytest.mark.parametrize(
    ("card", "license_"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\r\nlicense: 'mit'  # as said below\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: house-rules\n---\n", "house-rules"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
    ],
)
def test_license_is_what_the_model_card_states(
    card: str, license_: str | None, folder: Path
) -> None:
    (folder / "README.md").write_bytes(card.encode())

    assert find_base_model(tiny.NAME, Places(folder.parent)).license == license_


def test_hub_model_comes_with_its_template_and_its_license(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = "---\nlicense: gemma\n---\n"
    published = {"README.md": card, "chat_template.jinja": "{{ messages }}", "evil.py": "print(1)"}

    def download(repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        for name, text in published.items():
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (folder / name).write_text(text, encoding="utf-8")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = find_base_model(f"org/model@{'a' * 40}", Places())

    assert (found.id, found.revision, found.license) == ("org/model", "a" * 40, "gemma")
    assert "chat_template.jinja" in found.sha256


def test_license_is_else_what_the_configuration_states(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(content | {"license": "mit"}), encoding="utf-8")

    assert find_base_model(tiny.NAME, Places(folder.parent)).license == "mit"


def test_record_says_what_was_found(folder: Path) -> None:
    found = find_base_model(tiny.NAME, Places(folder.parent))

    record = found.record(123)

    assert (record.id, record.sha256, record.parameters) == (tiny.NAME, found.sha256, 123)
    assert not found.made_here


def test_model_that_is_still_what_it_was_is_found(folder: Path) -> None:
    found = find_base_model(tiny.NAME, Places(folder.parent))

    assert find_base_model(tiny.NAME, Places(folder.parent), found.record()) == found


@pytest.mark.parametrize("change", ["other", "missing", "new"])
def test_model_that_is_no_longer_what_it_was_is_refused(change: str, folder: Path) -> None:
    pinned = find_base_model(tiny.NAME, Places(folder.parent)).record()
    match change:
        case "other":
            (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
        case "missing":
            (folder / "tokenizer_config.json").unlink()
        case _:
            (folder / "chat_template.jinja").write_text("new", encoding="utf-8")

    with pytest.raises(BaseModelRefused) as refusal:
        find_base_model(tiny.NAME, Places(folder.parent), pinned)

    changed = "chat_template.jinja" if change == "new" else "tokenizer_config.json"
    assert changed in str(refusal.value)
    assert "config.json," not in str(refusal.value)
    assert "only ever loaded over the base model it was trained on" in str(refusal.value)


def test_stored_files_of_a_pinned_model_are_taken_and_no_others(
    folder: Path, tmp_path: Path
) -> None:
    there = find_base_model(tiny.NAME, Places(folder.parent))
    stored = tmp_path / "stored"
    shutil.copytree(folder, stored)
    (folder / "model.safetensors").write_bytes(b"made anew, otherwise")
    places = Places(models=folder.parent, made=tmp_path / "made", stored=stored)

    found = find_base_model("finetrail/tiny", places, there.record())

    assert (found.path, found.sha256, found.id) == (stored, there.sha256, there.id)
    assert not (tmp_path / "made").exists()


def test_stored_files_that_were_altered_are_refused(folder: Path) -> None:
    pinned = find_base_model(tiny.NAME, Places(folder.parent)).record()
    (folder / "model.safetensors").write_bytes(b"altered")

    with pytest.raises(BaseModelRefused, match=r"model\.safetensors"):
        find_base_model(tiny.NAME, Places(stored=folder), pinned)


def test_model_that_is_made_here_needs_a_folder_to_be_kept_in() -> None:
    with pytest.raises(BaseModelRefused, match="no folder"):
        find_base_model("finetrail/tiny", Places())
