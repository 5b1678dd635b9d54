"""Titles made to break exact answers: told apart by nothing or by little, out of scale, or of few dimensions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Made = NDArray[np.float64]


def _near(rng: np.random.Generator, n: int, d: int) -> Made:
    return rng.normal(size=(1, d)) + 1e-6 * rng.normal(size=(n, d))


ADVERSARIES: dict[str, Callable[[np.random.Generator, int, int], Made]] = {
    "identical": lambda rng, n, d: np.tile(rng.normal(size=(1, d)), (n, 1)),
    "near-identical": _near,
    "one-hot": lambda rng, n, d: np.eye(d)[rng.integers(d, size=n)],
    "lengths over e^±6": lambda rng, n, d: rng.normal(size=(n, d)) * np.exp(rng.uniform(-6, 6, size=(n, 1))),
    "rank 3": lambda rng, n, d: rng.normal(size=(n, 3)) @ rng.normal(size=(3, d)),
    "tiny and huge": lambda rng, n, d: rng.normal(size=(n, d)) * 10.0 ** rng.integers(-9, 9, size=(n, d)),
    "one title": lambda rng, n, d: rng.normal(size=(1, d)),
    "opposites": lambda rng, n, d: np.tile(rng.normal(size=(1, d)), (n, 1)) * rng.choice([-1.0, 1.0], size=(n, 1)),
}


def check_rounded_once(
    titles: NDArray[np.float32], queries: NDArray[np.float32], rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> None:
    """Hold answers against float64: each score is the product rounded once, no title left out is better, ties by row.

    A float64 sum of n products may be off by n × 2^-53 of the sum of their sizes (Higham, 3.1); float32 adds 2^-24 of
    the score itself.
    """
    wide, asked = titles.astype(np.float64), queries.astype(np.float64)
    every = asked @ wide.T
    summed = titles.shape[1] * 2.0**-52 * (np.abs(asked) @ np.abs(wide).T)
    own, its = (np.take_along_axis(table, rows, axis=1) for table in (every, summed))
    assert (np.abs(scores - own) <= 2.0**-24 * np.abs(own) + its + 1e-45).all()
    best = -np.sort(-every, axis=1)[:, : rows.shape[1]]
    assert (np.abs(own - best) <= 2.0**-23 * np.abs(best) + 2 * summed.max(axis=1, keepdims=True)).all()
    steps = np.diff(scores, axis=1)
    assert (steps <= 0).all()
    assert (np.diff(rows, axis=1)[steps == 0] > 0).all()
