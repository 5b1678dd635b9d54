"""GPU names, driver and memory as the driver counts them (NVML)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class GpuState:
    """One GPU of the machine.

    Attributes:
        gpu: its number, from 0 on.
        name: as the driver names it.
        driver: the driver's version.
        total_bytes: its memory.
        used_bytes: in use by all processes, CUDA contexts included.
        uuid: by which CUDA_VISIBLE_DEVICES may name it.
        capability: its compute capability, (9, 0) for Hopper; (0, 0) where the driver does not tell.
    """

    gpu: int
    name: str
    driver: str
    total_bytes: int
    used_bytes: int
    uuid: str = ""
    capability: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        used, total = self.used_bytes / 2**30, self.total_bytes / 2**30
        return f"{self.name}, {used:.1f} of {total:.1f} GiB used, driver {self.driver}"


def gpu_states() -> list[GpuState]:
    """Return the GPUs that CUDA shows to this process, numbered as CUDA numbers them; empty without a driver.

    See CUDA_VISIBLE_DEVICES in NVIDIA's CUDA C++ Programming Guide. Where a machine has GPUs of several kinds, CUDA
    puts the fastest first unless CUDA_DEVICE_ORDER is PCI_BUS_ID; that is not followed here.
    """
    states = all_gpu_states()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return states
    shown: list[GpuState] = []
    for name in wanted.split(","):
        found = _named(states, name.strip())
        if found is None or found in shown:  # from an invalid name on, CUDA shows no more
            break
        shown.append(found)
    return [replace(state, gpu=number) for number, state in enumerate(shown)]


def _named(states: list[GpuState], name: str) -> GpuState | None:
    if name.isdecimal():
        return states[int(name)] if int(name) < len(states) else None
    matching = [state for state in states if name and state.uuid.startswith(name)]
    return matching[0] if len(matching) == 1 else None


def all_gpu_states() -> list[GpuState]:
    """Return every GPU that the driver knows; empty without a driver or without nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(gpu) for gpu in range(pynvml.nvmlDeviceGetCount())]
        states = []
        for gpu, handle in enumerate(handles):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = str(pynvml.nvmlDeviceGetName(handle))
            uuid = str(pynvml.nvmlDeviceGetUUID(handle))
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            known = (int(major), int(minor))
            states.append(GpuState(gpu, name, driver, int(memory.total), int(memory.used), uuid, known))
        return states
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
