"""What a user likes as several vectors."""

from __future__ import annotations

import numpy as np

from semrec_faiss.search.profile.interests import interest_vectors


def test_one_interest_is_the_weighted_mean() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    found, heaviness = interest_vectors(vectors, np.array([1.0, -0.5, 0.25]), 1, 0)
    np.testing.assert_allclose(found, [[1.25 / 1.75, -0.25 / 1.75]])
    assert heaviness.tolist() == [1.25]
    for weights in ([0.0, 0.0, 0.0], [0.0, -1.0, 0.0]):
        assert interest_vectors(vectors, np.array(weights), 3, 0)[0].shape == (0, 2)
    assert interest_vectors(np.array([[1, 0], [-1, 0]], np.float32), np.ones(2), 1, 0)[0].shape == (0, 2)


def test_interests_are_the_clusters_heaviest_first() -> None:
    random = np.random.default_rng(1)
    centres = np.eye(3, 16, dtype=np.float32)
    labels = np.repeat([0, 1, 2], [4, 10, 6])
    vectors = centres[labels] + 0.05 * random.standard_normal((20, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found, heaviness = interest_vectors(vectors, np.where(labels == 0, 1.0, 0.25), 3, 7)
    assert heaviness.tolist() == [4.0, 2.5, 1.5]
    for mean, label in zip(found, (0, 1, 2), strict=True):
        own = vectors[labels == label].astype(np.float64).sum(axis=0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), own / np.linalg.norm(own), atol=1e-6)
    few, _ = interest_vectors(vectors[:5], np.ones(5), 8, 7)
    assert len(few) == 2  # two titles an interest at least
