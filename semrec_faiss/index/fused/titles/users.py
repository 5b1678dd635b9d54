"""Users on a GPU: their vectors, and the rows of what they have seen; a batch of them is then a few row numbers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.titles.gpu_titles import UPLOAD_BYTES, as_tensor, load_torch

FREE_SHARE = 0.5
"""How much of a GPU's free memory users may take: what is left is for searches, and for titles that filters gather."""


class HostUsers(Protocol):
    """Users in the host's memory or mapped from disk."""

    @property
    def count(self) -> int:
        """The number of users."""
        ...

    @property
    def vectors(self) -> Vectors:
        """Their vectors, float32 (users, dim), read by slices and rows."""
        ...

    @property
    def has_seen(self) -> bool:
        """Whether it is known what they have seen."""
        ...

    @property
    def seen(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """``rows[offsets[u]:offsets[u + 1]]`` are the titles that user ``u`` has seen."""
        ...


class GpuUsers:
    """Users on one GPU.

    Attributes:
        host: the same users in the host's memory.
        vectors: float32 (users, dim) on the GPU; float16 where that holds every one of them exactly.
        offsets, rows: what they have seen, int64 (users + 1,) and int32, as in `HostUsers`; None where it is not known.
    """

    def __init__(self, host: HostUsers, device: Any) -> None:
        """Copy users to a GPU; raises torch's OutOfMemoryError where they do not fit."""
        torch = load_torch()
        self.host = host
        halves = _uploaded(host.vectors, device, torch.float16)
        self.vectors = _uploaded(host.vectors, device, torch.float32) if halves is None else halves
        self.offsets = self.rows = None
        if host.has_seen:
            offsets, rows = host.seen
            self.offsets = as_tensor(np.asarray(offsets, np.int64)).to(device)
            self.rows = as_tensor(np.asarray(rows, np.int32)).to(device)

    @property
    def bytes(self) -> int:
        """GPU memory that they take."""
        tensors = (self.vectors, self.offsets, self.rows)
        return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)

    def vectors_of(self, rows: Rows) -> Vectors:
        """Return vectors from the host's memory: float32 (rows, dim), C-contiguous."""
        return np.ascontiguousarray(self.host.vectors[rows], dtype=np.float32)

    def seen_by(self, rows: Rows) -> Exclusions:
        """Return what some users have seen, from the host's memory."""
        return Exclusions(*self.host.seen).take(rows)


def users_bytes(users: int, dim: int, seen: int) -> int:
    """Return the GPU memory of so many users in float32, who have seen ``seen`` titles in all."""
    return 4 * dim * users + (8 * (users + 1) + 4 * seen if seen else 0)


def fit(host: HostUsers, device: Any) -> bool:
    """Tell whether users may be copied to a GPU beside what is there."""
    seen = len(host.seen[1]) if host.has_seen else 0
    free = load_torch().cuda.mem_get_info(device)[0] if device.type == "cuda" else np.inf
    return bool(users_bytes(host.count, host.vectors.shape[1], seen) <= FREE_SHARE * free)


def _uploaded(vectors: Vectors, device: Any, dtype: Any) -> Any:
    """Copy vectors block by block as ``dtype``; None where one of them would change."""
    torch = load_torch()
    count, dim = vectors.shape
    held = torch.empty((count, dim), dtype=dtype, device=device)
    step = max(1, UPLOAD_BYTES // (4 * dim))
    for start in range(0, count, step):
        block = as_tensor(np.asarray(vectors[start : start + step], np.float32)).to(device)
        held[start : start + step] = block
        if dtype != torch.float32 and not bool((held[start : start + step].float() == block).all()):
            return None
    return held
