"""The files by which titles are left out: directions, and of each title its coordinates along them and its rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.data.folder.npy import NpyWriter, Writable
from semrec_faiss.index.cpu.exact import UNIT_ROUNDOFF
from semrec_faiss.index.screening.spectrum import width_of
from semrec_faiss.index.train import VectorBlocks

DIRECTIONS_NAME = "directions.npy"

BLOCK_BYTES = 32 << 20
"""Bytes of vectors that are projected at once."""

NARROW = np.dtype("<f2")


@dataclass(frozen=True)
class Rounding:
    """By how much bounds have been scaled, and how far rounding may have moved them.

    Attributes:
        scale: a power of two that brings the longest vector to a length of at most 1.
        error: the most that the coordinates of a scaled vector are off along the directions, as a length.
        norm: the largest length of a bound.
    """

    scale: float
    error: float
    norm: float

    def with_others(self, other: Rounding) -> Rounding:
        """Return what holds for these bounds and for others of the same scale."""
        return Rounding(self.scale, max(self.error, other.error), max(self.norm, other.norm))


def power_of_two_below_one(longest: float) -> float:
    """Return the power of two that brings a length to at most 1, within what float32 can hold."""
    return 2.0 ** -min(max(math.ceil(math.log2(longest)), -126), 126) if longest > 0 else 1.0


def write_bounds(
    file: Writable, directions: NDArray[np.float64], blocks: VectorBlocks, count: int, scale: float
) -> Rounding:
    """Write the bounds' coordinates, float16 (count, `width_of` directions), as an .npy.

    With x̂ the rounded coordinates, the rest is x - Dᵀ·x̂, whatever x̂ is: its length, rounded up, is the last coordinate.
    It has a part along the directions, too, which is what x̂ is off by: the largest is returned.

    Args:
        file: to be written.
        directions: float64 (kept, dim), orthonormal.
        blocks: the vectors, float32 (count, dim) in all.
        count: how many.
        scale: see `Rounding`.
    """
    rounding = Rounding(scale, 0.0, 0.0)
    with NpyWriter(file, (count, width_of(len(directions))), NARROW) as rows:
        for _, block in blocks():
            for bounds, own in _in_pieces(block, directions, scale):
                rows.write(bounds)
                rounding = rounding.with_others(own)
    return rounding


def bounds_of(
    vectors: Vectors, directions: NDArray[np.float64], scale: float
) -> tuple[NDArray[np.float16], Rounding] | None:
    """Return what `write_bounds` writes of vectors in memory; None where a float16 cannot hold it at that scale."""
    found, rounding = [np.empty((0, width_of(len(directions))), NARROW)], Rounding(scale, 0.0, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        for bounds, own in _in_pieces(vectors, directions, scale):
            found.append(bounds)
            rounding = rounding.with_others(own)
    return (np.concatenate(found), rounding) if math.isfinite(rounding.error + rounding.norm) else None


def _in_pieces(
    vectors: Vectors, directions: NDArray[np.float64], scale: float
) -> Iterator[tuple[NDArray[np.float16], Rounding]]:
    single = directions.astype(np.float32)
    step = max(1, BLOCK_BYTES // (4 * directions.shape[1]))
    for start in range(0, len(vectors), step):
        bounds, error = _bounds_of(vectors[start : start + step] * np.float32(scale), single)
        norm = float(_lengths(bounds.astype(np.float32)).max())
        yield bounds, Rounding(scale, 1.0001 * error, 1.0001 * norm)


def _bounds_of(scaled: Vectors, directions: Vectors) -> tuple[NDArray[np.float16], float]:
    kept, dim = directions.shape
    along = scaled @ directions.T
    bounds = np.zeros((len(scaled), width_of(kept)), NARROW)
    bounds[:, :kept] = along
    rounded = bounds[:, :kept].astype(np.float32)
    # A float32 product of n terms is off by at most n·u·|a|·|b| (Higham, 3.1), the directions by u each; a vector of
    # such products, or the sum of so many directions, by the root of `kept` times as much.
    lengths = _lengths(scaled)
    unit = 1.01 * math.sqrt(kept) * UNIT_ROUNDOFF * lengths
    rest = _lengths(scaled - rounded @ directions) * 1.0001 + (kept + 2) * unit + 1e-30
    narrow = rest.astype(NARROW)
    bounds[:, kept] = np.where(narrow.astype(np.float64) < rest, np.nextafter(narrow, np.float16(np.inf)), narrow)
    off = _lengths(along - rounded) * 1.0001 + (dim + 2) * unit
    return bounds, float(off.max(initial=0.0))


def _lengths(vectors: Vectors) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)))
