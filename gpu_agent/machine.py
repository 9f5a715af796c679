"""What this machine computes with, found out without loading torch."""

import os
import shutil
import subprocess
from dataclasses import dataclass

from gpu_agent.protocol import Device

ASK_S = 10.0  # a driver that wakes up


@dataclass(frozen=True, slots=True)
class Machine:
    accelerator: str  # "cpu", or the GPU's name
    memory_bytes: int  # of the accelerator


def this_machine(device: Device) -> Machine:
    """Describe the first GPU, or the CPU where there is none or none is wanted."""
    if device != "cpu" and (gpu := _first_gpu()):
        return gpu
    return Machine("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _first_gpu() -> Machine | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=ASK_S, check=True)
        name, mebibytes = answer.stdout.splitlines()[0].rsplit(",", 1)
        return Machine(name.strip(), int(mebibytes) * 1024**2)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # a driver that does not answer will not train either
