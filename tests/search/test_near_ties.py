"""What float32's rounding cannot tell apart: by row, in lists by cosine and in the rank that `explain` tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import semrec_faiss
from semrec_faiss import Recommender
from semrec_faiss.index.cpu.exact import rounding_error
from semrec_faiss.search.explanation import count_before

COUNT, DIM = 3000, 33


@pytest.fixture(scope="module", params=[True, False], ids=["unit length", "lengths count"])
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """Titles that lie on a few lines, at different lengths: nearly tied, and often the same once rounded."""
    random = np.random.default_rng(5)
    lines = random.normal(size=(12, DIM)).astype(np.float32)
    vectors = lines[random.integers(12, size=COUNT)] * random.uniform(0.1, 9, size=(COUNT, 1))
    titles = {"media_id": [f"m{row}" for row in range(COUNT)], "title": [f"Film {row}" for row in range(COUNT)]}
    users = {f"u{user}": random.normal(size=DIM).astype(np.float32) for user in range(5)}
    users |= {f"twin{user}": lines[user % 3] * float(random.uniform(1, 2)) for user in range(200)}
    interactions = {"user": ["u0"] * 40, "item": [f"m{row}" for row in range(40)]}
    output: Path = tmp_path_factory.mktemp("twins") / "index"
    config: dict[str, Any] = {"index": {"type": "flat", "normalize": request.param}}
    return semrec_faiss.build(
        vectors.astype(np.float32), titles, users=users, interactions=interactions, config=config, output=output
    )


def test_similar_titles_are_in_the_order_of_rows(twins: Recommender) -> None:
    vectors = twins.index.vectors(np.arange(COUNT)).astype(np.float64)
    if not twins.index.config.normalize:
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    for row in (0, 7, 2999):
        cosines = (vectors @ vectors[row].astype(np.float32).astype(np.float64)).astype(np.float32)
        cosines[row] = -np.inf
        for k in (1, 40, 700):
            answer = twins.similar(f"m{row}", k)
            assert answer.rows.tolist() == np.lexsort((np.arange(COUNT), -cosines))[:k].tolist()
            assert answer.exact and answer.matching == COUNT - 1


def test_the_rank_that_is_told_is_that_of_the_list(twins: Recommender) -> None:
    for user in ("u0", "u4"):
        places = {result.media_id: result.rank for result in twins.recommend(user, COUNT)}
        for row in (41, 500, 1777, 2998):
            why = twins.explain(user, f"m{row}")
            assert why.rank == places[f"m{row}"]
            assert why.of == len(places) and np.float32(why.score) == twins.recommend(user, COUNT).scores[why.rank - 1]


def test_similar_users_are_in_the_order_of_rows(twins: Recommender) -> None:
    vectors = twins.users.vectors.astype(np.float64)
    if not twins.index.config.normalize:
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    for user in ("u1", "twin4", "twin199"):
        row = twins.users.ids.index(user)
        scores = (vectors @ vectors[row].astype(np.float32).astype(np.float64)).astype(np.float32)
        scores[row] = -np.inf
        for k in (1, 20, 60, 204):
            expected = np.lexsort((np.arange(len(scores)), -scores))[:k]
            assert [found.user_id for found in twins.similar_users(user, k)] == [twins.users.ids[at] for at in expected]
        assert len(twins.similar_users(user, 999)) == 204


def test_the_lengths_of_all_users(twins: Recommender) -> None:
    """What products are divided by; read once, and not where they are known."""
    lengths = np.linalg.norm(twins.users.vectors.astype(np.float64), axis=1)
    np.testing.assert_allclose(twins.users.lengths, lengths, rtol=1e-6)
    assert (set(twins.users.lengths.tolist()) == {1.0}) == twins.index.config.normalize


@pytest.mark.parametrize("norm", [1.0, 1.1, 1.3, 1.5, 1.6])
def test_a_title_at_the_edge_of_rounding_is_counted_once(norm: float) -> None:
    vectors = (1 + np.arange(12, dtype=np.float32) * np.float32(2**-23))[:, None]  # each next to the one before
    index: Any = SimpleNamespace(
        count=12,
        block=lambda first, last: vectors[first:last],
        rounding_error=lambda query: rounding_error(query, norm),
    )
    for row in range(12):
        before = count_before(index, np.ones(1, np.float32), row, vectors[row, 0], np.empty(0, np.int64))
        assert before == 11 - row
