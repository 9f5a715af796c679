"""Low-rank adapters of linear layers, written and read in peft's format (Hu et al. 2021, equation 3).

A layer's output is W x + scale · B A x, with scale = alpha / rank. Adapters can be laid over one
network in turn, without a copy: a layer only points to the one in use.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import dropout, linear
from typing_extensions import override

from domain.jobs.spec import ALL_LINEAR, LoraConfig
from gpu_agent.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, write_json
from gpu_agent.language_model import LanguageModel
from gpu_agent.outcomes import BaseModelRefused, CheckpointUnreadable

NAME: Final = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<part>[AB])\.weight")
# What peft can do and these layers cannot; an adapter that needs it is refused.
UNKNOWN: Final = (
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What is added to one layer."""

    a: Tensor  # (rank, in)
    b: Tensor  # (out, rank)
    scale: float


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """An adapter in memory, on the device and in the precision of its network."""

    layers: dict[str, Pair]  # by the layer's path in the network
    rank: int


class InputDropout:
    """Zeros a share of what low-rank pairs read, while training: each element with this probability."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.active = False

    def __call__(self, x: Tensor) -> Tensor:
        if not self.active or not self.share:
            return x
        if x.device.type != "cpu":
            return dropout(x, self.share)
        # To draw a number for every element costs more than a small layer's own arithmetic: a third
        # of a step. So many places are drawn, repeats allowed, that each is missed with the
        # probability wanted; that costs a ninth. One mask for Q, K and V together saved no more.
        places = torch.randint(x.numel(), (round(-math.log1p(-self.share) * x.numel()),))
        dropped: Tensor = _Drop.apply(x, places, 1 / (1 - self.share))  # type: ignore[no-untyped-call]
        return dropped


class _Drop(Function):
    """Zeros at some places of a tensor, and the others scaled; keeps the places and no mask."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, places: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(places)
        ctx.scale = scale
        return x.mul(scale).reshape(-1).index_fill_(0, places, 0).view_as(x)

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        scaled = gradient.mul(ctx.scale).reshape(-1).index_fill_(0, places, 0)
        return scaled.view_as(gradient), None, None


class LoraLinear(nn.Linear):
    """Takes the place of a linear layer and shares its weights; without a pair it is that layer."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.pair: Pair | None = None
        self.dropout: InputDropout | None = None

    @override
    def forward(self, input: Tensor) -> Tensor:
        out = linear(input, self.weight, self.bias)
        if self.pair is None:
            return out
        x = self.dropout(input) if self.dropout else input
        # Trained in float32, whatever the frozen weights are in: small steps would be rounded away.
        inner = linear(x, self.pair.a.to(x.dtype))
        return out.add_(linear(inner, self.pair.b.to(x.dtype)), alpha=self.pair.scale)


def add_lora(model: LanguageModel, config: LoraConfig, seed: int) -> dict[str, nn.Parameter]:
    """Lay a new adapter over the network; give its weights, in float32, by their names in peft's files.

    As in peft, A is at random (uniform, after He et al. 2015 with a = √5) and B is zero.

    Raises:
        BaseModelRefused: the network lacks layers that were named, or none were.
    """
    layers = _targets(model.network, config.target_modules)
    named = config.target_modules
    if missing := [name for name in named if not _targets(model.network, (name,))]:
        raise BaseModelRefused(
            f"{model.files.id}: has no linear layers called {', '.join(missing)}"
        )
    if not layers:
        raise BaseModelRefused(f"{model.files.id}: no layers are named to be trained")
    random = torch.Generator().manual_seed(seed)
    dropping = InputDropout(config.dropout)
    parameters: dict[str, nn.Parameter] = {}
    for path, layer in layers.items():
        bound = 1 / math.sqrt(layer.in_features)
        first = torch.empty(config.rank, layer.in_features).uniform_(
            -bound, bound, generator=random
        )
        a = nn.Parameter(first.to(model.device))
        b = nn.Parameter(torch.zeros(layer.out_features, config.rank, device=model.device))
        adapted = _adaptable(model, path, layer)
        adapted.pair = Pair(a, b, config.alpha / config.rank)
        adapted.dropout = dropping
        parameters |= {_name(path, "A"): a, _name(path, "B"): b}
    return parameters


def training_mode(model: LanguageModel, *, on: bool) -> None:
    """Switch on LoRA's own dropout and nothing else: the frozen base runs as it will be served."""
    for layer in model.adaptable.values():
        if layer.dropout:
            layer.dropout.active = on


