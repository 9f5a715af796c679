"""In how many bits a network computes: what a job may choose, and what pays on which device."""

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch

from gpu_agent.outcomes import WorkFailed

# As a job says it, and as torch and the records do.
DTYPES: Final = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class PrecisionUnfit(WorkFailed):
    """The device does not compute in the precision that was asked for."""

    code = "precision_unfit"


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """Give torch's name of a precision, but for "auto".

    Raises:
        PrecisionUnfit: the device is not made for it.
    """
    dtype = DTYPES[precision]
    if dtype == torch.float16 and device.type != "cuda":
        raise PrecisionUnfit(
            "precision fp16 needs a CUDA device: a processor is no faster with it, and bf16 or fp32 "
            "would do"
        )
    return dtype


def name_of_precision(precision: str, device: torch.device) -> str:
    """Name the precision of a network that is computed in float32 if nobody asks for another.

    Raises:
        PrecisionUnfit: the device is not made for it.
    """
    dtype = dtype_of("fp32" if precision == "auto" else precision, device)
    return str(dtype).removeprefix("torch.")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute matrices in fewer bits while weights, norms and losses stay in float32."""
    if DTYPES[precision] == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
