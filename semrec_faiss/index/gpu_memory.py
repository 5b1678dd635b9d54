"""GPU names, driver and memory as the driver counts them (NVML)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuState:
    """One GPU of the machine.

    Attributes:
        gpu: its number.
        name: as the driver names it.
        driver: the driver's version.
        total_bytes: its memory.
        used_bytes: in use by all processes, CUDA contexts included.
    """

    gpu: int
    name: str
    driver: str
    total_bytes: int
    used_bytes: int

    def __str__(self) -> str:
        used, total = self.used_bytes / 2**30, self.total_bytes / 2**30
        return f"{self.name}, {used:.1f} of {total:.1f} GiB used, driver {self.driver}"


def gpu_states() -> list[GpuState]:
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
            states.append(GpuState(gpu, name, driver, int(memory.total), int(memory.used)))
        return states
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
