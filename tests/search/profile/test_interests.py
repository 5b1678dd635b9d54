"""What a user likes as several vectors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

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


@pytest.mark.parametrize(("scale", "digits"), [(1e-41, 60), (1e-300, 15), (1.0, 60)])
def test_what_was_liked_long_ago_is_clustered_as_what_was_liked_today(scale: float, digits: int) -> None:
    """FAISS divided by what is next to nothing, met NaN in a thread of its own and ended the process."""
    code = (
        "import numpy as np\n"
        "from semrec_faiss.search.profile.interests import interest_vectors\n"
        "random = np.random.default_rng(3)\n"
        "for _ in range(40):\n"
        "    vectors = random.standard_normal((12, 6)).astype(np.float32)\n"
        f"    weights = {scale} * 10.0 ** random.uniform(-{digits}, 0, 12)\n"
        "    weights[5:7] = -1.0\n"
        "    found, heaviness = interest_vectors(vectors, weights, 4, 7)\n"
        "    assert 1 <= len(found) == len(heaviness) and np.isfinite(found).all()\n"
        "    assert (np.linalg.norm(found, axis=1) > 0.01).all()\n"
        "    today = np.ldexp(weights, 1 - np.frexp(weights.max())[1])\n"
        "    np.testing.assert_array_equal(found, interest_vectors(vectors, today, 4, 7)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
