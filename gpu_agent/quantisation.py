"""Frozen linear layers in four bits: NormalFloat with double quantisation (Dettmers et al. 2023, section 3)."""

import importlib
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear
from typing_extensions import override

from gpu_agent.outcomes import WorkFailed


class QuantisationMissing(WorkFailed):
    """The job needs bitsandbytes, and this agent does not have it."""

    code = "quantisation_missing"


def bitsandbytes() -> Any:
    """Load the library, which takes over a second, for those who need it.

    Raises:
        QuantisationMissing: it is not installed, or does not load.
    """
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it misses a package that it can do without
    try:
        return importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        raise QuantisationMissing(
            f"bitsandbytes cannot be loaded on this agent, and qlora and adamw_8bit need it: {error}"
        ) from error


class Nf4Linear(nn.Module):
    """Takes the place of a frozen linear layer, in an eighth of its memory; W is made anew at each use."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias: nn.Parameter | None = layer.bias
        self._dtype = layer.weight.dtype
        functional = bitsandbytes().functional
        self._packed, self._scales = functional.quantize_4bit(
            layer.weight.detach(), quant_type="nf4", compress_statistics=True
        )
        self._dequantise = functional.dequantize_4bit

    def dense(self) -> Tensor:
        """(out, in), as near to the weights it was made of as four bits come."""
        weight: Tensor = self._dequantise(self._packed, self._scales)
        return weight.to(self._dtype)

    def product(self, x: Tensor) -> Tensor:
        """X Wᵀ, without the bias."""
        out: Tensor = _Frozen.apply(x, self)  # type: ignore[no-untyped-call]
        return out

    @override
    def forward(self, input: Tensor) -> Tensor:
        out = self.product(input)
        return out if self.bias is None else out + self.bias


class _Frozen(Function):
    """x Wᵀ, keeping neither x nor W for the way back: W gets no gradient."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, layer: Nf4Linear) -> Tensor:
        ctx.layer = layer
        return linear(x, layer.dense().to(x.dtype))

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.dense().to(gradient.dtype), None


@torch.no_grad()
def quantise(network: Any) -> int:
    """Put every linear layer but the output head into four bits; give how many there were."""
    head = network.get_output_embeddings()
    layers = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, Nf4Linear(layer))
    return len(layers)
