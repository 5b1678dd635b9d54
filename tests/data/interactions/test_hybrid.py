"""Learned vectors by hand and by plain linear algebra, and what gives new titles theirs."""

from __future__ import annotations

import numpy as np
import pytest

from semrec_faiss.config.profile import Profile
from semrec_faiss.data.interactions.factors import new_title_map, rating_matrix, title_factors
from semrec_faiss.data.interactions.hybrid import LearnSettings, learn
from semrec_faiss.data.interactions.profiles import profile_weights, weight_matrix
from semrec_faiss.data.interactions.text_part import TextProjection
from semrec_faiss.data.users import History


def random_history(users: int, titles: int, seed: int = 3) -> History:
    random = np.random.default_rng(seed)
    own = [np.sort(random.choice(titles, random.integers(3, 12), replace=False)) for _ in range(users)]
    offsets = np.concatenate(([0], np.cumsum([len(rows) for rows in own]))).astype(np.int64)
    stars = random.integers(1, 6, offsets[-1]).astype(np.float32)
    return History(offsets, np.concatenate(own).astype(np.int32), stars, random.integers(0, 99, offsets[-1]))


def test_ratings_are_shares_of_five_stars() -> None:
    told = History(np.array([0, 2, 3]), np.array([0, 2, 1], np.int32), np.array([5, 1, np.nan], np.float32))
    np.testing.assert_allclose(rating_matrix(told, 3).toarray(), [[1, 0, 0.2], [0, 0.6, 0]], rtol=1e-6)
    bare = History(told.offsets, told.rows)
    assert rating_matrix(bare, 3).toarray().tolist() == [[1, 0, 1], [0, 1, 0]]


def test_factors_by_hand() -> None:
    """Of diag(2, 1) the singular values are 2 and 1: √(4 / (4 + 0.25 · 4)) and √(1 / (1 + 0.25 · 4))."""
    from scipy.sparse import csr_matrix

    found = title_factors(csr_matrix(np.diag([2.0, 1.0])), 2, 4, 0.25, 0)
    np.testing.assert_allclose(np.abs(found), np.diag([np.sqrt(0.8), np.sqrt(0.5)]), atol=1e-6)


def test_factors_are_those_of_a_full_decomposition() -> None:
    matrix = rating_matrix(random_history(40, 25), 25)
    _, strengths, directions = np.linalg.svd(matrix.toarray(), full_matrices=False)
    scales = strengths**2 / (strengths**2 + 0.03 * strengths[0] ** 2)
    found = title_factors(matrix, 99, 7, 0.03, 0)
    np.testing.assert_allclose(found @ found.T, directions.T * scales @ directions, atol=1e-4)


def test_the_map_of_new_titles_by_hand() -> None:
    """One input and one factor; D = (20/40, 0), mean 1/4: a ridge of 1.25 beside Σ D a aᵀ = ½ [[4, 2], [2, 1]]."""
    found = new_title_map(np.array([[2.0], [7.0]]), np.array([[3.0], [9.0]], np.float32), np.array([20, 0]))
    expected = np.linalg.solve([[3.25, 1.0], [1.0, 1.75]], [3.0, 1.5])
    np.testing.assert_allclose(found[:, 0], expected)


def test_text_is_centred_and_turned_to_its_main_directions() -> None:
    random = np.random.default_rng(0)
    texts = random.normal(size=(50, 6)).astype(np.float16) + np.float16(3)
    projection = TextProjection.fit(texts, 6)
    wide = texts.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    found = projection.project(texts)
    np.testing.assert_allclose(found @ found.T, centred @ centred.T, atol=1e-3)
    strengths = (found.astype(np.float64) ** 2).sum(axis=0)
    assert (np.diff(strengths) < 0).all(), "the strongest direction comes first"
    np.testing.assert_allclose(projection.components @ projection.components.T, np.eye(6), atol=1e-5)
    assert TextProjection.fit(texts, 2).project(texts).shape == (50, 2)
    assert not projection.project(projection.mean[None, :]).any(), "the mean itself says nothing"


def test_text_weighs_as_much_as_it_is_told() -> None:
    told, texts = random_history(60, 40), np.random.default_rng(1).normal(size=(40, 10)).astype(np.float32)
    settings = LearnSettings(rank=8, directions=5, text_weight=0.5, profile=Profile(weights="liked", liked=3.0))
    vectors, made = learn(told, texts, settings)
    assert vectors.shape == (40, 13) == (40, made.dim)
    users = weight_matrix(told, profile_weights(told, settings.profile), 40)
    users = users[np.diff(users.indptr) > 0]
    spread = [np.std(users @ part @ part.T) for part in (vectors[:, :8], vectors[:, 8:])]
    assert spread[1] / spread[0] == pytest.approx(0.5, rel=1e-4)
    np.testing.assert_allclose(
        made.text_part_of(vectors), TextProjection.fit(texts, 5).project(texts), rtol=1e-4, atol=1e-6
    )


def test_a_title_that_nobody_has_rated_gets_what_a_new_one_would() -> None:
    told = random_history(60, 39)
    texts = np.random.default_rng(1).normal(size=(40, 10)).astype(np.float32)
    vectors, made = learn(told, texts, LearnSettings(rank=8, directions=5))
    np.testing.assert_allclose(made.title_vectors(texts[39:]), vectors[39:], atol=1e-6)
    assert not np.allclose(made.title_vectors(texts[:1]), vectors[:1], atol=1e-3), "the others have ratings"


def test_without_texts_the_ratings_alone_speak() -> None:
    told = random_history(60, 30)
    vectors, made = learn(told, 31, LearnSettings(rank=8))
    assert vectors.shape == (31, 8)
    assert made.text_scale == 0
    np.testing.assert_allclose(made.title_vectors(np.empty((1, 0))), vectors[30:], atol=1e-6)


def test_the_same_seed_gives_the_same_vectors() -> None:
    told, texts = random_history(60, 40), np.random.default_rng(1).normal(size=(40, 10))
    one, other = (learn(told, texts, LearnSettings(rank=8, directions=5))[0] for _ in range(2))
    assert (one == other).all()
