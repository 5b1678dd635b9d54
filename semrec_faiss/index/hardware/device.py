"""Which FAISS build is installed, which GPUs it sees, and what runs on them."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any, Literal

from semrec_faiss.config.index_types import FUSED_K_LIMIT, GPU_LIMIT, FusedIndex, IndexConfig, IvfSqIndex
from semrec_faiss.config.schema import DeviceConfig, device_problems
from semrec_faiss.errors import ConfigError, DeviceError, MissingPackageError
from semrec_faiss.forking import renewed_after_fork
from semrec_faiss.index.hardware.gpu_memory import all_gpu_states
from semrec_faiss.index.hardware.kernels import replace_old_kernels

FAISS_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")

# FAISS compares the threshold with queries × dimensions and takes its slow path below it. At 20 every batch takes the
# BLAS path, which costs the same for a handful of queries and a fifth for a hundred (62,423 × 384, two cores). With
# these blocks one tile of scores (queries × titles × 4 bytes = 8 MB) stays in the processor's caches.
BLAS_THRESHOLD = 20
BLAS_QUERY_BLOCK = 1024
BLAS_TITLE_BLOCK = 2048


GPU_NARROW_SQ_LIMIT = 512
"""The largest k of scalar-quantised lists of 8 bits or fewer on a GPU: FAISS 1.15 ends the process above it, because
its kernel asks for more shared memory than there is."""

GPU_PQ_FLOAT32_M = 48
"""The largest product quantiser whose float32 look-up tables fit a GPU's shared memory."""


def installed_faiss() -> dict[str, str]:
    """Return the installed FAISS wheels with their versions."""
    found = {}
    for name in FAISS_WHEELS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables that say how FAISS's CPU threads wait for one another; libgomp reads them when FAISS is imported."""

SPINS = 1000
"""Turns after which a thread that waits lets go of its core: some microseconds.

Unless told, it keeps it for milliseconds, and so from the thread that it waits for wherever anything else runs: on two
shared cores, 10 queries over 1,519 titles took 28 ms instead of 0.7."""


@lru_cache(maxsize=1)
def load_faiss() -> Any:
    """Import FAISS, have its threads share cores, and set its kernels and block sizes for batches of recommender size.

    ``GOMP_SPINCOUNT`` is set for this process where neither it nor ``OMP_WAIT_POLICY`` is; for the kernels see
    `semrec_faiss.index.hardware.kernels`.

    Raises:
        MissingPackageError: FAISS is missing, installed twice over itself, or cannot load its GPU libraries.
    """
    wheels = installed_faiss()
    if len(wheels) > 1:
        remove = f"pip uninstall -y {' '.join(wheels)}"
        raise MissingPackageError(
            f"{' and '.join(wheels)} are both installed: they write the same files, so neither is whole",
            fix=f"{remove} && pip install 'semrec-faiss[cpu]'   (or [gpu] on a machine with an NVIDIA GPU)",
        )
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    is_ours = "faiss" not in sys.modules  # kernels that others may be using are left alone
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            f"FAISS is not installed ({error})",
            fix="pip install 'semrec-faiss[cpu]'   (or [gpu] on a machine with an NVIDIA GPU)",
        ) from error
    except RuntimeError as error:  # a GPU wheel without its nvidia packages
        raise MissingPackageError(
            f"FAISS is installed but cannot load its GPU libraries: {error}",
            fix="pip install --force-reinstall 'semrec-faiss[gpu]'",
        ) from error
    if is_ours:
        replace_old_kernels(faiss)
    faiss.cvar.distance_compute_blas_threshold = BLAS_THRESHOLD
    faiss.cvar.distance_compute_blas_query_bs = BLAS_QUERY_BLOCK
    faiss.cvar.distance_compute_blas_database_bs = BLAS_TITLE_BLOCK
    return faiss


def gpu_count() -> int:
    """Return the number of GPUs that this FAISS can use: 0 for a CPU build or without a driver.

    Raises:
        DeviceError: there are some, but the process was forked from one that had looked for them already.
    """
    faiss = load_faiss()
    if _cuda.lost:
        raise DeviceError(
            "this process was forked from one that had used the GPU, and CUDA cannot be used after that",
            fix="start processes by spawn or forkserver, open no index before the fork, or set device.kind=cpu",
        )
    found = int(faiss.get_num_gpus()) if "GPU" in faiss.get_compile_options() else 0
    _cuda.in_use = found > 0
    return found


