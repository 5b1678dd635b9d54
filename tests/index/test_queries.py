"""Queries are brought to unit length whatever their number: by one thread of FAISS, by all of them, or by numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

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


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_large_batch_is_brought_to_unit_length_as_each_of_its_rows_is(kind: type) -> None:
    """In parts, by several threads, into the room that was made for it."""
    given = np.random.default_rng(3).normal(scale=7.0, size=(3001, 384)).astype(kind)
    rooms: list[NDArray[np.float32]] = []

    def room(shape: tuple[int, ...], dtype: np.dtype[np.float32]) -> NDArray[np.float32]:
        rooms.append(np.full(shape, np.nan, dtype))
        return rooms[-1]

    found = prepared_block(given, 0, normalize=True, room=room)
    assert found is rooms[0]
    wide = given.astype(np.float64)
    np.testing.assert_allclose(found, wide / np.linalg.norm(wide, axis=1, keepdims=True), rtol=3e-6)
    for row in (0, 682, 683, 3000):  # about where a part ends, too
        alone = given[row : row + 1] / np.sqrt(np.einsum("ij,ij->i", given[row : row + 1], given[row : row + 1]))
        np.testing.assert_allclose(found[row], alone[0], rtol=3e-7)
    assert prepared_block(found, 0, normalize=True, room=room) is found, "what has unit length is not copied"
    assert len(rooms) == 1
