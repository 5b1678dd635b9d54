"""Titles on their way to a GPU: found out as what they came, rounded, projected, coded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.plan import keeps_codes
from semrec_faiss.index.fused.room import Kept, code_bytes, copy_width, title_bytes, work_bytes
from semrec_faiss.index.fused.titles.as_halves import halves_of
from semrec_faiss.index.fused.titles.codes import PIECES_ROWS, choose_cut, encode
from semrec_faiss.index.fused.titles.gpu_titles import GpuTitles, as_tensor, load_torch
from semrec_faiss.index.screening.spectrum import width_of

UPLOAD_BYTES = 64 << 20

HALF_UP, LEAST_HALF = 1.001, 2.0**-23
"""What brings a number to a float16 that is not below it, once rounded."""

MOST_UNEVEN = 2.0**-11
"""How far copies may be from the titles, of the longest's length, to be scored as they are: as far as rounding brings
a float16 copy of a component."""

ROUNDED_LENGTH = 2.0**-20
"""By so much, as a power of two, a length may exceed 1 for rounding: that of vectors of unit length does."""

LEAST_SCALED_LENGTH = 2.0**-60
"""Beside a vector of length 1, components of one so short may be less than a float32 holds, times a query's."""

PROBES = 32
"""Titles, and means of three, that stand for queries where it is chosen of how many directions codes are."""


def upload_titles(
    vectors: Vectors,
    device: Any,
    *,
    keep_originals: bool,
    directions: NDArray[np.float64] | None = None,
    on_host: Callable[[], Any] | None = None,
) -> GpuTitles:
    """Copy title vectors to a GPU in blocks and round them.

    Args:
        vectors: float32 (titles, dim).
        device: a torch device.
        keep_originals: whether the float32 vectors are kept too, and of many titles int8 codes. Titles that came as
            float16 are kept as that, and 8 bytes each.
        directions: float64 (kept, dim): keep bounds along these instead of float16 copies, unless the titles came as
            float16 and there is no room for bounds beside them.
        on_host: page-locks the float32 vectors, where they are not to be copied to the GPU.

    Raises:
        DeviceError: they do not fit the GPU's memory.
    """
    torch = load_torch()
    try:
        found = _as_they_came(torch, vectors, device) if keep_originals else None
        titles = found or _rounded(torch, vectors, device, directions, keep_originals=keep_originals, on_host=on_host)
        if found is not None and directions is not None and not found.wide:
            titles = _with_bounds(torch, found, directions)
        if keep_originals and not titles.wide and _takes_codes(torch, titles):
            titles = _with_codes(torch, titles)
    except torch.cuda.OutOfMemoryError as problem:
        torch.cuda.empty_cache()
        kept: Kept = "none" if not keep_originals else "gpu" if on_host is None else "host"
        needed = title_bytes(len(vectors), vectors.shape[1], kept) / 2**30
        raise DeviceError(
            f"the {len(vectors)} titles need {needed:.1f} GiB on {device}, which has not as much free",
            fix="set device.originals=host for half of it or less, take type ivf_pq, or set device.kind=cpu",
        ) from problem
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the parts needed on the way
    return titles


def with_copies(titles: GpuTitles) -> GpuTitles:
    """Return titles with float16 copies in the place of bounds; raises torch's OutOfMemoryError."""
    torch, device = load_torch(), titles.halves.device
    if titles.factors is not None:
        lengths = _Lengths(torch)
        for part in _parts(titles.originals):
            lengths.add(titles.exact_vectors(part))
        copies = _of_halves(torch, titles.originals, titles.vector_dim, titles.factors, lengths)
        coded = keeps_codes(titles.count, "float32") and _has_room(torch, copies, code_bytes(copies.count, copies.dim))
        return _with_codes(torch, copies) if coded else copies
    halves = _copies(torch, titles.originals, device)
    norm, error = _fill(torch, halves, None, titles.exact_vectors, titles.scale)
    made = replace(titles, halves=halves, norm=norm, error=error, codes=None, directions=None)
    return made if titles.codes is None else _with_codes(torch, made)