@dataclass
class _Cuda:
    """Whether this process has asked CUDA for GPUs and found some, and whether it was forked after that."""

    in_use: bool = False
    lost: bool = False


_cuda = _Cuda()


@renewed_after_fork
def _lose_cuda() -> None:
    """Ask CUDA nothing more in a forked child: it would end the process."""
    _cuda.lost = _cuda.in_use


@dataclass(frozen=True)
class Device:
    """Where an index is searched: on the CPU (``gpus`` empty) or on the named GPUs."""

    gpus: tuple[int, ...] = ()
    float16: bool = False
    temp_memory_mb: int | None = None
    layout: Literal["auto", "shards", "replicas"] = "auto"
    originals: Literal["auto", "gpu", "host"] = "auto"

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """``gpu`` when it names at least one."""
        return "gpu" if self.gpus else "cpu"

    def __str__(self) -> str:
        return "cpu" if not self.gpus else "gpu " + ", ".join(map(str, self.gpus))


def choose_device(wanted: DeviceConfig, index: IndexConfig) -> Device:
    """Choose where to search: ``auto`` takes the GPU where there is one and the index type runs on it.

    Raises:
        DeviceError: a GPU is asked for and there is none, or not that many.
        ConfigError: the index type or its settings do not run on the device.
    """
    on_gpu = wanted.model_copy(update={"kind": "gpu"})
    if wanted.kind == "cpu":
        return Device()
    problems = device_problems(index, on_gpu)
    available = gpu_count()
    if wanted.kind == "auto":
        return Device() if problems or available == 0 else _gpus(on_gpu, available)
    if problems:
        raise ConfigError("; ".join(problems))
    return _gpus(on_gpu, available)


def _gpus(wanted: DeviceConfig, available: int) -> Device:
    missing = [gpu for gpu in wanted.gpus if gpu >= available]
    if missing:
        raise DeviceError(
            f"GPU {missing[0]} was asked for, but FAISS sees {available} GPUs", fix=_way_to_a_gpu(available)
        )
    return Device(wanted.gpus, wanted.float16, wanted.temp_memory_mb, wanted.layout, wanted.originals)


def _way_to_a_gpu(available: int) -> str:
    if not available and not has_driver():
        return "this machine has no NVIDIA driver: set device.kind=cpu, or install a driver first"
    shown = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if len(set(shown)) < len(shown):
        return f"CUDA_VISIBLE_DEVICES={','.join(shown)} names a GPU twice: name each once"
    if any(name != "faiss-cpu" for name in installed_faiss()):
        return "run `semrec doctor` to see why"
    return "pip uninstall -y faiss-cpu && pip install 'semrec-faiss[gpu]', or set device.kind=cpu"


def has_driver() -> bool:
    """Tell whether this machine has an NVIDIA driver."""
    return shutil.which("nvidia-smi") is not None or bool(all_gpu_states())


def gpu_candidates(index: Any) -> int:
    """Return the most titles that a search of this index finds on a GPU."""
    faiss = load_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    quantizer = None if ivf is None else getattr(faiss.downcast_index(ivf), "sq", None)
    narrow = quantizer is not None and quantizer.qtype != faiss.ScalarQuantizer.QT_fp16
    return GPU_NARROW_SQ_LIMIT if narrow else GPU_LIMIT


def gpu_k_limit(index: IndexConfig, titles: int) -> int | None:
    """Return the most titles that a search of so many returns on a GPU, as `VectorIndex.k_limit`; None for no limit.

    Of a factory string it takes FAISS's general limit, since only a built index tells a lower one.
    """
    if isinstance(index, FusedIndex):
        return FUSED_K_LIMIT if titles > FUSED_K_LIMIT else None
    narrow = isinstance(index, IvfSqIndex) and index.build.storage == "8bit"
    limit = GPU_NARROW_SQ_LIMIT if narrow else GPU_LIMIT
    return limit // (getattr(index.search, "refine", None) or 1) if titles > limit else None


def out_of_k_limit(index: IndexConfig) -> str:
    """Say what to do where more titles are wanted than a GPU returns."""
    if isinstance(index, FusedIndex):
        return "lower k, or take type flat, or set device.kind=cpu"
    return "lower k or set device.kind=cpu"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether FAISS raised ``error`` because memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "bad_alloc" in text or "alloc fail" in text


def first_line(error: BaseException) -> str:
    """Return the telling part of FAISS's many-line messages."""
    text = str(error).strip()
    _, _, after = text.rpartition("Error: ")
    return (after or text).splitlines()[0] if text else type(error).__name__
