"""Queries are brought to unit length, each as it is alone, whatever their number and kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semrec_faiss import Recommender
from semrec_faiss.errors import DataError
from semrec_faiss.index.queries import prepared_block


@pytest.mark.parametrize("shape", [(255, 384), (2_000, 384), (9_999, 56), (3_000, 331), (10_001, 60)])
def test_lengths_are_one_of_any_batch(shape: tuple[int, int]) -> None:
    given = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    given *= np.exp(np.random.default_rng(4).uniform(-9, 9, (len(given), 1))).astype(np.float32)
    wanted = given.astype(np.float64) / np.linalg.norm(given.astype(np.float64), axis=1)[:, None]
    np.testing.assert_allclose(prepared_block(given, 0, normalize=True), wanted, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("row", [0, 1_999])
def test_one_that_is_not_of_unit_length_is_found_in_a_large_batch(row: int) -> None:
    given = np.random.default_rng(5).standard_normal((2_000, 384))
    units = (given / np.linalg.norm(given, axis=1)[:, None]).astype(np.float32)
    assert prepared_block(units, 0, normalize=True) is units
    longer = units.copy()
    longer[row] *= 1.001
    prepared = prepared_block(longer, 0, normalize=True)
    np.testing.assert_allclose(prepared[row], units[row], atol=1e-6)
    np.testing.assert_array_equal(np.delete(prepared, row, axis=0), np.delete(units, row, axis=0))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2"])
def test_each_is_prepared_as_it_is_alone(kind: str, normalize: bool) -> None:
    """A last bit hung on what stood beside: on its number, a length that was not 1, or one that float32 cannot hold."""
    random = np.random.default_rng(6)
    given = random.standard_normal((400, 33))
    given[::3] /= np.linalg.norm(given[::3], axis=1)[:, None]
    beside = [[], [1e-20, 1e20] if kind[1:] != "f2" else [1e-6, 1e4]]
    for lengths in beside:
        batch = np.concatenate([given, *(length * given[:2] for length in lengths)]).astype(kind)
        for order in ("C", "F"):
            prepared = prepared_block(np.asarray(batch, order=order), 0, normalize=normalize)
            alone = [prepared_block(row[None], 0, normalize=normalize)[0] for row in batch]
            np.testing.assert_array_equal(prepared, np.stack(alone))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_the_row_at_fault_is_named_among_others(value: float) -> None:
    given = np.ones((9, 4), np.float32)
    given[2] *= 1e30  # which is as good as any
    given[5] = value
    with pytest.raises(DataError, match=r"(queries\[12\] (holds a NaN|is all zeros))"):
        prepared_block(given, 7, normalize=True)


def test_vectors_of_ones_own_are_answered_in_a_batch_as_alone() -> None:
    random = np.random.default_rng(7)
    recommender = Recommender.from_arrays(random.standard_normal((500, 48)).astype(np.float32))
    asked: Any = random.standard_normal((300, 48)).astype(np.float32)
    batch = recommender.search(asked, 5)
    for row in range(0, 300, 7):
        alone = recommender.search(asked[row], 5)[0]
        np.testing.assert_array_equal(alone.scores, batch.scores[row])
        np.testing.assert_array_equal(alone.rows, batch.rows[row])
