"""How much memory an index will take, computed from its config and size before anything is built or loaded.

`semrec memory CONFIG --measure` holds these predictions against a run. Bytes of vectors, codes, ids and links follow
from FAISS's storage formats; the few constants are what FAISS allocates whatever the index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from semrec_faiss.config.index_types import FactoryIndex, FlatIndex, FusedIndex, IndexConfig
from semrec_faiss.errors import ConfigError
from semrec_faiss.index.cpu.exact import GATHER_BYTES
from semrec_faiss.index.cpu.few import column_bytes, suits
from semrec_faiss.index.cpu.lists import COARSE_QUERIES
from semrec_faiss.index.cpu.products import multiplies_by_numpy, numpy_bytes
from semrec_faiss.index.factory import resolve
from semrec_faiss.index.faiss_index import QUERY_BLOCK_ROWS
from semrec_faiss.index.fused.blocks import in_blocks
from semrec_faiss.index.fused.plan import GRAPH_BYTES, keeps_codes, through_codes
from semrec_faiss.index.fused.room import Kept, copy_width, query_bytes
from semrec_faiss.index.hardware.device import BLAS_QUERY_BLOCK, BLAS_TITLE_BLOCK, Device, load_faiss
from semrec_faiss.index.memory.parts import MemoryParts
from semrec_faiss.index.memory.stored_bytes import (
    FLOAT_BYTES,
    ROW_BYTES,
    Stored,
    bound_width,
    gpu_flat,
    gpu_fused,
    gpu_lists,
    lists_of,
)

RESULT_BYTES = FLOAT_BYTES + ROW_BYTES
"""Of one result: a float32 score and an int64 row."""

GPU_TEMP_BYTES = 1536 << 20
"""What StandardGpuResources sets aside on a GPU of more than 8 GiB unless it is told otherwise."""

GPU_PINNED_BYTES = 256 << 20
"""Page-locked host memory of the same object."""

PROGRAM_BYTES = 4 << 20
"""Code, tables and buffers in the process that opening and searching any index touches for the first time.

Read were 2 to 6 MB, as machines and wheels differ."""

SEARCH_BYTES = 3 << 19
"""And what any search touches: thread stacks, tables of results."""

CUDA_CONTEXT_BYTES = 512 << 20
"""A CUDA context with FAISS's kernels, and cuBLAS's handle and work space. It varies with the GPU and the driver, so
`predict_memory` takes the machine's own figure where that is known."""

TORCH_BYTES = 82 << 20
"""Torch's and Triton's kernels in the context of a GPU that type fused searches on, of an H200 as read there."""

RECORDED_BYTES = 72 << 20
"""What CUDA takes for recording the first batch, of an H200 as read there."""

MOST_TITLES = 1 << 40
"""Where the search for the largest catalogue ends."""


