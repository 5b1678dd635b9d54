"""One pass of a fused search: the title vectors on the GPU, the work buffers, and the kernels in order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import DeviceError, MissingPackageError
from semrec_faiss.index.fused.codes import TitleCodes, encode
from semrec_faiss.index.fused.plan import (
    MANY_QUERIES,
    FusedPlan,
    code_bytes,
    code_rows,
    code_width,
    keeps_codes,
    power_of_two,
)

UPLOAD_BYTES = 64 << 20

LEAST_SCALED_LENGTH = 2.0**-60
"""Beside a vector of length 1, components of one so short may be less than a float32 holds, times a query's."""

INSTALL = "pip install 'semrec-faiss[gpu]', or set device.kind=cpu"


def load_torch() -> Any:
    """Import torch and Triton.

    Raises:
        MissingPackageError: one of them is missing or does not load.
    """
    try:
        import torch
        import triton
    except (ImportError, OSError) as error:
        raise MissingPackageError(f"type fused needs torch and triton: {error}", fix=INSTALL) from error
    del triton
    return torch


@dataclass(frozen=True)
class GpuTitles:
    """The title vectors as a fused search keeps them.

    Attributes:
        halves: float16 (titles, dim), the vectors times ``scale``, rounded.
        originals: float32 (titles, dim), or None where rescoring is done with the halves.
        scale: a power of two that brings the longest vector to a length of at most 1.
        norm: the largest length of a rounded vector.
        error: the largest length of a scaled vector's rounding residual.
        wide: whether lengths differ by so much that a scaled float32 may vanish, so that nothing can be proven.
        codes: int8 codes of the scaled vectors, where there are so many that small batches gain by them.
    """

    halves: Any
    originals: Any
    scale: float
    norm: float
    error: float
    wide: bool = False
    codes: TitleCodes | None = None

    @property
    def count(self) -> int:
        """The number of titles."""
        return int(self.halves.shape[0])

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.halves.shape[1])

    @property
    def bytes(self) -> int:
        """GPU memory of the vectors."""
        kept = int(self.halves.nbytes)
        kept += 0 if self.originals is None else int(self.originals.nbytes)
        return kept + (0 if self.codes is None else self.codes.bytes)


def upload_titles(vectors: Vectors, device: Any, *, keep_originals: bool) -> GpuTitles:
    """Copy title vectors to a GPU in blocks and round them.

    Args:
        vectors: float32 (titles, dim).
        device: a torch device.
        keep_originals: whether the float32 vectors stay there too, and of many titles int8 codes: 6 or 7 bytes a
            component in all instead of 2.

    Raises:
        DeviceError: they do not fit the GPU's memory.
    """
    torch = load_torch()
    coded = keep_originals and keeps_codes(len(vectors), "float32")
    try:
        halves = torch.empty(vectors.shape, dtype=torch.float16, device=device)
        originals = torch.empty(vectors.shape, dtype=torch.float32, device=device) if keep_originals else None
        longest, shortest = 0.0, math.inf
        for part in _parts(vectors):
            block = as_tensor(vectors[part]).to(device)
            lengths = torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)
            longest = max(longest, float(lengths.max()))
            shortest = min(shortest, float(torch.where(lengths > 0, lengths, math.inf).min()))
            if originals is not None:
                originals[part] = block
        scale = 2.0 ** -min(max(math.ceil(math.log2(longest)), -126), 126) if longest > 0 else 1.0
        norm = error = 0.0
        for part in _parts(vectors):
            block = as_tensor(vectors[part]) if originals is None else originals[part]
            scaled = block.to(device) * scale
            halves[part] = scaled.half()
            rounded = halves[part].float()
            norm = max(norm, float(torch.linalg.vector_norm(rounded, dim=1).max()))
            error = max(error, float(torch.linalg.vector_norm(scaled - rounded, dim=1).max()))
        wide = longest > 0 and shortest * scale < LEAST_SCALED_LENGTH
        codes = encode(torch, originals, scale, _parts(vectors)) if coded and not wide else None
    except torch.cuda.OutOfMemoryError as problem:
        torch.cuda.empty_cache()
        wanted = vectors.size * (6 if keep_originals else 2) + coded * code_bytes(*vectors.shape)
        raise DeviceError(
            f"the {len(vectors)} titles need {wanted / 2**30:.1f} GiB on {device}, which has not as much free",
            fix="set index.search.rescore=float16 for a third of it, take type ivf_pq, or set device.kind=cpu",
        ) from problem
    return GpuTitles(halves, originals, scale, 1.00001 * norm, 1.00001 * error, wide, codes)


