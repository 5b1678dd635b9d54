"""Users beside a GPU: their vectors, and the rows of what they have seen; a batch of them is then a few row numbers.

They lie in the GPU's memory where they fit, and else page-locked in the host's, where kernels read them over the bus.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, TypeAlias

import numpy as np

from semrec_faiss.arrays import Rows, StoredRows, Vectors
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.fused.kernels import ARITHMETIC
from semrec_faiss.index.fused.titles.gpu_titles import as_tensor, load_torch
from semrec_faiss.index.fused.titles.page_locked import PageLocked
from semrec_faiss.index.fused.titles.uploading import UPLOAD_BYTES
from semrec_faiss.index.hardware.host_memory import available_bytes

FREE_SHARE = 0.5
"""How much of the free memory users may take: what is left is for searches, and for shelves of filters' titles."""


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
    def seen(self) -> tuple[Rows, StoredRows]:
        """``rows[offsets[u]:offsets[u + 1]]`` are the titles that user ``u`` has seen."""
        ...


class GpuUsers:
    """Users that one GPU reads.

    Attributes:
        host: the same users in the host's memory.
        is_locked: whether they are page-locked on the host, and not on the GPU.
        vectors: float32 (users, dim); float16 where that holds every one of them exactly.
        offsets, rows: what they have seen, int64 (users + 1,) and int32, as in `HostUsers`; None where it is not known.
    """

    def __init__(self, host: HostUsers, device: Any, locked: LockedUsers | None = None) -> None:
        """Copy users to a GPU, or let it read those that are page-locked.

        Raises:
            OutOfMemoryError: torch's, where they do not fit.
            DeviceError: the system does not page-lock so much.
        """
        torch = load_torch()
        self.host = host
        self.is_locked = locked is not None
        self.offsets = self.rows = None
        if locked is not None:
            self.vectors = locked.vectors.part(slice(None))
        else:
            halves = _uploaded(host.vectors, device, torch.float16)
            self.vectors = _uploaded(host.vectors, device, torch.float32) if halves is None else halves
        if host.has_seen:
            offsets, rows = (np.asarray(part, kind) for part, kind in zip(host.seen, (np.int64, np.int32), strict=True))
            self.offsets = as_tensor(offsets).to(device)
            # Nothing cannot be page-locked: where nobody has seen a title of a shard, say.
            self.rows = locked.seen.part(slice(None)) if locked and len(rows) else as_tensor(rows).to(device)

    @property
    def bytes(self) -> int:
        """GPU memory that they take."""
        tensors = (self.offsets,) if self.is_locked else (self.vectors, self.offsets, self.rows)
        return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)

    def gather(self, which: Any, into: Any, there: Any) -> None:
        """Launch the gathering of some vectors.

        Args:
            which: int64 (queries,), on the GPU or page-locked.
            into: float32 (queries, dim) on the GPU.
            there: int64 (queries,) on the GPU, for ``which``: others read it more than once.
        """
        gathering = import_module("semrec_faiss.index.fused.kernels.gathering")
        dim = self.vectors.shape[1]
        width = 1 << (dim - 1).bit_length()
        gathering.gather_vectors[(len(which),)](self.vectors, which, into, there, dim, D_BLOCK=width, **ARITHMETIC)

    def vectors_of(self, rows: Rows) -> Vectors:
        """Return vectors from the host's memory: float32 (rows, dim), C-contiguous."""
        return np.ascontiguousarray(self.host.vectors[rows], dtype=np.float32)

    def seen_by(self, rows: Rows) -> Exclusions:
        """Return what some users have seen, from the host's memory."""
        return Exclusions(*self.host.seen).take(rows)


HeldUsers: TypeAlias = GpuUsers | list[GpuUsers]
"""Users of one GPU, or of each of several."""


class ShareOfUsers:
    """Users, and of what they have seen what is in a shard's share of the titles, counted from its first."""

    def __init__(self, host: HostUsers, share: slice) -> None:
        """Take from ``host`` for the titles of ``share``."""
        self.count, self.vectors, self.has_seen = host.count, host.vectors, host.has_seen
        self._host, self._share = host, share

    @cached_property
    def seen(self) -> tuple[Rows, StoredRows]:
        """What they have seen of the share; see `HostUsers.seen`."""
        inside = Exclusions(*self._host.seen).within(self._share.start, self._share.stop)
        return inside.offsets, inside.rows.astype(np.int32)


class LockedUsers:
    """Users page-locked once for all GPUs: vectors as `GpuUsers` has them, and the rows of what they have seen."""

    def __init__(self, host: HostUsers, vectors: PageLocked | None = None) -> None:
        """Lock nothing yet; ``vectors`` may be those of the same users elsewhere."""
        if vectors is None:
            halves = _halves_of(host.vectors)
            vectors = PageLocked(np.array(host.vectors[:], np.float32) if halves is None else halves)
        self.vectors = vectors
        self.seen = PageLocked(np.array(host.seen[1] if host.has_seen else (), np.int32))


def _halves_of(vectors: Vectors) -> Any:
    """Return vectors as float16; None where that does not hold every one of them exactly."""
    halves = np.empty(vectors.shape, np.float16)
    step = max(1, UPLOAD_BYTES // (4 * vectors.shape[1]))
    for start in range(0, len(vectors), step):
        block = np.asarray(vectors[start : start + step], np.float32)
        with np.errstate(over="ignore"):
            halves[start : start + step] = block
        if not (halves[start : start + step] == block).all():
            return None
    return halves


def users_bytes(users: int, dim: int, seen: int) -> int:
    """Return the GPU memory of so many users in float32, who have seen ``seen`` titles in all."""
    return 4 * dim * users + (8 * (users + 1) + 4 * seen if seen else 0)


def fit(host: HostUsers, device: Any) -> bool:
    """Tell whether users may be copied to a GPU beside what is there."""
    free = load_torch().cuda.mem_get_info(device)[0] if device.type == "cuda" else np.inf
    return bool(_needed(host) <= FREE_SHARE * free)


def may_be_locked(host: HostUsers) -> bool:
    """Tell whether users may be page-locked beside what is in the host's memory."""
    available = available_bytes()
    return available is not None and _needed(host) <= FREE_SHARE * available


def _needed(host: HostUsers) -> int:
    return users_bytes(host.count, host.vectors.shape[1], len(host.seen[1]) if host.has_seen else 0)


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
