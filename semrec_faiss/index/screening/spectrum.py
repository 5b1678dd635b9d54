"""The principal directions of vectors, and how many of them tell most titles apart from the best ones.

With orthonormal directions D, x = Dᵀ·x̂ + rest, and by Cauchy-Schwarz q·x ≤ q̂·x̂ + |rest of q|·|rest of x|: the bound is
an inner product of one coordinate more than there are directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Scores, Vectors
from semrec_faiss.index.train import VectorBlocks, sampled

LEAST_TITLES = 8_192
"""Fewer are compared before a bound is."""

SAMPLED_TITLES, COUNTED_TITLES, SAMPLED_QUERIES = 32_768, 262_144, 64
"""Titles that directions are found by, those that are counted where they reach too far, and queries for it."""

BLOCK_TITLES, MULTIPLIED_ROWS = 16_384, 2_048
"""Titles that are multiplied with queries at once, and with each other, in float64."""

WANTED = 11
"""Results that the choice is made for: ten and the title that was asked about."""

WIDTHS = 16
"""Bounds are this many float16 wide, or a multiple of it: what processors and tensor cores take at once."""

FUSED_WIDTHS, FUSED_LEFT = 64, 32.0
"""Type fused takes multiples of the first, a tile of its products, and rescores about as many as the second."""

RANDOM_READS = 16
"""How many times as long a title takes that is read by itself as one in a row of all."""

LEAST_GAIN = 2.0
"""How many times fewer bytes have to be read for it to pay."""


@dataclass(frozen=True)
class Choice:
    """How many directions to keep, and what they leave.

    Attributes:
        directions: how many; 0 where none pay.
        share: of the squared length of all vectors, what they hold.
        left: of titles and means of three as queries, how many titles' bounds reach the tenth's score, the mean.
        left_most: the same, nine tenths of the queries have fewer.
    """

    directions: int
    share: float
    left: float
    left_most: float


def width_of(directions: int) -> int:
    """Return how many coordinates a bound has: one for each direction, one for the rest, and what fills it up."""
    return -(-(directions + 1) // WIDTHS) * WIDTHS


def choices_of(dim: int, *, fused: bool) -> range:
    """Return the numbers of directions that are tried, at most three quarters of the dimensions; none of few."""
    step = FUSED_WIDTHS if fused else WIDTHS
    return range((step if fused else 2 * step) - 1, dim * 3 // 4 + 1, step)


def principal_directions(sample: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the directions that hold most of the squared length of vectors, not of their spread: nothing is centred.

    Args:
        sample: float32 (count, dim).

    Returns:
        float64 (dim, dim), orthonormal rows, those that hold most first; and what each holds, (dim,), 1 in all.
    """
    longest = max(float(sample.max(initial=0.0)), -float(sample.min(initial=0.0))) or 1.0
    moment = np.zeros((sample.shape[1], sample.shape[1]))
    for start in range(0, len(sample), MULTIPLIED_ROWS):
        part = sample[start : start + MULTIPLIED_ROWS].astype(np.float64) / longest
        moment += part.T @ part
    held, vectors = np.linalg.eigh(moment)
    held = np.maximum(held[::-1], 0.0)
    return np.ascontiguousarray(vectors.T[::-1]), held / max(float(held.sum()), 1e-300)


def choose(blocks: VectorBlocks, count: int, dim: int, *, fused: bool = False) -> tuple[Choice, NDArray[np.float64]]:
    """Choose how many directions to keep, by what a search of these titles would read.

    Args:
        blocks: the vectors, float32 (count, dim) in all.
        count: the number of titles.
        dim: dimensions of a vector.
        fused: take as few as leave `FUSED_LEFT` titles to nine tenths of the queries: a GPU multiplies fast, and
            rescoring is dear.

    Returns:
        The choice, and all directions, float64 (dim, dim).
    """
    sample = sampled(blocks, count, SAMPLED_TITLES, dim)
    directions, held = principal_directions(sample)
    tried = choices_of(dim, fused=fused)
    choices = [
        Choice(kept, float(held[:kept].sum()), float(left.mean()), float(np.percentile(left, 90)))
        for kept, left in _left_by(_queries_of(sample), directions, tried, blocks, count).items()
    ]
    none = Choice(0, 0.0, 0.0, 0.0)
    if fused:
        return next((one for one in choices if one.left_most <= FUSED_LEFT), none), directions
    best = min(choices, key=lambda one: _read_bytes(one, count, dim), default=none)
    pays = best.directions and _read_bytes(best, count, dim) * LEAST_GAIN <= 4.0 * dim * count
    return best if pays else none, directions


