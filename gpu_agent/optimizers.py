"""Builds the optimizer that a job asks for; what is trained is float32, whatever is frozen beside it."""

from collections.abc import Iterable
from typing import assert_never

from torch import nn
from torch.optim import AdamW, Optimizer

from domain.jobs.spec import Hyperparameters
from gpu_agent.quantisation import bitsandbytes


def make_optimizer(config: Hyperparameters, weights: Iterable[nn.Parameter]) -> Optimizer:
    """Loshchilov and Hutter 2017, algorithm 2; with 8-bit states, Dettmers et al. 2021.

    Raises:
        QuantisationMissing: 8-bit states were asked for, and bitsandbytes is not installed.
    """
    match config.optimizer:
        case "adamw":
            return AdamW(
                weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
            )
        case "adamw_8bit":
            made: Optimizer = bitsandbytes().optim.AdamW8bit(
                weights, lr=config.learning_rate, weight_decay=config.weight_decay
            )
            return made
        case _:
            assert_never(config.optimizer)
