"""How much memory an index takes, as the process that measures it prints it and results files hold it."""

from __future__ import annotations

from pydantic import TypeAdapter

from semrec_faiss.measure.documents.fields import AtLeastOne, Count, Part


class SearchPeak(Part):
    """The most that searching a batch took; on a host, where a peak cannot be reset, since the start."""

    batch: AtLeastOne
    peak_bytes: int
    peak_since_start: bool | None = None


class HostMemory(Part):
    """The resident set of a process: what it held at the start, and what index and searches took over that."""

    start_bytes: Count
    base_bytes: int
    available_bytes: Count | None
    searches: list[SearchPeak]


class GpuMemory(Part):
    """A GPU's memory as the driver counts it over what was in use before, the CUDA context included."""

    context_bytes: int
    base_bytes: int
    total_bytes: Count
    free_bytes: Count
    faiss_counts_bytes: dict[str, int]
    searches: list[SearchPeak]


class CouldNot(Part):
    """Why nothing was measured."""

    error: str


IndexMemory = HostMemory | GpuMemory
INDEX_MEMORY: TypeAdapter[HostMemory | GpuMemory | CouldNot] = TypeAdapter(HostMemory | GpuMemory | CouldNot)
