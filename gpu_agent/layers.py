"""Ways to run a network's layers: computed again on the way back, to save memory; compiled, to save time."""

import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from gpu_agent.outcomes import BaseModelRefused, WorkFailed

COMPILER: Final = "g++"  # what torch looks for


class CompilerMissing(WorkFailed):
    """The job asks for compiled layers, and this agent has no compiler of C++ to do it with."""

    code = "compiler_missing"


def recompute_layers(network: nn.Module) -> None:
    """Keep nothing but a layer's input for the way back, and compute the rest again (Chen et al. 2016).

    transformers' own switch works in training mode only, in which the frozen base never runs.

    Raises:
        BaseModelRefused: it is not known where this network's layers begin.
    """
    layers = list(_layers(network))
    if not layers:
        raise BaseModelRefused("gradient_checkpointing: this network's layers are not marked")
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def compile_layers(network: nn.Module) -> None:
    """Have torch compile the feed-forward parts, where most of the arithmetic is.

    Attention runs row by row, in other lengths at each step, and would be compiled again and again.

    Raises:
        BaseModelRefused: it is not known where they are.
        CompilerMissing: torch would fail in the middle of the first step.
    """
    if shutil.which(COMPILER) is None:
        raise CompilerMissing(f"compile needs {COMPILER} on the agent's machine, or be left out")
    parts = [
        layer.mlp
        for layer in _layers(network)
        if isinstance(getattr(layer, "mlp", None), nn.Module)
    ]
    if not parts:
        raise BaseModelRefused("compile: this network's layers have no part called mlp")
    for part in parts:
        part.compile(dynamic=True)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _layers(network: nn.Module) -> Iterator[Any]:
    return (
        module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)
    )
