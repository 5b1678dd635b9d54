"""GPU names, driver and memory as the driver counts them (NVML)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


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
        own_bytes: in use by this process, its CUDA context included; None where the driver lists no process of its
            number, as before it uses the GPU and in containers that number processes anew, or tells no sizes.
        others: the numbers of all other processes that the driver lists; where ``own_bytes`` is None this one's can be
            among them.
    """

    gpu: int
    name: str
    driver: str
    total_bytes: int
    used_bytes: int
    uuid: str = ""
    capability: tuple[int, int] = (0, 0)
    own_bytes: int | None = None
    others: frozenset[int] = frozenset()

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


def smallest_gpu(gpus: Sequence[int]) -> GpuState | None:
    """Return which of some GPUs has the least memory; None where the driver does not tell of all of them."""
    states = {state.gpu: state for state in gpu_states()}
    if any(gpu not in states for gpu in gpus):
        return None
    return min((states[gpu] for gpu in gpus), key=lambda state: state.total_bytes, default=None)


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
            known, taken = (int(major), int(minor)), _taken(handle)
            own = taken.get(os.getpid())
            others = frozenset(number for number in taken if number != os.getpid() or own is None)
            states.append(GpuState(gpu, name, driver, int(memory.total), int(memory.used), uuid, known, own, others))
        return states
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _taken(handle: Any) -> dict[int, int | None]:
    """Return the bytes of each process that computes on a GPU, by its number; empty where the driver lists none.

    NVML numbers processes as the machine does, in whatever container they run.
    """
    import pynvml

    try:
        listed = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:  # no right to, or too old a driver
        return {}
    return {int(process.pid): process.usedGpuMemory for process in listed}