def as_tensor(array: NDArray[Any]) -> Any:
    """Give an array to torch, which warns of one that it may not write to, such as a mapped file's."""
    array = np.ascontiguousarray(array)
    return load_torch().from_numpy(array if array.flags.writeable else array.copy())


def _parts(vectors: Vectors) -> Iterable[slice]:
    step = max(1, UPLOAD_BYTES // (4 * vectors.shape[1]))
    return (slice(start, start + step) for start in range(0, len(vectors), step))


class FusedPass:
    """Buffers for up to a number of queries and the kernels over them; one thread at a time."""

    def __init__(self, titles: GpuTitles, plan: FusedPlan, queries: int, k: int) -> None:
        """Allocate the buffers of a block of ``queries`` for ``k`` titles each."""
        torch = load_torch()
        from triton.tools.tensor_descriptor import TensorDescriptor

        device = titles.halves.device

        def empty(*shape: int, dtype: Any) -> Any:
            return torch.empty(shape, dtype=dtype, device=device)

        self.titles, self.plan, self.k = titles, plan, k
        self._chunks = plan.chunks(titles.count)
        members = 2 * plan.span
        self.rounded = empty(queries, titles.dim, dtype=torch.float16)
        self.scaled = empty(queries, titles.dim, dtype=torch.float32)
        self.bounds = empty(queries, 3, dtype=torch.float32)
        self.maxima = empty(queries, self._chunks, dtype=torch.float16)
        self.listed = empty(queries, plan.segments, plan.capacity, dtype=torch.int32) if plan.segments > 1 else None
        self.chosen = empty(queries, plan.capacity, dtype=torch.int32)
        self.dropped = empty(queries, plan.segments + 1 + (plan.segments > 1), dtype=torch.float32)
        self.candidates = empty(queries, plan.capacity * members, dtype=torch.float16)
        self.picked = empty(queries, plan.picks, dtype=torch.int32)
        self._keys = empty(queries, plan.picks, dtype=torch.int64)
        self.answers = empty(queries * (12 * k + 1), dtype=torch.uint8)
        self.rows, self.scores, self.proven = answers_in(self.answers, queries, k)
        self.codes = self.code_factors = None
        if plan.planes:
            shape = (code_rows(queries, plan.planes), code_width(titles.dim))
            self.codes = torch.zeros(shape, dtype=torch.int8, device=device)
            self.code_factors = empty(queries, 3, dtype=torch.float32)
        both = (self.codes, titles.codes.codes) if titles.codes and plan.planes else (self.rounded, titles.halves)
        tiles = ([plan.tile_queries, plan.tile_dim], [plan.tile_titles, plan.tile_dim])
        self._query_tiles, self._title_tiles = map(TensorDescriptor.from_tensor, both, tiles)

    def run(self, queries: Any, allowed: Any = None, allowed_stride: int = 0) -> None:
        """Search; the answers are in ``scores``, ``rows`` and ``proven`` when the GPU has come to the end of it.

        Args:
            queries: float32 (queries, dim) on the GPU, at most as many as there are buffers for.
            allowed: int32 bitmap of the rows that may be returned, `fused_plan.bitmap_words` words for each query, or
                once for all with ``allowed_stride`` 0.
            allowed_stride: words from one query's bitmap to the next one's.
        """
        self._score(queries, allowed, allowed_stride)
        self._select(len(queries))
        self._rescore(len(queries), allowed, allowed_stride)

    def resume(self, earlier: FusedPass, which: Any, allowed: Any = None, allowed_stride: int = 0) -> None:
        """Search some of an earlier pass's queries again; of the titles' scores the maxima that it left are enough.

        Args:
            earlier: a pass over the same titles with chunks of the same size, just run.
            which: int64, on the GPU, as many of its queries as there are buffers for.
            allowed, allowed_stride: what it was run with.
        """
        torch = load_torch()
        kept = ("rounded", "scaled", "bounds", "maxima")
        for mine, its in ((getattr(self, name), getattr(earlier, name)) for name in kept):
            torch.index_select(its, 0, which, out=mine)
        if allowed_stride:
            allowed = allowed.index_select(0, which)
        self._select(len(which))
        self._rescore(len(which), allowed, allowed_stride)

    def _score(self, queries: Any, allowed: Any, allowed_stride: int) -> None:
        import triton

        from semrec_faiss.index.fused import kernels

        plan, titles, count = self.plan, self.titles, len(queries)
        codes = titles.codes if plan.planes else None
        kernels.prepare_queries[(count,)](
            queries, self.rounded, self.scaled, self.bounds, self.codes, self.code_factors,
            titles.dim, code_width(titles.dim), titles.norm, titles.error, codes.norm if codes else 0.0,
            3.0 * titles.dim * 2.0**-23, PLANES=plan.planes, D_BLOCK=128, num_warps=1,
        )  # fmt: skip
        queries_a_tile = plan.tile_queries // max(1, plan.planes)
        grid = (triton.cdiv(count, queries_a_tile) * triton.cdiv(titles.count, plan.tile_titles),)
        mask = (self.bounds if allowed is None else allowed, self.maxima)
        sizes = (count, titles.count, titles.dim, self._chunks, allowed_stride)
        options = {
            "MASKED": allowed is not None, "SHARED": allowed_stride == 0, "SPAN": plan.span, "BM": plan.tile_queries,
            "BN": plan.tile_titles, "BK": plan.tile_dim, "GROUP": plan.group, "num_warps": plan.warps,
            "num_stages": plan.stages,
        }  # fmt: skip
        if codes is None:
            kernels.chunk_maxima[grid](self._query_tiles, self._title_tiles, *mask, *sizes, **options)
            return
        from semrec_faiss.index.fused.code_kernels import coded_chunk_maxima

        its = (codes.steps, codes.rests, self.code_factors)
        coded_chunk_maxima[grid](
            self._query_tiles, self._title_tiles, *its, *mask, *sizes, PLANES=plan.planes, **options
        )

    def _select(self, count: int) -> None:
        """List the chunks to rescore: of every segment first, where there are several, and then of what they list."""
        plan = self.plan
        length = -(-self._chunks // plan.segments)
        if self.listed is None:
            self._largest(self.maxima, None, length, plan.keep, self.chosen, 0, count)
            return
        self._largest(self.maxima, None, length, plan.keep, self.listed, 0, count)
        through = plan.segments * plan.capacity
        self._largest(self.maxima, self.listed, through, plan.keep, self.chosen, plan.segments, count)

    def _largest(
        self, values: Any, through: Any, length: int, keep: int, chosen: Any, dropped_at: int, count: int
    ) -> None:
        from semrec_faiss.index.fused import kernels

        segments = self.plan.segments if chosen is self.listed else 1
        width = min(self.plan.width, power_of_two(length))
        kernels.select_largest[(segments, count)](
            values, values.shape[1], values if through is None else through, length, keep, chosen,
            self.dropped[:, dropped_at:], self.dropped.shape[1], THROUGH=through is not None,
            WIDTH=width, CAPACITY=chosen.shape[-1], num_warps=1 if count > MANY_QUERIES else min(4, _warps(width)),
        )  # fmt: skip

    def _rescore(self, count: int, allowed: Any, allowed_stride: int) -> None:
        from semrec_faiss.index.fused import kernels

        plan, titles = self.plan, self.titles
        members = plan.capacity * 2 * plan.span
        kernels.rescore_chunks[(members // plan.rescore_rows, count)](
            self.rounded, titles.halves, self.bounds if allowed is None else allowed, self.chosen, self.candidates,
            titles.count, titles.dim, allowed_stride, MASKED=allowed is not None, SPAN=plan.span,
            CAPACITY=plan.capacity, ROWS=plan.rescore_rows, BK=128, num_warps=4,
        )  # fmt: skip
        last = self.dropped.shape[1] - 1
        self._largest(self.candidates, None, members, plan.keep_rows, self.picked, last, count)
        exact = titles.originals is not None
        kernels.rescore_rows[(count,)](
            self.scaled, titles.originals if exact else titles.halves, self.chosen, self.picked, self.bounds,
            self.dropped, self._keys, self.scores, self.rows, self.proven, titles.dim, self.dropped.shape[1], self.k,
            titles.scale if exact else 1.0, 1.0 / titles.scale, SPAN=plan.span, CAPACITY=plan.capacity,
            PICKS=plan.picks, DROPPED=power_of_two(self.dropped.shape[1]), BK=128 if plan.picks <= 64 else 32,
            num_warps=_warps(plan.picks),
        )  # fmt: skip


def answers_in(buffer: Any, queries: int, k: int) -> tuple[Any, Any, Any]:
    """Lay rows, scores and proofs over one buffer of bytes, so that a single copy moves them.

    Returns:
        Views: int64 (queries, k), float32 (queries, k), int8 (queries,).
    """
    torch = load_torch()
    rows, scores, proven = buffer.split([8 * queries * k, 4 * queries * k, queries])
    return rows.view(torch.int64).view(queries, k), scores.view(torch.float32).view(queries, k), proven.view(torch.int8)


def _warps(elements: int) -> int:
    """Return as many warps as have an element each: Triton sorts wrongly what several warps hold copies of."""
    return max(1, min(8, elements // 32))
