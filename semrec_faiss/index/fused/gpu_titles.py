"""The title vectors as they lie on a GPU: uploaded, rounded, coded; and some of them gathered together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.errors import DeviceError, MissingPackageError
from semrec_faiss.index.fused.codes import TitleCodes, encode
from semrec_faiss.index.fused.plan import code_bytes, keeps_codes
from semrec_faiss.index.screening.spectrum import width_of

UPLOAD_BYTES = 64 << 20

HALF_UP, LEAST_HALF = 1.001, 2.0**-23
"""What brings a number to a float16 that is not below it, once rounded."""

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
        halves: float16 (titles, dim), the vectors times ``scale``, rounded; or bounds, see ``directions``.
        originals: float32 (titles, dim), or None where rescoring is done with the halves.
        scale: a power of two that brings the longest vector to a length of at most 1.
        norm: the largest length of a rounded vector.
        error: the largest length of a scaled vector's rounding residual; of bounds its part along the directions.
        wide: whether lengths differ by so much that a scaled float32 may vanish, so that nothing can be proven.
        codes: int8 codes of the scaled vectors, where there are so many that small batches gain by them.
        origins: int32 (titles,), ascending: where these are some of a larger catalogue, which rows of it; ``originals``
            are then the whole catalogue's. None where they are all.
        directions: float64 (kept, `vector_dim`), orthonormal: ``halves`` are then coordinates along them and the length
            of the rest, `width_of` wide, whose inner products are bounds of scores. None where they are scores.
    """

    halves: Any
    originals: Any
    scale: float
    norm: float
    error: float
    wide: bool = False
    codes: TitleCodes | None = None
    origins: Any = None
    directions: Any = None

    @property
    def count(self) -> int:
        """The number of titles."""
        return int(self.halves.shape[0])

    @property
    def dim(self) -> int:
        """Dimensions of a copy, or the width of a bound."""
        return int(self.halves.shape[1])

    @property
    def vector_dim(self) -> int:
        """Dimensions of a vector."""
        return self.dim if self.directions is None else int(self.directions.shape[1])

    @property
    def screened(self) -> bool:
        """Whether scores of copies are bounds."""
        return self.directions is not None

    @property
    def bytes(self) -> int:
        """GPU memory of the vectors; of gathered ones that of the copies alone."""
        kept = int(self.halves.nbytes) + (0 if self.codes is None else self.codes.bytes)
        beside = self.originals if self.origins is None else self.origins
        return kept + (0 if beside is None else int(beside.nbytes))

    def gather(self, rows: Any) -> GpuTitles:
        """Copy some titles together: their float16 copies and, of many, their codes.

        The originals stay where they are, and answers have the rows of the whole catalogue.

        Args:
            rows: int32 (some,), ascending, on the GPU; at least one.
        """
        codes = self.codes.gather(rows) if self.codes is not None and keeps_codes(len(rows), "float32") else None
        return replace(self, halves=self.halves.index_select(0, rows), codes=codes, origins=rows)

    def exact_vectors(self, part: slice) -> Any:
        """Return the originals of some of these titles."""
        return self.originals[part] if self.origins is None else self.originals.index_select(0, self.origins[part])


def upload_titles(
    vectors: Vectors, device: Any, *, keep_originals: bool, directions: NDArray[np.float64] | None = None
) -> GpuTitles:
    """Copy title vectors to a GPU in blocks and round them.

    Args:
        vectors: float32 (titles, dim).
        device: a torch device.
        keep_originals: whether the float32 vectors stay there too, and of many titles int8 codes: 6 or 7 bytes a
            component in all instead of 2.
        directions: float64 (kept, dim): keep bounds along these instead of float16 copies.

    Raises:
        DeviceError: they do not fit the GPU's memory.
    """
    torch = load_torch()
    coded = keep_originals and keeps_codes(len(vectors), "float32")
    try:
        along = None if directions is None else torch.from_numpy(np.ascontiguousarray(directions)).to(device)
        width = vectors.shape[1] if along is None else width_of(len(along))
        halves = torch.empty((len(vectors), width), dtype=torch.float16, device=device)
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
        kept = (lambda part: as_tensor(vectors[part]).to(device)) if originals is None else originals.__getitem__
        norm, error = _fill(torch, halves, along, kept, scale)
        wide = longest > 0 and shortest * scale < LEAST_SCALED_LENGTH
        coded_by = (originals, scale) if along is None else (halves, 1.0)
        codes = encode(torch, *coded_by, _parts(vectors)) if coded and not wide else None
    except torch.cuda.OutOfMemoryError as problem:
        torch.cuda.empty_cache()
        wanted = vectors.size * (6 if keep_originals else 2) + coded * code_bytes(*vectors.shape)
        raise DeviceError(
            f"the {len(vectors)} titles need {wanted / 2**30:.1f} GiB on {device}, which has not as much free",
            fix="set index.search.rescore=float16 for a third of it, take type ivf_pq, or set device.kind=cpu",
        ) from problem
    return GpuTitles(halves, originals, scale, norm, error, wide, codes, directions=along)


def with_copies(titles: GpuTitles) -> GpuTitles:
    """Return titles with float16 copies in the place of bounds; raises torch's OutOfMemoryError."""
    torch = load_torch()
    originals, scale = titles.originals, titles.scale
    halves = torch.empty(originals.shape, dtype=torch.float16, device=originals.device)
    norm, error = _fill(torch, halves, None, originals.__getitem__, scale)
    codes = None if titles.codes is None else encode(torch, originals, scale, _parts(originals))
    return replace(titles, halves=halves, norm=norm, error=error, codes=codes, directions=None)


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
        into[:] = scaled.half()
        return torch.linalg.vector_norm(scaled - into.float(), dim=1)
    exact = scaled.double() @ along.T
    into.zero_()
    into[:, : len(along)] = exact.half()
    rounded = into[:, : len(along)].double()
    rest = torch.linalg.vector_norm(scaled.double() - rounded @ along, dim=1)
    into[:, len(along)] = (rest * HALF_UP + LEAST_HALF).half()
    return torch.linalg.vector_norm(exact - rounded, dim=1) + 1e-9


def as_tensor(array: NDArray[Any]) -> Any:
    """Give an array to torch, which warns of one that it may not write to, such as a mapped file's."""
    array = np.ascontiguousarray(array)
    return load_torch().from_numpy(array if array.flags.writeable else array.copy())


def _parts(vectors: Vectors) -> Iterable[slice]:
    step = max(1, UPLOAD_BYTES // (4 * vectors.shape[1]))
    return (slice(start, start + step) for start in range(0, len(vectors), step))
