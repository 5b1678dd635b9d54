"""Titles made to break the proof of type fused, held against float64: every returned score is the true one, rounded."""

from __future__ import annotations

import numpy as np
import pytest

from tests.index.adversaries import ADVERSARIES, check_rounded_once
from tests.index.fused.worlds import SIZE, Truth, needs_kernels, searcher


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
    check_rounded_once(titles, queries, found.rows, found.scores)