@dataclass(frozen=True)
class MemoryPrediction:
    """What an index of some size takes.

    Attributes:
        titles: how many.
        dim: dimensions of a vector.
        batch: queries searched at once.
        k: titles returned per query.
        host: the process's memory beyond Python and FAISS themselves.
        gpu: each GPU's memory; None where the search runs on the CPU.
        kept: how type fused keeps there what proves answers; None for others. Where queries turn out unlike titles, so
            that bounds do not help, it takes copies in their place, with codes where these have room.
    """

    titles: int
    dim: int
    batch: int
    k: int
    host: MemoryParts
    gpu: MemoryParts | None = None
    kept: Kept | None = None

    @property
    def searched(self) -> MemoryParts:
        """The memory that the search runs in, which is the one to run out first."""
        return self.gpu or self.host

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON has it."""
        shape = {"titles": self.titles, "dim": self.dim, "batch": self.batch, "k": self.k}
        return shape | {"host": self.host.as_dict(), "gpu": None if self.gpu is None else self.gpu.as_dict()}


def predict_memory(
    index: IndexConfig,
    titles: int,
    dim: int,
    device: Device | None = None,
    *,
    batch: int = 1,
    k: int = 10,
    context_bytes: int = CUDA_CONTEXT_BYTES,
    threads: int | None = None,
    float16_titles: bool = False,
    limit_bytes: int | None = None,
) -> MemoryPrediction:
    """Predict what searching an index takes; nothing is built, loaded or allocated.

    Args:
        index: the index section of a config; autos are resolved for ``titles``.
        titles: how many.
        dim: dimensions of a vector.
        device: where it is searched; several GPUs share the titles, unless as replicas. What is left to type fused, it
            takes as it does itself: replicas, and originals on the GPU, where they fit ``limit_bytes``. The CPU by
            default.
        batch: queries searched at once.
        k: titles returned per query.
        context_bytes: what a CUDA context takes on the GPU in question, where that is known.
        threads: with which FAISS searches on a CPU; as many as it takes by itself by default.
        float16_titles: whether the titles came as float16, of which type fused needs no originals beside.
        limit_bytes: the memory of a GPU; None for enough.

    Raises:
        ConfigError: settings that do not fit so many titles of that dimension.
    """
    device = device or Device()
    resolved = resolve(index, titles, dim)
    stored = Stored.of(resolved, titles, dim)
    if not device.gpus:
        faiss = load_faiss()  # also where `threads` are given: whose product is faster is asked of both libraries
        host = _on_cpu(resolved, stored, titles, dim, batch, k, threads or int(faiss.omp_get_max_threads()))
        return MemoryPrediction(titles, dim, batch, k, host)
    # The CPU index that is saved and that exact vectors come from stays in the process.
    host = MemoryParts(
        stored.vectors,
        stored.structure,
        stored.originals,
        reserved=GPU_PINNED_BYTES + PROGRAM_BYTES,
        scratch=_rescoring(resolved, titles, dim, batch, k),
        batch=_batch_bytes(batch, dim, k),
    )
    if not (index.fits_gpu if isinstance(index, FactoryIndex) else index.runs_on_gpu):
        named = f"factory {index.factory!r}" if isinstance(index, FactoryIndex) else f"type {index.type}"
        raise ConfigError(f"{named} runs on CPU only", fix="set device.kind=cpu")
    kept: Kept | None = None
    if isinstance(resolved, FusedIndex):
        asked = (resolved, device, titles, dim, batch, k, context_bytes, limit_bytes)
        on_gpu, kept = _fused_on_gpus(*asked, float16_titles=float16_titles)
        host = replace(host, locked=FLOAT_BYTES * titles * dim if kept == "host" else 0)
    else:
        share = titles if device.layout == "replicas" else _shared(titles, device)
        on_gpu = _on_gpu(resolved, share, dim, device, batch, k, context_bytes)
    return MemoryPrediction(titles, dim, batch, k, host, on_gpu, kept)


def _shared(titles: int, device: Device) -> int:
    """How many titles the fullest of several GPUs has."""
    return -(-titles // len(device.gpus))


def _fused_on_gpus(
    index: FusedIndex,
    device: Device,
    titles: int,
    dim: int,
    batch: int,
    k: int,
    context_bytes: int,
    limit_bytes: int | None,
    *,
    float16_titles: bool,
) -> tuple[MemoryParts, Kept]:
    """Return what type fused takes of each GPU, the first way that fits, and where originals are then."""
    choices = _fused_choices(index, device, titles, dim, float16_titles=float16_titles)
    predicted = [(_fused_on_gpu(index, kept, share, dim, batch, k, context_bytes), kept) for share, kept in choices]
    fitting = (one for one in predicted if limit_bytes is None or one[0].peak <= limit_bytes)
    return next(fitting, predicted[-1])


def _fused_choices(
    index: FusedIndex, device: Device, titles: int, dim: int, *, float16_titles: bool
) -> list[tuple[int, Kept]]:
    """List how type fused may lie on GPUs, titles on each and what proves answers, as it prefers them.

    Where layout and originals are both left open, GPUs share the titles before originals go to the host.
    """
    kept: tuple[Kept, ...] = ("gpu", "host") if device.originals == "auto" else (device.originals,)
    if index.search.rescore == "float16":
        kept = ("none",)
    elif float16_titles:
        kept = ("halves",) if bound_width(index, titles, dim) is None else ("bounded", "uncoded", "halves")
    shards = [(_shared(titles, device), its) for its in kept]
    if device.layout == "shards":
        return shards
    if device.layout == "replicas":
        return [(titles, its) for its in kept]
    return [*((titles, its) for its in kept if its != "host" or kept == ("host",)), *shards]


def largest_catalogue(
    index: IndexConfig,
    dim: int,
    limit_bytes: int,
    device: Device | None = None,
    *,
    batch: int = 1,
    k: int = 10,
    context_bytes: int = CUDA_CONTEXT_BYTES,
    float16_titles: bool = False,
) -> int:
    """Return the most titles whose predicted peak stays within ``limit_bytes`` of the memory that is searched in.

    Returns:
        0 where not even an empty index leaves room for the search, or no number of titles suits the settings.
    """

    def peak(titles: int) -> int | None:
        try:
            predicted = predict_memory(
                index,
                titles,
                dim,
                device,
                batch=batch,
                k=k,
                context_bytes=context_bytes,
                float16_titles=float16_titles,
                limit_bytes=limit_bytes,
            )
        except ConfigError:  # too few titles for these settings: fewer than fit
            return None
        return predicted.searched.peak

    fits, too_many = 0, MOST_TITLES
    while fits + 1 < too_many:
        middle = (fits + too_many) // 2
        needed = peak(middle)
        fits, too_many = (middle, too_many) if needed is None or needed <= limit_bytes else (fits, middle)
    needed = peak(fits) if fits else None
    return fits if needed is not None and needed <= limit_bytes else 0


def _batch_bytes(batch: int, dim: int, k: int) -> int:
    """The queries as float32, the results, and those of the block that FAISS is given."""
    return FLOAT_BYTES * batch * dim + RESULT_BYTES * k * (batch + min(batch, QUERY_BLOCK_ROWS))


def _rescoring(index: IndexConfig, titles: int, dim: int, batch: int, k: int) -> int:
    """Candidates' vectors, gathered block by block as float32."""
    refine = getattr(index.search, "refine", None) or 0
    candidates = min(batch, QUERY_BLOCK_ROWS) * min(refine * k, titles)
    if not candidates:
        return 0
    vector = FLOAT_BYTES * dim
    at_once = min(candidates, GATHER_BYTES // vector)
    distinct = round(titles * -math.expm1(-at_once / titles))
    return vector * (at_once + distinct) + RESULT_BYTES * candidates


def _on_cpu(index: IndexConfig, stored: Stored, titles: int, dim: int, batch: int, k: int, threads: int) -> MemoryParts:
    block, nlist = min(batch, QUERY_BLOCK_ROWS), lists_of(index)
    if isinstance(index, FlatIndex | FusedIndex) and batch == 1:
        scratch = FLOAT_BYTES * titles  # scores of one matrix-vector product
    elif isinstance(index, FlatIndex | FusedIndex):
        scratch = _product_bytes(titles, dim, block, k, threads)
    else:
        # Every thread has a tile of its own of scores between queries and centroids.
        tiles = FLOAT_BYTES * min(block, COARSE_QUERIES, threads * BLAS_QUERY_BLOCK) * min(nlist, BLAS_TITLE_BLOCK)
        visited = RESULT_BYTES * block * int(getattr(index.search, "nprobe", None) or 0)
        scratch = tiles + visited + _rescoring(index, titles, dim, batch, k)
    return MemoryParts(
        stored.vectors,
        stored.structure,
        stored.originals,
        reserved=PROGRAM_BYTES,
        scratch=SEARCH_BYTES + scratch,
        batch=_batch_bytes(batch, dim, k),
    )


def _product_bytes(titles: int, dim: int, queries: int, k: int, threads: int) -> int:
    """Scores of a tile of the product, or what numpy's takes; few titles stay as columns beside."""
    if suits(queries, k, titles, dim):
        return column_bytes(titles, dim) + FLOAT_BYTES * queries * titles
    if multiplies_by_numpy(queries, k, titles):
        return numpy_bytes(queries, k, titles, dim, threads)
    return FLOAT_BYTES * min(queries, BLAS_QUERY_BLOCK) * min(titles, BLAS_TITLE_BLOCK)


def _fused_on_gpu(
    index: FusedIndex, kept: Kept, titles: int, dim: int, batch: int, k: int, context_bytes: int
) -> MemoryParts:
    """Of type fused, which takes nothing of FAISS's: no scratch space, no norms."""
    bounds = None if kept == "halves" else bound_width(index, titles, dim)
    width, screened = bounds or copy_width(dim), bounds is not None
    block, lanes = in_blocks(titles, width, batch, k, "none", screened=screened)
    lanes = min(lanes, -(-batch // block))
    coded = (
        kept not in ("uncoded", "none")
        and keeps_codes(titles, "float32")
        and through_codes(titles, block, k, screened=screened)
    )
    asked = (titles, width, block, k)
    work = block * max(query_bytes(*asked, "none", coded=read, screened=screened) for read in {False, coded})
    work += FLOAT_BYTES * block * dim
    recorded = RECORDED_BYTES + work if work <= GRAPH_BYTES else 0  # beside the buffers of the first such block
    context = context_bytes + TORCH_BYTES
    return MemoryParts(gpu_fused(index, titles, dim, kept), context=context, scratch=lanes * (work + recorded))


def _on_gpu(
    index: IndexConfig, titles: int, dim: int, device: Device, batch: int, k: int, context_bytes: int
) -> MemoryParts:
    nlist = lists_of(index)
    if nlist:
        vectors, structure = gpu_lists(index, nlist, titles, dim)
    else:
        vectors, structure = gpu_flat(titles, dim, device)
    temp = GPU_TEMP_BYTES if device.temp_memory_mb is None else device.temp_memory_mb << 20
    # Queries, results and tiles of scores are cut from the scratch space; what does not fit is allocated beside it.
    batch_bytes = _batch_bytes(min(batch, QUERY_BLOCK_ROWS), dim, k)
    beyond = max(0, batch_bytes - temp)
    return MemoryParts(vectors, structure, context=context_bytes, reserved=temp, batch=beyond)
