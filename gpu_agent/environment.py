"""Sets up the arithmetic, and records what it depends on: the same values give the same bytes."""

import logging
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import transformers

from domain.work import Environment
from gpu_agent.outcomes import WorkFailed
from gpu_agent.protocol import Device
from gpu_agent.vector_mathematics import choose_kernels

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scikit-learn")


class DeviceMissing(WorkFailed):
    """The agent was told to use a device that this machine does not have."""

    code = "device_missing"


def set_up(device: Device, threads: int) -> torch.device:
    """Make torch deterministic on the chosen device; to be called once, before any model is built.

    The number of threads decides how sums are split, and so the last bits of every result.
    """
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    choose_kernels()
    torch.use_deterministic_algorithms(mode=True)
    # Nothing here reads uninitialised memory, and filling it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceMissing("device is set to cuda, and torch finds no CUDA device")
    # The fused attention kernels add up their gradients in any order.
    torch.backends.cuda.enable_flash_sdp(enabled=False)
    torch.backends.cuda.enable_mem_efficient_sdp(enabled=False)
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    return torch.device("cuda", 0)


def describe(device: torch.device) -> Environment:
    return Environment(
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        code=_own_version(),
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _own_version() -> str:
    try:
        return version("finetrail")
    except PackageNotFoundError:  # run from a checkout
        return "unreleased"
