"""A process of its own that opens an index, searches it, and prints as JSON how much memory each step took.

Started by `index_memory.measure_memory`: only a fresh process holds nothing but the index. Memory on the host is the
resident set, which counts the mapped files that were touched; memory on a GPU is what the driver counts.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import SemrecError
from semrec_faiss.index.generations.file_names import VECTORS_NAME
from semrec_faiss.index.hardware.device import first_line, load_faiss
from semrec_faiss.index.hardware.gpu_memory import gpu_states
from semrec_faiss.index.hardware.on_gpu import faiss_allocations
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments.gpu_memory import INTERVAL_S, GpuMemoryWatch
from semrec_faiss.measure.instruments.host_memory import status_bytes
from semrec_faiss.measure.instruments.index_memory_record import (
    CouldNot,
    GpuMemory,
    HostMemory,
    IndexMemory,
    SearchPeak,
)

_PROC = Path("/proc/self")
_TOUCH_ROWS = 256
_WATCH_S = 60 * INTERVAL_S


def main(arguments: list[str]) -> int:
    """Measure the index that the arguments name, and print the result or the error."""
    asked = json.loads(arguments[0])
    measured: IndexMemory | CouldNot
    try:
        saved = SavedIndex(asked["index"], asked["settings"])
        measure = _on_gpu if saved.device.gpus else _on_host
        measured = measure(saved, asked["batches"], asked["k"])
    except (SemrecError, RuntimeError, MemoryError) as error:
        measured = CouldNot(error=error.message if isinstance(error, SemrecError) else first_line(error))
    print(json.dumps(measured.as_json()))
    return 0


def _on_host(saved: SavedIndex, batches: list[int], k: int) -> HostMemory | CouldNot:
    _load_blas(saved.generation.manifest.dim)
    start = status_bytes("VmRSS")
    if start is None:
        return CouldNot(error="this system does not tell a process's resident memory (/proc/self/status)")
    index = saved.vectors
    _touch(index)
    _give_back()
    base = _resident_of_index()
    return HostMemory(
        start_bytes=start,
        base_bytes=base - start,
        available_bytes=_available(),
        searches=[_host_search(index, batch, k, start) for batch in batches],
    )


def _host_search(index: VectorIndex, batch: int, k: int, start: int) -> SearchPeak:
    queries = _queries(index, batch)
    _give_back()
    was_reset = _reset_peak()
    mapped = _mapped(VECTORS_NAME)
    index.search(queries, min(k, index.count), prepared=True)
    peak = (status_bytes("VmHWM") or 0) - max(mapped, _mapped(VECTORS_NAME)) - start
    return SearchPeak(batch=batch, peak_bytes=peak, peak_since_start=not was_reset)


def _on_gpu(saved: SavedIndex, batches: list[int], k: int) -> GpuMemory:
    gpu, watch = saved.device.gpus[0], GpuMemoryWatch()
    _load_cuda(gpu)
    context = _known(watch.added_bytes([gpu]))
    index = saved.vectors
    index.search(_queries(index, 1), min(k, index.count), prepared=True)
    base = _known(watch.added_bytes([gpu]))
    state = next(state for state in gpu_states() if state.gpu == gpu)
    return GpuMemory(
        context_bytes=context,
        base_bytes=base,
        total_bytes=state.total_bytes,
        free_bytes=state.total_bytes - state.used_bytes,
        faiss_counts_bytes=faiss_allocations([gpu]),
        searches=[_gpu_search(index, gpu, batch, k, watch) for batch in batches],
    )


def _gpu_search(index: VectorIndex, gpu: int, batch: int, k: int, watch: GpuMemoryWatch) -> SearchPeak:
    queries = _queries(index, batch)

    def work() -> None:
        """Search over and over for long enough that readings fall into every part of a search."""
        until = time.perf_counter() + _WATCH_S
        while True:
            index.search(queries, min(k, index.count), prepared=True)
            if time.perf_counter() > until:
                break

    return SearchPeak(batch=batch, peak_bytes=_known(watch.peak_bytes([gpu], work)))


def _known(measured: int | NotMeasured) -> int:
    if isinstance(measured, NotMeasured):
        raise SemrecError(measured.reason)
    return measured


def _load_cuda(gpu: int) -> None:
    """Make the CUDA context and cuBLAS's handle, with no scratch space of FAISS's."""
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    resources.noTempMemory()
    resources.setPinnedMemory(0)
    vectors = np.eye(64, dtype=np.float32)
    faiss.knn_gpu(resources, vectors, vectors, 1, metric=faiss.METRIC_INNER_PRODUCT, device=gpu)


def _load_blas(dim: int) -> None:
    """Start the threads and take the buffers of both BLAS libraries, which stay whatever is searched."""
    faiss = load_faiss()
    vectors = np.ones((2048, dim), np.float32)
    vectors @ vectors.T
    faiss.knn(vectors[:512], vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)
    del vectors
    _give_back()


def _touch(index: VectorIndex) -> None:
    """Read all of a mapped index once, so that it is resident whichever parts the searches visit."""
    faiss = load_faiss()
    queries = _queries(index, 1)
    if faiss.try_extract_index_ivf(index.cpu_index) is not None:
        parameters = faiss.ParameterSpace()
        ivf = faiss.extract_index_ivf(index.cpu_index)
        before = int(ivf.nprobe)
        parameters.set_index_parameter(index.cpu_index, "nprobe", int(ivf.nlist))
        index.cpu_index.search(queries, 1)
        parameters.set_index_parameter(index.cpu_index, "nprobe", before)
        if not index.keeps_originals:
            index.vectors([0])  # makes the map from titles to places in the lists
    else:
        index.search(queries, 1, prepared=True)
        if not index.keeps_originals:
            for first in range(0, index.count, _TOUCH_ROWS):
                index.vectors(np.arange(first, min(first + _TOUCH_ROWS, index.count)))


def _queries(index: VectorIndex, batch: int) -> Vectors:
    queries = np.random.default_rng(batch).standard_normal((batch, index.dim), dtype=np.float32)
    queries /= np.sqrt(np.einsum("ij,ij->i", queries, queries))[:, None]
    return queries


def _give_back() -> None:
    """Return freed memory to the system, so that it does not count as held."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library, which has no such function
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_peak() -> bool:
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident_of_index() -> int:
    return (status_bytes("VmRSS") or 0) - _mapped(VECTORS_NAME)


def _available() -> int | None:
    """Return what the system could still give to programs."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _mapped(name: str) -> int:
    """Return the resident bytes of the mapped files of that name."""
    total, inside = 0, False
    for line in (_PROC / "smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(f"/{name}")
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