def _with_bounds(torch: Any, titles: GpuTitles, directions: NDArray[np.float64]) -> GpuTitles:
    """Put bounds beside titles that came as float16; without room for them, and for blocks, return them as they are."""
    along = torch.from_numpy(np.ascontiguousarray(directions)).to(titles.halves.device)
    shape = (titles.count, width_of(len(directions)))
    if not _has_room(torch, titles, 2 * shape[0] * shape[1]):
        return titles
    halves = torch.empty(shape, dtype=torch.float16, device=titles.halves.device)
    norm, error = _fill(torch, halves, along, titles.exact_vectors, titles.scale)
    return replace(titles, halves=halves, originals=titles.halves, norm=norm, error=error, directions=along, even=False)


def _takes_codes(torch: Any, titles: GpuTitles) -> bool:
    """Tell whether int8 codes are kept: of many titles; beside bounds and float16 originals where there is room."""
    if not keeps_codes(titles.count, "float32"):
        return False
    if not (titles.screened and titles.factors is not None):
        return True
    return _has_room(torch, titles, code_bytes(titles.count, titles.dim))


def _has_room(torch: Any, titles: GpuTitles, needed: int) -> bool:
    """Tell whether a GPU has so much memory left beside two blocks of queries."""
    device = titles.halves.device
    if device.type != "cuda":
        return True
    torch.cuda.empty_cache()
    return bool(needed + 2 * work_bytes(titles.count, titles.vector_dim) <= torch.cuda.mem_get_info(device)[0])


def _with_codes(torch: Any, titles: GpuTitles) -> GpuTitles:
    parts = ((part, _coded_vectors(titles, part)) for part in _parts(titles.halves))
    cut = choose_cut(torch, titles.halves, _probes(titles)) if titles.screened else None
    return replace(titles, codes=encode(torch, titles.count, titles.dim, titles.halves.device, parts, cut))


def _probes(titles: GpuTitles) -> Any:
    """Take titles, and means of three of them, as queries: their coordinates, float32 (some, directions)."""
    torch, device = load_torch(), titles.halves.device
    rows = probed_rows(torch, titles.count)
    some = titles.originals_of(rows.to(device)).double()
    some = torch.cat([some[::2], some[1::2] + some[::2].roll(1, 0) + some[::2].roll(2, 0)])
    some /= torch.linalg.vector_norm(some, dim=1, keepdim=True).clamp_(min=1e-300)
    along = some @ titles.directions.T
    rest = (1.0 - (along * along).sum(dim=1, keepdim=True)).clamp_(min=0.0).sqrt()
    return torch.cat([along, rest], dim=1).float()


def probed_rows(torch: Any, count: int) -> Any:
    """Choose rows from the first to the last of so many, int64; float32 would not tell the last from the one after."""
    return torch.arange(2 * PROBES) * (count - 1) // (2 * PROBES - 1)


def _coded_vectors(titles: GpuTitles, part: slice) -> Any:
    return titles.halves[part].float() if titles.screened else titles.exact_vectors(part) * titles.scale


def _fill(torch: Any, halves: Any, along: Any, vectors_of: Callable[[slice], Any], scale: float) -> tuple[float, float]:
    """Round vectors, times ``scale``; return the largest length of what they became, and of what that has lost."""
    norm = error = 0.0
    for part in _parts(halves):
        lost = _round(torch, vectors_of(part) * scale, halves[part], along)
        norm = max(norm, float(torch.linalg.vector_norm(halves[part].float(), dim=1).max()))
        error = max(error, float(lost.max()))
    return 1.00001 * norm, 1.00001 * error


def _round(torch: Any, scaled: Any, into: Any, along: Any) -> Any:
    """Round scaled vectors to float16, or to bounds, see `semrec_faiss.index.screening`; return what that has lost."""
    if along is None:
        own = into[:, : scaled.shape[1]]
        own[:] = scaled.half()
        return torch.linalg.vector_norm(scaled - own.float(), dim=1)
    exact = scaled.double() @ along.T
    into.zero_()
    into[:, : len(along)] = exact.half()
    rounded = into[:, : len(along)].double()
    rest = torch.linalg.vector_norm(scaled.double() - rounded @ along, dim=1)
    into[:, len(along)] = (rest * HALF_UP + LEAST_HALF).half()
    return torch.linalg.vector_norm(exact - rounded, dim=1) + 1e-9


