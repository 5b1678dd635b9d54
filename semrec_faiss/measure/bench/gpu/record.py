"""The results file of ``semrec bench gpu``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from semrec_faiss.measure.bench.record import BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Share, Time
from semrec_faiss.measure.documents.stamp import Gpu, Stamp
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.hardware_limit import HardwareLimits

CONTESTANTS = (
    "fused",
    "screened",
    "faiss_float32",
    "faiss_float16",
    "cuvs_float32",
    "cuvs_float16",
    "torch_float16",
    "flashlib",
    "flashlib_cagra",
)
"""Ours, ours by bounds of fewer dimensions, FAISS's flat index as its build has it, torch's product with its topk,
FlashLib's exact search of float16 and its graph."""


USUAL_K = 10


class MadeVectors(Part):
    """The vectors that were made on the GPU."""

    dim: AtLeastOne
    k: AtLeastOne
    seed: Count
    clusters: AtLeastOne
    spread: Amount
    spectrum: Literal["round", "text"] = "round"

    @property
    def k_part(self) -> str:
        """What a file's name says of k: ``-k100``, and nothing of ten."""
        return "" if self.k == USUAL_K else f"-k{self.k}"


class GpuBatch(Part):
    """A batch size on one catalogue: the limit, everybody's times in turns, and how far our answers are right.

    Attributes:
        unproven: answers that the first pass does not prove.
        numpy: the whole search, from numpy to numpy.
        repeated: queries searched again in one such search.
        compared_with_all: queries compared with every title in it.
        checked_queries: held against a float64 product.
        largest_error: the largest difference from the best possible scores.
        recall: of FlashLib's, the share of the titles of our answers that theirs have, where there is FlashLib.
        screened: by bounds, ``screened_width`` numbers each, where the spectrum allows; what follows is as above.
    """

    titles: AtLeastOne
    queries: AtLeastOne
    reads: Literal["int8 codes", "float16"]
    limit_ms: Time
    bound_by: Literal["memory", "arithmetic"]
    fused_to_limit: Amount
    fused_to_faiss: Amount
    unproven: Count
    fused: Times
    screened: Times | None = None
    screened_numpy: Times | None = None
    screened_width: AtLeastOne | None = None
    screened_unproven: Count | None = None
    screened_repeated: Count | None = None
    screened_with_all: Count | None = None
    screened_largest_error: Amount | None = None
    faiss_float32: Times | None = None
    faiss_float16: Times | None = None
    cuvs_float32: Times | None = None
    cuvs_float16: Times | None = None
    torch_float16: Times
    flashlib: Times | None = None
    flashlib_cagra: Times | None = None
    recall: Annotated[dict[str, Share], Field(default_factory=dict)]
    numpy: Times
    numpy_added_ms: float
    repeated: Count
    compared_with_all: Count
    checked_queries: Count
    largest_error: Amount

    def median_ms(self, contestant: str) -> float | None:
        """Return the median time of one of `CONTESTANTS`, or of ``numpy``; None of one that was not there."""
        found: Times | None = getattr(self, contestant)
        return None if found is None else found.median_ms


class MaskedBatch(Part):
    """A batch under a random mask, beside the same without.

    Attributes:
        unmasked_ms, masked_ms, ratio: the kernels alone, which look every title up in the mask.
        unproven: answers that the first pass does not prove.
        filtered: the whole search by a filter that was used before, from numpy to numpy.
        first_filtered: the same by a filter that was not, another one for each repeat.
        filtered_kernels: the kernels alone by a filter whose titles are on a shelf, queries and answers on the GPU; by
            the same filter again and again, so that few titles stay in the GPU's cache. None where they are on no
            shelf: the filter allows none, its shelf would hold the whole catalogue, as it does of up to 6,144 titles,
            or would take more memory than shelves may. Then it is searched by its bitmap, in ``masked_ms``.
        filtered_unproven: answers that their first pass does not prove; None where there are no such times.
        first_filtered_kernels: the same with copying the titles to the shelf before it: what a filter that was not used
            before takes on the GPU, from its bitmap on; another one for each repeat. None likewise.
    """

    titles: AtLeastOne
    queries: AtLeastOne
    share: Share
    unmasked_ms: Time
    masked_ms: Time
    ratio: Amount
    unproven: Count
    filtered: Times | None = None
    first_filtered: Times | None = None
    filtered_kernels: Times | None = None
    filtered_unproven: Count | None = None
    first_filtered_kernels: Times | None = None


class GpuPeak(Part):
    """What torch allocated beyond the vectors while the largest batch was searched."""

    titles: AtLeastOne
    queries: AtLeastOne
    vector_bytes: Count
    peak_beyond_vectors_bytes: int


class GpuStamp(Stamp):
    """The stamp of a run on a GPU."""

    gpus: Annotated[list[Gpu], Field(min_length=1)]


class GpuResults(BenchResults):
    """A whole results file."""

    environment: GpuStamp
    device: str
    data: MadeVectors
    floor: HardwareLimits
    search: Annotated[list[GpuBatch], Field(min_length=1)]
    masked: list[MaskedBatch]
    memory: list[GpuPeak]
    not_measured: dict[str, str]

    @property
    def peers(self) -> list[str]:
        """Everybody of `CONTESTANTS` who was there."""
        return [name for name in CONTESTANTS if any(row.median_ms(name) is not None for row in self.search)]

    @property
    def file_name(self) -> str:
        """``bench-gpu-h200.json``; ``-text`` of texts, ``-cuvs`` or ``-flashlib`` where there were; see `k_part`."""
        made = ("-text" if self.data.spectrum == "text" else "") + self.data.k_part
        beside = [name for name, peer in (("cuvs", "cuvs_float32"), ("flashlib", "flashlib")) if peer in self.peers]
        return f"bench-gpu-{self.device}{made}{''.join(f'-{name}' for name in beside)}.json"


GPU_RESULTS: TypeAdapter[GpuResults] = TypeAdapter(GpuResults)
