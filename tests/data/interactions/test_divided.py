"""Ratings that are multiplied by blocks of users: the products and the decomposition of the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest

from semrec_faiss.data.interactions import divided
from semrec_faiss.data.interactions.divided import DividedRatings, Workers
from semrec_faiss.data.interactions.factors import title_factors

sparse = pytest.importorskip("scipy.sparse")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (7, 7)])
def test_products_and_factors_are_those_of_the_whole(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divided, "USERS_A_BLOCK", 7)
    random = np.random.default_rng(3)
    dense = np.where(random.random(shape) < 0.3, random.random(shape), 0).astype(np.float32)
    whole = sparse.csr_matrix(dense)
    ratings = DividedRatings(whole, Workers())
    right, left = random.normal(size=(shape[1], 3)), random.normal(size=(2, shape[0]))
    np.testing.assert_allclose(ratings @ right, dense @ right, rtol=1e-6)
    np.testing.assert_allclose(left @ ratings, left @ dense, rtol=1e-6)
    np.testing.assert_allclose(ratings.T @ left.T, dense.T @ left.T, rtol=1e-6)
    np.testing.assert_allclose(right.T @ ratings.T, right.T @ dense.T, rtol=1e-6)
    assert ratings.T.T.shape == ratings.shape == shape
    expected, found = (title_factors(one, 5, 4, 0.03, 1) for one in (whole, ratings))
    np.testing.assert_allclose(found, expected, atol=2e-5)
