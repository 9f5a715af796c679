"""Language models that texts were lately asked of, in memory: few bases, and adapters laid over them."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import torch

from domain.inference import ServedModel
from gpu_agent.base_models import Places, find_base_model
from gpu_agent.detokenising import TokenTexts
from gpu_agent.generation import Speaker
from gpu_agent.language_model import LanguageModel, load_language_model
from gpu_agent.lately_used import remembered
from gpu_agent.lora import install, read_lora_weights
from gpu_agent.outcomes import CheckpointUnreadable
from gpu_agent.protocol import ADAPTERS, BASES, ServedFolders, ServingInput

WIDE: Final = 512  # from here on a layer is work enough for several threads


@dataclass(frozen=True, slots=True)
class _Base:
    bare: Speaker
    adapted: OrderedDict[UUID, Speaker] = field(default_factory=OrderedDict)


class Speakers:
    def __init__(
        self, config: ServingInput, device: torch.device, loading: Callable[[], None]
    ) -> None:
        """``loading`` is called before something is loaded that may take long."""
        self._config = config
        self._device = device
        self._loading = loading
        self._bases: OrderedDict[tuple[str, ...], _Base] = OrderedDict()

    def of(self, served: ServedModel, folders: ServedFolders) -> Speaker:
        """Find who says the words of a served model.

        Raises:
            BaseModelRefused: its base model cannot be had, or is not what it was.
            CheckpointUnreadable: its adapter does not fit that.
        """
        base = remembered(self._bases, _key(served), lambda: self._load(served, folders), BASES)
        if served.version_id is None:
            return base.bare
        version_id, folder = served.version_id, folders.adapter
        if folder is None and version_id not in base.adapted:
            raise CheckpointUnreadable(f"{version_id}: there is no adapter")
        return remembered(
            base.adapted, version_id, lambda: _adapted(base.bare, folder or Path()), ADAPTERS
        )

    def _load(self, served: ServedModel, folders: ServedFolders) -> _Base:
        self._loading()
        places = Places(self._config.models_folder, self._config.made_folder, folders.base)
        files = find_base_model(served.base_model, places, served.base, progress=_log)
        model = load_language_model(files, self._device)
        return _Base(bare_speaker(model, self._config.threads))


def bare_speaker(model: LanguageModel, threads: int) -> Speaker:
    """Make a base model ready to be asked, by itself or under adapters.

    Threads that wait for each other after every small layer lose their cores to whoever else wants
    them: beside a training, 256 wide, two threads gave a fifth of the tokens that one gave.
    """
    install(model)
    narrow = model.network.config.get_text_config().hidden_size < WIDE
    return Speaker(model, None, TokenTexts(model.tokenizer), 1 if narrow else threads)


def _adapted(bare: Speaker, folder: Path) -> Speaker:
    return replace(bare, weights=read_lora_weights(folder, bare.model))


def _key(served: ServedModel) -> tuple[str, ...]:
    """The same bytes are the same model, whatever name a version knows them by."""
    if served.base is None:
        return (served.base_model,)
    return tuple(f"{name} {digest}" for name, digest in sorted(served.base.sha256.items()))


def _log(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201 - the agent keeps what is written there
