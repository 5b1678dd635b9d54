"""Vectors that stay on the host, page-locked, so that kernels read single rows of them over the bus."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.titles.gpu_titles import load_torch

PORTABLE = 1
"""CUDA's flag for memory that is page-locked for all GPUs."""


class PageLocked:
    """Vectors that are page-locked when they are first asked for, for all GPUs; unlocked when the last tensor goes."""

    def __init__(self, vectors: Any) -> None:
        """Lock nothing yet of float32 or float16 (vectors, dim), or of int32 (rows,)."""
        self._vectors, self._locking = vectors, threading.Lock()
        self._held: Any = None

    def part(self, rows: slice) -> Any:
        """Return some of the rows, a tensor on the host.

        Raises:
            DeviceError: the system does not lock so much.
        """
        with self._locking:
            if self._held is None:
                self._held = _locked(self._vectors)
            return self._held[rows]


def _locked(vectors: Any) -> Any:
    """Lock vectors where they lie or, mapped or joined as they may be, a copy."""
    torch = load_torch()
    in_place = isinstance(vectors, np.ndarray) and vectors.flags.c_contiguous and vectors.flags.writeable
    array = vectors.view() if in_place else np.array(vectors[:])
    held = torch.from_numpy(array)
    if not torch.cuda.is_available():
        return held
    cuda: Any = torch.cuda.cudart()
    problem = cuda.cudaHostRegister(held.data_ptr(), held.nbytes, PORTABLE)
    if int(problem) != 0:
        raise DeviceError(
            f"{held.nbytes / 2**30:.1f} GiB cannot be page-locked on the host: {problem}",
            fix="set device.originals=gpu or index.search.rescore=float16, or take type ivf_pq",
        )
    weakref.finalize(array, cuda.cudaHostUnregister, held.data_ptr()).atexit = False
    return held
