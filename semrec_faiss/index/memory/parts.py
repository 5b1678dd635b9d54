"""Bytes of an index in one memory, by what they are for."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class MemoryParts:
    """Bytes by what they are for, in one memory: a GPU's, or the process's on the host.

    Attributes:
        vectors: the vectors, or the codes that stand for them.
        structure: centroids, list ids, graph links, and norms.
        originals: exact vectors beside codes, mapped from disk. They are part of no sum: the system keeps of them what
            it has room for, and reads the rest again.
        context: the CUDA context and cuBLAS; 0 on the host, where Python and FAISS themselves are not counted.
        locked: originals that are page-locked on the host, where a GPU reads them over the bus, beside the index.
        reserved: taken whatever the index: FAISS's scratch on a GPU; on the host code and page-locked memory.
        scratch: allocated while a batch is searched, beyond ``reserved``.
        batch: the queries and their results.
    """

    vectors: int = 0
    structure: int = 0
    originals: int = 0
    context: int = 0
    locked: int = 0
    reserved: int = 0
    scratch: int = 0
    batch: int = 0

    @property
    def base(self) -> int:
        """Bytes held once the index is loaded and has been searched, between searches."""
        return self.vectors + self.structure + self.context + self.locked + self.reserved

    @property
    def peak(self) -> int:
        """Bytes held at most while the batch is searched."""
        return self.base + self.scratch + self.batch

    def as_dict(self) -> dict[str, int]:
        """Return the parts, their sum without a search and with one."""
        named = {f"{name}_bytes": count for name, count in asdict(self).items()}
        return named | {"base_bytes": self.base, "peak_bytes": self.peak}
