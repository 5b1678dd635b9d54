"""What the machine itself allows: bytes and operations per second, and the time that exact search cannot go under."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import numpy as np

from semrec_faiss.index.hardware.device import Device, load_faiss
from semrec_faiss.measure.documents.fields import Amount, Part
from semrec_faiss.measure.documents.results import NotMeasured

_CPU_COPY_BYTES = 256 << 20  # far more than any last-level cache
_CPU_MATRIX = 2048
_GPU_COPY_BYTES = 2 << 30
_GPU_MATRIX = 8192
_ATTEMPTS = 7

Numbers = Literal["float32", "float16", "int8"]
_BYTES: dict[Numbers, int] = {"float32": 4, "float16": 2, "int8": 1}


class Limit(Part):
    """The least milliseconds that an exact search can take, and whether bytes or operations bound it."""

    limit_ms: Amount
    bound_by: Literal["memory", "arithmetic"]


class HardwareLimits(Part):
    """The ceilings of one machine, measured.

    Attributes:
        copy_bytes_per_s: bytes read plus bytes written by a large copy.
        read_bytes_per_s: bytes read by a large reduction.
        float32_flops_per_s: operations of a float32 matrix product.
        float16_flops_per_s: the same in float16, on a GPU; None on a CPU.
        int8_ops_per_s: the same in int8 with int32 sums, on a GPU; None on a CPU, or where it was not measured.
        by: what measured it.
    """

    copy_bytes_per_s: float
    read_bytes_per_s: float
    float32_flops_per_s: float
    float16_flops_per_s: float | None
    int8_ops_per_s: float | None = None
    by: str

    def limit(
        self,
        queries: int,
        titles: int,
        dim: int,
        k: int,
        *,
        numbers: Numbers = "float32",
        title_bytes: int | None = None,
    ) -> Limit:
        """Return the least milliseconds that an exact search can take, and what it is bound by.

        Every title's vector is read once and every query compared with each: 2 × queries × titles × dim operations.

        Args:
            queries: how many.
            titles: vectors in the index.
            dim: dimensions of a vector.
            k: titles returned per query, a float32 score and an int64 row each.
            numbers: what titles are stored and compared in.
            title_bytes: what is read of each title; its vector by default.
        """
        read = dim * _BYTES[numbers] if title_bytes is None else title_bytes
        rates = {"float16": self.float16_flops_per_s, "int8": self.int8_ops_per_s or self.float16_flops_per_s}
        rate = rates.get(numbers) or self.float32_flops_per_s
        moved = read * titles + 4 * dim * queries + (4 + 8) * queries * k
        memory_ms = moved / max(self.copy_bytes_per_s, self.read_bytes_per_s) * 1e3
        arithmetic_ms = 2.0 * queries * titles * dim / rate * 1e3
        bound: Literal["memory", "arithmetic"] = "memory" if memory_ms >= arithmetic_ms else "arithmetic"
        return Limit(limit_ms=round(max(memory_ms, arithmetic_ms), 5), bound_by=bound)


def measure_limits(device: Device) -> HardwareLimits | NotMeasured:
    """Measure the ceilings of the device; a GPU's with torch."""
    if not device.gpus:
        return _cpu_limits()
    if len(device.gpus) > 1:
        return NotMeasured("the ceilings of several GPUs together are not measured")
    try:
        import torch
    except ImportError:
        return NotMeasured("torch is not installed, and FAISS has no copy or matrix product to measure a GPU with")
    if not torch.cuda.is_available():
        return NotMeasured("the installed torch cannot use the GPU")
    try:
        return _gpu_limits(torch, device.gpus[0])
    except RuntimeError as error:
        return NotMeasured(f"torch failed on the GPU: {str(error).splitlines()[0]}")


def _best_seconds(work: Callable[[], object]) -> float:
    """Return the fastest of several attempts: a ceiling is what the machine can do, not what it mostly does."""
    work()
    best = float("inf")
    for _ in range(_ATTEMPTS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def _cpu_limits() -> HardwareLimits:
    threads = int(load_faiss().omp_get_max_threads())
    source = np.ones(_CPU_COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    edges = np.linspace(0, len(source), threads + 1).astype(int)
    parts = [slice(first, last) for first, last in itertools.pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:

        def on_all_threads(work: Callable[[slice], object]) -> Callable[[], object]:
            return lambda: list(pool.map(work, parts))

        copy = _best_seconds(on_all_threads(lambda part: np.copyto(target[part], source[part])))
        read = _best_seconds(on_all_threads(lambda part: source[part].max()))
    random = np.random.default_rng(1)
    left, right = (random.random((_CPU_MATRIX, _CPU_MATRIX), dtype=np.float32) for _ in range(2))
    product = _best_seconds(lambda: left @ right)
    return HardwareLimits(
        copy_bytes_per_s=2 * source.nbytes / copy,
        read_bytes_per_s=source.nbytes / read,
        float32_flops_per_s=2.0 * _CPU_MATRIX**3 / product,
        float16_flops_per_s=None,
        by=f"numpy {np.__version__}, {threads} threads",
    )


Finished = Callable[[Callable[[], object]], Callable[[], None]]


def _gpu_copy_and_read(torch: Any, device: Any, finished: Finished) -> tuple[float, float]:
    """Return the seconds of copying and of reading `_GPU_COPY_BYTES`."""
    source = torch.ones(_GPU_COPY_BYTES // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return _best_seconds(finished(lambda: target.copy_(source))), _best_seconds(finished(source.sum))


def _int8_rate(torch: Any, device: Any, finished: Finished) -> float | None:
    """Return the operations per second of an int8 product; None where torch or the GPU, as before Turing, has none."""
    shape = (_GPU_MATRIX, _GPU_MATRIX)
    left, right = (torch.randint(-127, 128, shape, device=device, dtype=torch.int8) for _ in range(2))
    try:
        return 2.0 * _GPU_MATRIX**3 / _best_seconds(finished(lambda: torch._int_mm(left, right.T)))
    except (AttributeError, RuntimeError):
        return None


def _gpu_limits(torch: Any, gpu: int) -> HardwareLimits:
    device = torch.device("cuda", gpu)

    def finished(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            torch.cuda.synchronize(device)

        return run

    copy, read = _gpu_copy_and_read(torch, device, finished)
    rates = {}
    tf32_before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False  # FAISS compares in full float32
    try:
        for dtype in (torch.float32, torch.float16):
            left, right = (torch.randn(_GPU_MATRIX, _GPU_MATRIX, device=device, dtype=dtype) for _ in range(2))
            rates[dtype] = 2.0 * _GPU_MATRIX**3 / _best_seconds(finished(partial(torch.matmul, left, right)))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32_before
    return HardwareLimits(
        copy_bytes_per_s=2.0 * _GPU_COPY_BYTES / copy,
        read_bytes_per_s=_GPU_COPY_BYTES / read,
        float32_flops_per_s=rates[torch.float32],
        float16_flops_per_s=rates[torch.float16],
        int8_ops_per_s=_int8_rate(torch, device, finished),
        by=f"torch {torch.__version__}, TF32 off",
    )
