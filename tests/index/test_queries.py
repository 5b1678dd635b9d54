"""Queries are brought to unit length whatever their number: by one thread of FAISS, by all of them, or by numpy."""

from __future__ import annotations

import numpy as np
import pytest

from semrec_faiss.index.queries import SQUARES_BY_FAISS, THREADED_BY_FAISS, THREADED_BYTES, prepared_block


@pytest.mark.parametrize(
    "shape", [(SQUARES_BY_FAISS - 1, 384), (1_000, 384), (2_000, 384), (9_999, 56), (3_000, 331), (10_001, 60)]
)
def test_lengths_are_one_of_any_batch(shape: tuple[int, int]) -> None:
    given = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    given *= np.exp(np.random.default_rng(4).uniform(-9, 9, (len(given), 1))).astype(np.float32)
    wanted = given.astype(np.float64) / np.linalg.norm(given.astype(np.float64), axis=1)[:, None]
    np.testing.assert_allclose(prepared_block(given, 0, normalize=True), wanted, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("row", [0, 1_999])
def test_one_that_is_not_of_unit_length_is_found_in_a_large_batch(row: int) -> None:
    given = np.random.default_rng(5).standard_normal((2_000, 384))
    units = (given / np.linalg.norm(given, axis=1)[:, None]).astype(np.float32)
    assert units.nbytes > THREADED_BYTES
    assert len(units) < THREADED_BY_FAISS
    assert prepared_block(units, 0, normalize=True) is units
    longer = units.copy()
    longer[row] *= 1.001
    np.testing.assert_allclose(prepared_block(longer, 0, normalize=True), units, atol=1e-6)