def install(model: LanguageModel) -> None:
    """Make every linear layer ready for adapters; until one is used, nothing is computed but the base."""
    for path, layer in _targets(model.network, (ALL_LINEAR,)).items():
        _adaptable(model, path, layer)


def use(model: LanguageModel, weights: LoraWeights | None) -> None:
    """Lay another adapter over the network, or none; the layers must have been made ready."""
    for path, layer in model.adaptable.items():
        layer.pair = weights.layers.get(path) if weights else None


def save_lora(folder: Path, model: LanguageModel, config: LoraConfig) -> None:
    """Write peft's own format, so that ``PeftModel.from_pretrained`` reads it; equal weights give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for path, layer in model.adaptable.items():
        if layer.pair:
            tensors[_name(path, "A")] = layer.pair.a.detach().float().cpu().contiguous()
            tensors[_name(path, "B")] = layer.pair.b.detach().float().cpu().contiguous()
    save_file(dict(sorted(tensors.items())), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    targets = set(config.target_modules)
    if ALL_LINEAR in targets:
        paths = (path for path, layer in model.adaptable.items() if layer.pair)
        targets = {path.rpartition(".")[2] for path in paths}
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.files.id,
        "revision": model.files.revision,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": sorted(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
    write_json(folder / ADAPTER_CONFIG, content)


def read_lora_weights(folder: Path, model: LanguageModel) -> LoraWeights:
    """Read an adapter and check that it fits the network.

    Raises:
        CheckpointUnreadable: it does not, or it needs more than low-rank pairs.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        rank, scale = _rank_and_scale(config)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointUnreadable(f"{folder.name}: the adapter is unreadable: {error}") from error
    layers: dict[str, Pair] = {}
    linear_layers = _targets(model.network, (ALL_LINEAR,))
    for path in _paths(tensors, folder):
        pair = [tensors.get(_name(path, part)) for part in "AB"]
        layer = linear_layers.get(path)
        if layer is None or pair[0] is None or pair[1] is None:
            raise CheckpointUnreadable(f"{folder.name}: {path} does not fit this network")
        shapes = (tuple(pair[0].shape), tuple(pair[1].shape))
        if shapes != ((rank, layer.in_features), (layer.out_features, rank)):
            raise CheckpointUnreadable(f"{folder.name}: {path} has the shapes {shapes}")
        a, b = (part.to(model.device, model.dtype) for part in (pair[0], pair[1]))
        layers[path] = Pair(a, b, scale)
    return LoraWeights(layers, rank)


def _rank_and_scale(config: dict[str, Any]) -> tuple[int, float]:
    if config["peft_type"] != "LORA" or config.get("bias", "none") != "none":
        raise ValueError("it is no plain LoRA")
    if needed := [name for name in UNKNOWN if config.get(name)]:
        raise ValueError(f"it needs {', '.join(needed)}")
    rank = int(config["r"])
    root = math.sqrt(rank) if config.get("use_rslora") else rank
    return rank, float(config["lora_alpha"]) / root


def _paths(tensors: Iterable[str], folder: Path) -> list[str]:
    matches = {name: NAME.fullmatch(name) for name in tensors}
    if unknown := [name for name, match in matches.items() if match is None]:
        raise CheckpointUnreadable(f"{folder.name}: {unknown[0]} is no weight of LoRA")
    return sorted({match["layer"] for match in matches.values() if match})


def _targets(network: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Linear]:
    """Find linear layers by the ends of their paths, or all of them but the output head."""
    head = network.get_output_embeddings()  # type: ignore[operator]
    return {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and (ALL_LINEAR in names or any(f".{path}".endswith(f".{name}") for name in names))
    }


def _adaptable(model: LanguageModel, path: str, layer: nn.Linear) -> LoraLinear:
    if isinstance(layer, LoraLinear):
        return layer
    adapted = LoraLinear(layer)
    parent, _, name = path.rpartition(".")
    setattr(model.network.get_submodule(parent), name, adapted)
    model.adaptable[path] = adapted
    return adapted


def _name(path: str, part: str) -> str:
    return f"base_model.model.{path}.lora_{part}.weight"