def _read_bytes(choice: Choice, count: int, dim: int) -> float:
    return 2.0 * width_of(choice.directions) * count + RANDOM_READS * 4.0 * dim * choice.left_most


def told_of(blocks: VectorBlocks, count: int, dim: int, kept: int) -> tuple[Choice, NDArray[np.float64]]:
    """Tell what a number of directions leaves that somebody else has chosen; returns what `choose` does."""
    sample = sampled(blocks, count, SAMPLED_TITLES, dim)
    directions, held = principal_directions(sample)
    left = _left_by(_queries_of(sample), directions, [kept], blocks, count)[kept]
    return Choice(kept, float(held[:kept].sum()), float(left.mean()), float(np.percentile(left, 90))), directions


def _queries_of(sample: Vectors) -> Vectors:
    """Take titles, and means of three of them, as users are who like so many: bounds are looser for those."""
    random = np.random.default_rng(len(sample))
    titles = sample[random.integers(len(sample), size=SAMPLED_QUERIES // 2)]
    means = sample[random.integers(len(sample), size=(SAMPLED_QUERIES // 2, 3))].mean(axis=1)
    return np.concatenate((titles, means))


def _left_by(
    queries: Vectors, directions: NDArray[np.float64], tried: Sequence[int], blocks: VectorBlocks, count: int
) -> dict[int, NDArray[np.float64]]:
    """Count, for each query, the titles whose bounds reach the score of the last that is wanted.

    Near titles are counted all, others by every so-manieth title, as `COUNTED_TITLES` says.
    """
    wanted = min(WANTED, count)
    last = _last_scores(queries, wanted, blocks)
    step, single = -(-count // COUNTED_TITLES), directions.astype(np.float32)
    rotated = queries @ single.T
    further = {kept: np.zeros(len(queries), np.int64) for kept in tried}
    for first, block in _small(blocks):
        titles = block[-first % step :: step]
        near = queries @ titles.T >= last[:, None]
        for kept, bounds in _bounds(rotated, titles @ single.T, tried):
            further[kept] += np.count_nonzero((bounds >= last[:, None]) & ~near, axis=1)
    return {kept: wanted + step * found.astype(np.float64) for kept, found in further.items()}


def _bounds(queries: Vectors, titles: Vectors, tried: Sequence[int]) -> Iterator[tuple[int, Scores]]:
    """Yield the bounds of rotated vectors' scores, float32 (queries, titles), by each number of directions."""
    rests = [np.einsum("nd,nd->n", vectors, vectors) for vectors in (queries, titles)]
    along, done = np.zeros((len(queries), len(titles)), np.float32), 0
    for kept in tried:
        parts = [vectors[:, done:kept] for vectors in (queries, titles)]
        along += parts[0] @ parts[1].T
        rests = [rest - np.einsum("nd,nd->n", part, part) for rest, part in zip(rests, parts, strict=True)]
        of_query, of_title = (np.sqrt(np.maximum(rest, 0.0)) for rest in rests)
        yield kept, along + of_query[:, None] * of_title
        done = kept


def _last_scores(queries: Vectors, wanted: int, blocks: VectorBlocks) -> Scores:
    """Return the score of the last title that is wanted: float32 (queries,)."""
    best = np.empty((len(queries), 0), np.float32)
    for _, block in _small(blocks):
        best = np.concatenate((best, queries @ block.T), axis=1)
        if best.shape[1] > wanted:
            best = np.partition(best, best.shape[1] - wanted, axis=1)[:, -wanted:]
    return np.asarray(best.min(axis=1))


def _small(blocks: VectorBlocks) -> Iterator[tuple[int, Vectors]]:
    for first, block in blocks():
        for start in range(0, len(block), BLOCK_TITLES):
            yield first + start, block[start : start + BLOCK_TITLES]