def _copies(torch: Any, vectors: Any, device: Any) -> Any:
    """Make room for float16 copies of vectors, with zeros where they are wider."""
    titles, dim = vectors.shape
    halves = torch.empty((titles, copy_width(dim)), dtype=torch.float16, device=device)
    halves[:, dim:] = 0
    return halves


def _as_they_came(torch: Any, vectors: Vectors, device: Any) -> GpuTitles | None:
    """Upload titles as the float16 that they came as; None where they did not, or are none, as a shard's may be."""
    if not len(vectors):
        return None
    halves, dim = _copies(torch, vectors, device), vectors.shape[1]
    factors = torch.empty(len(vectors), dtype=torch.float64, device=device)
    lengths = _Lengths(torch)
    for part in _parts(vectors):
        block = as_tensor(vectors[part]).to(device)
        found = halves_of(torch, block, probed=part.start > 0)
        if found is None:
            return None
        halves[part, :dim], factors[part] = found
        lengths.add(block)
    return _of_halves(torch, halves, dim, factors, lengths)


def _of_halves(torch: Any, halves: Any, dim: int, factors: Any, lengths: _Lengths) -> GpuTitles:
    """Return titles as they came, whose copies are their originals."""
    scale = lengths.scale
    norm = 1.00001 * lengths.longest * scale
    titles = GpuTitles(halves, None, dim, scale, norm, 2.0**-23 * norm, lengths.wide, factors=factors)
    apart = norm * max(abs(1.0 / (scale * float(end)) - 1.0) for end in torch.aminmax(factors))
    if apart > MOST_UNEVEN * norm:
        return titles
    return replace(titles, even=True, norm=norm + apart, error=titles.error + 1.00001 * apart)


def _rounded(
    torch: Any,
    vectors: Vectors,
    device: Any,
    directions: NDArray[np.float64] | None,
    *,
    keep_originals: bool,
    on_host: Callable[[], Any] | None,
) -> GpuTitles:
    along = None if directions is None else torch.from_numpy(np.ascontiguousarray(directions)).to(device)
    if along is None:
        halves = _copies(torch, vectors, device)
    else:
        halves = torch.empty((len(vectors), width_of(len(along))), dtype=torch.float16, device=device)
    originals = None
    if keep_originals:
        originals = on_host() if on_host else torch.empty(vectors.shape, dtype=torch.float32, device=device)
    lengths = _Lengths(torch)
    for part in _parts(vectors):
        block = as_tensor(vectors[part]).to(device)
        lengths.add(block)
        if originals is not None and on_host is None:
            originals[part] = block
    scale = lengths.scale

    def vectors_of(part: slice) -> Any:
        return (as_tensor(vectors[part]) if originals is None else originals[part]).to(device)

    norm, error = _fill(torch, halves, along, vectors_of, scale)
    return GpuTitles(halves, originals, vectors.shape[1], scale, norm, error, lengths.wide, directions=along)


class _Lengths:
    """The longest and the shortest of some vectors, all-zero ones aside."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.longest, self.shortest = 0.0, math.inf

    def add(self, block: Any) -> None:
        lengths = self._torch.linalg.vector_norm(block, dim=1, dtype=self._torch.float64)
        self.longest = max(self.longest, float(lengths.max()))
        self.shortest = min(self.shortest, float(self._torch.where(lengths > 0, lengths, math.inf).min()))

    @property
    def scale(self) -> float:
        """See `GpuTitles`; a length of 1 may be a little more for rounding."""
        return (
            2.0 ** -min(max(math.ceil(math.log2(self.longest) - ROUNDED_LENGTH), -126), 126)
            if self.longest > 0
            else 1.0
        )

    @property
    def wide(self) -> bool:
        return self.longest > 0 and self.shortest * self.scale < LEAST_SCALED_LENGTH


def rows_at_once(dim: int) -> int:
    """Return how many titles are copied together, whole pieces of codes."""
    return max(1, UPLOAD_BYTES // (4 * dim * PIECES_ROWS)) * PIECES_ROWS


def _parts(vectors: Vectors) -> Iterable[slice]:
    step = rows_at_once(int(vectors.shape[1]))
    return (slice(start, start + step) for start in range(0, len(vectors), step))
