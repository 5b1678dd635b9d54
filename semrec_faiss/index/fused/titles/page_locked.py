"""Vectors that stay on the host, page-locked, so that kernels read single rows of them over the bus."""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import numpy as np

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.titles.gpu_titles import load_torch
from semrec_faiss.index.hardware.host_memory import available_bytes

PORTABLE = 1
"""CUDA's flag for memory that is page-locked for all GPUs."""

_FIX = "set device.originals=gpu or index.search.rescore=float16, or take type ivf_pq"


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
    """Lock vectors where they lie, if that is an array's own memory, or else a copy."""
    torch = load_torch()
    array = vectors.view() if _lie_in_own_memory(vectors) else _copied(vectors)
    held = torch.from_numpy(array)
    if not torch.cuda.is_available():
        return held
    cuda: Any = torch.cuda.cudart()
    problem = cuda.cudaHostRegister(held.data_ptr(), held.nbytes, PORTABLE)
    if int(problem) != 0:
        raise DeviceError(f"{held.nbytes / 2**30:.1f} GiB cannot be page-locked on the host: {problem}", fix=_FIX)
    weakref.finalize(array, cuda.cudaHostUnregister, held.data_ptr()).atexit = False
    return held


def _lie_in_own_memory(vectors: Any) -> bool:
    """Tell whether vectors are all or a part of an array's own memory, which a GPU can read as it is.

    Those of an index are mapped from its file, behind FAISS's header: at an odd address of pages that are only to be
    read, though what numpy shows of them says that it may be written.
    """
    if not isinstance(vectors, np.ndarray) or not vectors.flags.c_contiguous:
        return False
    owner = vectors
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return bool(owner.flags.owndata and owner.flags.writeable)


def _copied(vectors: Any) -> Any:
    """Copy float32 vectors, mapped or joined as they may be; the system may end who takes more than there is."""
    needed, available = 4 * math.prod(vectors.shape), available_bytes()
    if available is not None and needed > available:
        raise DeviceError(
            f"{needed / 2**30:.1f} GiB cannot be page-locked on the host, which has {available / 2**30:.1f} GiB free",
            fix=_FIX,
        )
    return np.array(vectors, np.float32) if isinstance(vectors, np.ndarray) else np.asarray(vectors)
