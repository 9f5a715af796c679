"""Low-rank adapters of linear layers, written and read in peft's format (Hu et al. 2021, equation 3).

A layer's output is W x + scale · B A x, with scale = alpha / rank, or alpha / √rank (rsLoRA). In DoRA
the rows of W + scale · B A have learned lengths. Adapters can be laid over one network in turn,
without a copy: a layer only points to the one in use.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from gpu_agent.quantisation import Nf4Linear

NAME: Final = re.compile(
    r"base_model\.model\.(?P<layer>.+)\.lora_(?:[AB]\.weight|magnitude_vector)"
)
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
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What is added to one layer."""

    a: Tensor  # (rank, in)
    b: Tensor  # (out, rank)
    scale: float
    magnitude: Tensor | None = None  # (out,): the length of each row, in DoRA
    factor: Tensor | None = (
        None  # (out,): what brings each row to that length, once nothing changes
    )


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

    def __init__(self, layer: nn.Linear | Nf4Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", layer.bias)
        # In a tuple: as a module of its own it would be found, and adapted, once more.
        self._packed: tuple[Nf4Linear, ...] = ()
        if isinstance(layer, Nf4Linear):
            self._packed = (layer,)
        else:
            self.weight = layer.weight
        self.pair: Pair | None = None
        self.dropout: InputDropout | None = None

    @override
    def forward(self, input: Tensor) -> Tensor:
        if self.pair is None:
            return self._frozen(input, self.bias)
        if self.pair.magnitude is not None:
            return self._rescaled(input, self.pair, self.pair.magnitude)
        return self._low_rank(self._frozen(input, self.bias), input, self.pair)

    def dense(self) -> Tensor:
        """(out, in): the frozen weights."""
        return self._packed[0].dense() if self._packed else self.weight

    def _frozen(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self._packed:
            return _plus(self._packed[0].product(x), bias)
        return linear(x, self.weight, bias)

    def _low_rank(self, out: Tensor, x: Tensor, pair: Pair) -> Tensor:
        x = self.dropout(x) if self.dropout else x
        # Trained in float32, whatever the frozen weights are in: small steps would be rounded away.
        inner = linear(x, pair.a.to(x.dtype))
        return out.add_(linear(inner, pair.b.to(x.dtype)), alpha=pair.scale)

    def _rescaled(self, x: Tensor, pair: Pair, magnitude: Tensor) -> Tensor:
        """Multiply each row of W + scale · B A by what brings it to its learned length."""
        factor = pair.factor
        if factor is None:
            factor = magnitude / row_lengths(self.dense(), pair)
        out = self._low_rank(self._frozen(x, None), x, pair) * factor.to(x.dtype)
        return _plus(out, self.bias)


def _plus(out: Tensor, bias: Tensor | None) -> Tensor:
    return out if bias is None else out + bias


@torch.no_grad()
def row_lengths(weight: Tensor, pair: Pair) -> Tensor:
    """(out,) float32: ‖W + scale · B A‖ by row, which gets no gradient (Liu et al. 2024, section 4.3)."""
    whole = torch.addmm(weight.float(), pair.b.float(), pair.a.float(), alpha=pair.scale)
    lengths: Tensor = torch.linalg.vector_norm(whole, dim=1)
    return lengths


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
        pair = Pair(a, b, _scale(config.alpha, config.rank, rslora=config.rslora))
        parameters |= {_name(path, "A"): a, _name(path, "B"): b}
        if config.dora:
            lengths = nn.Parameter(row_lengths(adapted.dense(), pair))
            pair = replace(pair, magnitude=lengths)
            parameters[_magnitude_name(path)] = lengths
        adapted.pair = pair
        adapted.dropout = dropping
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


@contextmanager
def without_adapter(model: LanguageModel) -> Iterator[None]:
    """Let the base speak for a while: it is the reference that an adapter is trained against."""
    pairs = {path: layer.pair for path, layer in model.adaptable.items()}
    use(model, None)
    try:
        yield
    finally:
        for path, layer in model.adaptable.items():
            layer.pair = pairs[path]


def save_lora(folder: Path, model: LanguageModel, config: LoraConfig) -> None:
    """Write peft's own format, so that ``PeftModel.from_pretrained`` reads it; equal weights give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for path, layer in model.adaptable.items():
        if layer.pair:
            tensors[_name(path, "A")] = layer.pair.a
            tensors[_name(path, "B")] = layer.pair.b
            if layer.pair.magnitude is not None:
                tensors[_magnitude_name(path)] = layer.pair.magnitude
    tensors = {name: each.detach().float().cpu().contiguous() for name, each in tensors.items()}
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
        "use_dora": config.dora,
        "use_rslora": config.rslora,
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
        dora = bool(config.get("use_dora"))
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
        read = Pair(a, b, scale)
        if dora:
            magnitude = tensors.get(_magnitude_name(path))
            if magnitude is None or tuple(magnitude.shape) != (layer.out_features,):
                raise CheckpointUnreadable(f"{folder.name}: {path} has no lengths for its rows")
            magnitude = magnitude.to(model.device)
            factor = magnitude / row_lengths(layer.weight, read)
            read = replace(read, magnitude=magnitude, factor=factor)
        layers[path] = read
    return LoraWeights(layers, rank)


def _rank_and_scale(config: dict[str, Any]) -> tuple[int, float]:
    if config["peft_type"] != "LORA" or config.get("bias", "none") != "none":
        raise ValueError("it is no plain LoRA")
    if needed := [name for name in UNKNOWN if config.get(name)]:
        raise ValueError(f"it needs {', '.join(needed)}")
    rank = int(config["r"])
    return rank, _scale(config["lora_alpha"], rank, rslora=bool(config.get("use_rslora")))


def _scale(alpha: float, rank: int, *, rslora: bool) -> float:
    return alpha / (math.sqrt(rank) if rslora else rank)


def _paths(tensors: Iterable[str], folder: Path) -> list[str]:
    matches = {name: NAME.fullmatch(name) for name in tensors}
    if unknown := [name for name, match in matches.items() if match is None]:
        raise CheckpointUnreadable(f"{folder.name}: {unknown[0]} is no weight of LoRA")
    return sorted({match["layer"] for match in matches.values() if match})


def _targets(network: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    """Find linear layers by the ends of their paths, or all of them but the output head."""
    head = network.get_output_embeddings()  # type: ignore[operator]
    return {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear | Nf4Linear)
        and module is not head
        and (ALL_LINEAR in names or any(f".{path}".endswith(f".{name}") for name in names))
    }


def _adaptable(model: LanguageModel, path: str, layer: nn.Linear | Nf4Linear) -> LoraLinear:
    if isinstance(layer, LoraLinear):
        return layer
    adapted = LoraLinear(layer)
    parent, _, name = path.rpartition(".")
    setattr(model.network.get_submodule(parent), name, adapted)
    model.adaptable[path] = adapted
    return adapted


def _name(path: str, part: str) -> str:
    return f"base_model.model.{path}.lora_{part}.weight"


def _magnitude_name(path: str) -> str:
    return f"base_model.model.{path}.lora_magnitude_vector"
