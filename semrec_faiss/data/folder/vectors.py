"""Reading mapped vectors block by block: checked, normalised, and never twice in memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.errors import DataError

# Input is read in steps this small, so that the float64 work space stays in the cache and few pages stay mapped.
_STEP_BYTES = 1 << 20

_ROWS_SHOWN = 10  # of those that cannot be used

# Between these sums of squares every value fits float32 and the norm is exact enough in float64; the rare rows
# outside, NaN included, are looked at one by one.
_SQUARES_LOW, _SQUARES_HIGH = 1e-60, 1e76
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT32_TINY = float(np.finfo(np.float32).smallest_subnormal)

UNIT_TOLERANCE = 1e-3
"""How far from 1 a length may be: float16 rounds to this."""


@dataclass(frozen=True)
class NormStats:
    """The Euclidean lengths of n vectors, and the share of them within 1e-3 of one."""

    count: int
    min: float
    mean: float
    max: float
    unit_share: float

    @property
    def normalized(self) -> bool:
        """Whether every vector has unit length."""
        return self.unit_share == 1.0


def iter_float32_blocks(
    vectors: NDArray[Any], *, normalize: bool, path: Path | str, block_bytes: int = 4 << 20
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first_row, block) over ``vectors`` (n, d): float32, C-contiguous, of at most ``block_bytes`` bytes.

    Args:
        vectors: any float dtype, usually from :func:`open_vectors`; its pages are let go once read.
        normalize: whether to scale each vector to unit length.
        path: the file, or what else, the vectors come from, for messages.
        block_bytes: the size of a block; at least one vector is yielded.

    Raises:
        DataError: a vector holds NaN or infinity, is all zero, or does not fit float32.
    """
    rows, dim = vectors.shape
    step = max(1, block_bytes // (4 * dim))
    for first in range(0, rows, step):
        block = np.empty((min(step, rows - first), dim), dtype=np.float32)
        _convert(vectors, first, block, normalize, path)
        yield first, block


def read_float32(vectors: NDArray[Any], *, normalize: bool, path: Path | str) -> NDArray[np.float32]:
    """Read all of ``vectors`` as float32 (n, d), C-contiguous; as :func:`iter_float32_blocks`, in one array."""
    result = np.empty(vectors.shape, dtype=np.float32)
    _convert(vectors, 0, result, normalize, path)
    return result


def vector_norms(vectors: NDArray[Any], *, path: Path | str) -> NormStats:
    """Measure the lengths of ``vectors`` (n, d) in float64, block by block, with the checks of reading.

    Raises:
        DataError: a vector holds NaN or infinity, or is all zero.
    """
    low, high, total, unit = np.inf, 0.0, 0.0, 0
    for first, part in iter_float64_parts(vectors, 0, len(vectors)):
        norms = _measured(vectors, part, first, path)[1]
        low, high = min(low, float(norms.min())), max(high, float(norms.max()))
        total += float((norms / len(vectors)).sum())
        unit += int((np.abs(norms - 1.0) <= UNIT_TOLERANCE).sum())
    return NormStats(len(vectors), low, total, high, unit / len(vectors))


def equal_rows(vectors: NDArray[Any]) -> tuple[int, tuple[int, int] | None]:
    """Count the vectors (n, d) that equal an earlier one in every value, and give the rows of one such pair.

    Rows are compared by a 64-bit hash first, so that n vectors need 16 n bytes and no sorting of vectors.
    """
    dim = vectors.shape[1]
    weights = np.random.default_rng(0).integers(1 << 63, dtype=np.uint64, size=dim) | np.uint64(1)
    hashes = np.empty(len(vectors), dtype=np.uint64)
    for first, part in iter_float64_parts(vectors, 0, len(vectors)):
        bits = (part + 0.0).view(np.uint64)  # -0.0 becomes 0.0, which it equals
        # Narrower floats leave the low bits of a float64 empty, and the sum below carries bits only upwards.
        bits ^= bits >> np.uint64(32)
        bits *= weights
        hashes[first : first + len(part)] = bits.sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    likely = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    count, example = 0, None
    step = max(1, _STEP_BYTES // (8 * dim))
    for start in range(0, len(likely), step):
        pairs = likely[start : start + step]
        earlier, later = order[pairs], order[pairs + 1]
        equal = np.flatnonzero((vectors[earlier] == vectors[later]).all(axis=1))
        count += len(equal)
        if example is None and equal.size:
            example = int(earlier[equal[0]]), int(later[equal[0]])
        release_pages(vectors, 0, len(vectors))
    return count, example


def iter_float64_parts(vectors: NDArray[Any], first: int, last: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield (row, part) over rows first…last-1 as native float64 parts of about a MiB, letting go of pages read."""
    step = max(1, _STEP_BYTES // (8 * vectors.shape[1]))
    for start in range(first, last, step):
        stop = min(start + step, last)
        yield start, np.asarray(vectors[start:stop], dtype=np.float64)
        release_pages(vectors, start, stop)


def _convert(vectors: NDArray[Any], first: int, out: NDArray[np.float32], normalize: bool, path: Path | str) -> None:
    """Write rows first… of ``vectors`` into ``out``, checked and, when asked, scaled to unit length."""
    for start, part in iter_float64_parts(vectors, first, first + len(out)):
        target = out[start - first : start - first + len(part)]
        scales, norms = _measured(vectors, part, start, path, check_float32=not normalize)
        if not normalize:
            target[:] = part
        elif scales is None:  # Not divided: two in 100 million float16 are then no multiple of any float64, rounded.
            np.multiply(part, 1.0 / norms[:, None], out=target, casting="same_kind")
        else:
            scaled = part / scales[:, None]
            scaled /= np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
            target[:] = scaled


def _measured(
    vectors: NDArray[Any], part: NDArray[np.float64], first: int, path: Path | str, *, check_float32: bool = False
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Return `_scales_and_norms` of a part of ``vectors``; where one cannot be used, all such are told."""
    try:
        return _scales_and_norms(part, first, path, check_float32=check_float32)
    except DataError as error:
        raise _all_told(error, vectors) from None


def _all_told(error: DataError, vectors: NDArray[Any]) -> DataError:
    """Add to what is wrong with one vector how many are not finite or all zero, and which are the first."""
    rows: list[int] = []
    for start, part in iter_float64_parts(vectors, 0, len(vectors)):
        usable = np.isfinite(part).all(axis=1) & part.any(axis=1)
        rows += (start + np.flatnonzero(~usable)).tolist()
    if len(rows) < 2:
        return error
    more = ", …" if len(rows) > _ROWS_SHOWN else ""
    listed = ", ".join(map(str, rows[:_ROWS_SHOWN]))
    return DataError(
        f"{error.message}\n{len(rows):,} vectors are not finite or all zero, those at [{listed}{more}]",
        fix="make these vectors again, or remove them together with their entries in the file beside them",
    )


def _scales_and_norms(
    part: NDArray[np.float64], first: int, path: Path | str, *, check_float32: bool = False
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Return the norms (n,) of ``part`` (n, d), and what to divide rows by first where squares would overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", part, part)
        norms = np.sqrt(squares)
        odd = np.flatnonzero(~((squares > _SQUARES_LOW) & (squares < _SQUARES_HIGH)))
    if not odd.size:
        return None, norms
    scales = np.ones(len(part))
    for row in odd:
        largest = float(np.abs(part[row]).max())
        _check_row(largest, part[row], first + int(row), path, check_float32)
        # A power of two divides without rounding; half of it keeps the largest representable one finite.
        scales[row] = 2.0 ** (np.frexp(largest)[1] - 1)
        scaled = part[row] / scales[row]
        norms[row] = min(np.sqrt(scaled @ scaled) * scales[row].astype(np.longdouble), np.finfo(np.float64).max)
    return scales, norms


def _check_row(largest: float, row: NDArray[np.float64], number: int, path: Path | str, check_float32: bool) -> None:
    if not np.isfinite(largest):
        column = int(np.flatnonzero(~np.isfinite(row))[0])
        raise DataError(
            f"{path}[{number}, {column}] is {row[column]}; every value must be finite",
            fix="make that vector again, or remove it together with its entry in the file beside it.",
        )
    if largest == 0.0:
        raise DataError(
            f"{path}[{number}] is all zero; a vector without direction is similar to nothing",
            fix="make that vector again, or remove it together with its entry in the file beside it.",
        )
    if check_float32 and not _FLOAT32_TINY <= largest <= _FLOAT32_MAX:
        raise DataError(
            f"{path}[{number}] has {largest:g} as its largest magnitude, which float32 cannot hold "
            f"({_FLOAT32_TINY:.2g} to {_FLOAT32_MAX:.2g})",
            fix="use normalize: true, or scale the vectors.",
        )


def release_pages(vectors: NDArray[Any], start: int, stop: int) -> None:
    """Tell the system that the mapped pages of vectors (n, d) from row ``start`` up to ``stop`` are no longer needed.

    So they do not count as our memory; what is not mapped stays as it is.
    """
    mapped = getattr(vectors, "_mmap", None)
    if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if not vectors.flags.c_contiguous:  # column-major: these rows lie scattered over the whole file
        mapped.madvise(mmap.MADV_DONTNEED)
        return
    origin = vectors.ctypes.data - np.frombuffer(mapped, dtype=np.uint8).ctypes.data
    begin = (origin + start * vectors.strides[0]) // mmap.PAGESIZE * mmap.PAGESIZE
    end = min(origin + stop * vectors.strides[0], len(mapped))
    mapped.madvise(mmap.MADV_DONTNEED, begin, end - begin)
