"""Makes MKL choose its kernels before two threads can ask for one at once."""

from typing import Final

import torch

# What torch hands to MKL's vector mathematics on a CPU.
FUNCTIONS: Final = (
    "acos",
    "asin",
    "atan",
    "cos",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "log2",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
)


def choose_kernels() -> None:
    """Let one thread alone make the first call of each function.

    MKL 2024 chooses the kernel at that call. Where two threads made it at once, one of them computed
    its share of that call with a coarse kernel (tanh off by 7e-5, exp by 2e-2): the first step of 1
    to 8 in 1,000 processes on two busy cores differed from that of every other run.
    https://github.com/pytorch/pytorch/issues/188792
    """
    for number in (torch.tensor([0.5]), torch.tensor([0.5], dtype=torch.float64)):
        for name in FUNCTIONS:
            getattr(torch, name)(number)
