"""Titles made to break the proof of type fused, held against float64: every returned score is the true one, rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fused_worlds import SIZE, Truth, needs_kernels, searcher
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


@needs_kernels
@pytest.mark.parametrize("dim", [96, 768])
@pytest.mark.parametrize("kind", ADVERSARIES)
def test_scores_are_those_of_float64_rounded_once(kind: str, dim: int) -> None:
    rng = np.random.default_rng(9)
    titles = ADVERSARIES[kind](rng, 200 * SIZE, dim).astype(np.float32)
    queries = np.concatenate((titles[:1], rng.normal(size=(1, dim)))).astype(np.float32)
    k = min(10, len(titles))
    found = searcher(titles).search(queries, k)
    Truth.of(titles, queries).check(found, k, tolerance=2e-7)
    true = np.take_along_axis(queries.astype(np.float64) @ titles.astype(np.float64).T, found.rows, axis=1)
    terms = np.abs(queries.astype(np.float64)) @ np.abs(titles.astype(np.float64)).T
    summed = dim * 2.0**-52 * np.take_along_axis(terms, found.rows, axis=1)
    assert (np.abs(found.scores - true) <= 2.0**-24 * np.abs(true) + summed).all()
