"""The same answer alone, in any batch and order, asked twice, reopened and rebuilt, over data full of duplicates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.cpu.exact import inner_products, rounding_error, settled
from semrec_faiss.search.recommender import Recommender

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")

TYPES: dict[str, dict[str, Any]] = {
    "flat": {"type": "flat"},
    "fused": {"type": "fused"},
    "ivf_flat": {"type": "ivf_flat", "build": {"nlist": 16}, "search": {"nprobe": 3}},
    "ivf_sq": {"type": "ivf_sq", "build": {"nlist": 16}, "search": {"nprobe": 3}},
    "ivf_pq": {"type": "ivf_pq", "build": {"nlist": 16, "M": 8}, "search": {"nprobe": 3, "refine": 2}},
    "hnsw": {"type": "hnsw", "search": {"efSearch": 16}},
}

WISHES: list[dict[str, Any]] = [
    {"k": 1},
    {"k": 7},
    {"k": 7, "include_seen": True},
    {"k": 9, "where": "'Drama' IN genres"},
    {"k": 5, "where": "runtime < 70"},
    {"k": 6, "diversity": 0.4},
    {"k": 6, "max_per": {"year": 1}, "where": "runtime < 120"},
    {"k": 8, "exclude": ["m00003", "m00007"]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Path:
    """600 titles of 200 vectors, three times each, the last copies off by a last bit."""
    rng = np.random.default_rng(5)
    once = rng.normal(size=(200, 32)).astype(np.float32)
    vectors = np.concatenate([once, once, once * np.float32(1 + 2**-23)])
    root = tmp_path_factory.mktemp("duplicates")
    make_folder(root, vectors=vectors, users=40, seed=3)
    return root


def build(folder: Path, output: Path, index: dict[str, Any]) -> Recommender:
    build_index(config_from_dict({"dataset": folder, "output": output, "index": index, "device": "cpu"}))
    return Recommender.open(output)


Lists = list[tuple[list[str], list[float]]]


def lists(answers: Any) -> Lists:
    return [([r.media_id for r in answer.results], [r.score for r in answer.results]) for answer in answers]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_the_same_answer_however_it_is_asked(kind: str, folder: Path, tmp_path: Path) -> None:
    recommender = build(folder, tmp_path / "index", TYPES[kind])
    users = list(recommender.users.ids)
    order = np.random.default_rng(1).permutation(len(users))
    for wish in WISHES:
        batch = lists(recommender.recommend(users, **wish))
        alone = [lists([recommender.recommend(user, **wish)])[0] for user in users]
        assert alone == batch, wish
        permuted = lists(recommender.recommend([users[i] for i in order], **wish))
        assert permuted == [batch[i] for i in order], wish
        assert lists(recommender.recommend(users[5:25], **wish)) == batch[5:25], wish
        assert lists(recommender.recommend(users, **wish)) == batch, "asked twice"
    again = Recommender.open(tmp_path / "index")
    rebuilt = build(folder, tmp_path / "rebuilt", TYPES[kind])
    for wish in WISHES:
        batch = lists(recommender.recommend(users, **wish))
        assert lists(again.recommend(users, **wish)) == batch, "reopened"
        assert lists(rebuilt.recommend(users, **wish)) == batch, "rebuilt"


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_the_same_answer_to_vectors_and_titles_also_after_an_update(kind: str, folder: Path, tmp_path: Path) -> None:
    """Once a fault: under a filter, one query and a batch, or asking twice, gave approximate types other lists."""
    recommender = build(folder, tmp_path / "index", TYPES[kind])
    asked = np.random.default_rng(9).normal(size=(12, 32)).astype(np.float32)
    wishes = [{"k": 1}, {"k": 7, "where": "'Drama' IN genres"}, {"k": 5, "where": "runtime < 70"}]
    for step in ("built", "updated"):
        if step == "updated":
            recommender.update(remove_titles=[f"m{row:05d}" for row in range(0, 60, 7)])
        for wish in wishes:
            batch = lists(recommender.search(asked, **wish))
            assert [lists(recommender.search(one, **wish))[0] for one in asked] == batch, (step, wish)
            assert lists(recommender.search(asked[::-1], **wish)) == batch[::-1], (step, wish)
            assert lists(recommender.search(asked, **wish)) == batch, "asked twice"
            titles = lists([recommender.similar("m00003", **wish)])
            assert lists([Recommender.open(tmp_path / "index").similar("m00003", **wish)]) == titles, (step, wish)


def test_duplicates_are_in_the_order_of_their_rows(folder: Path, tmp_path: Path) -> None:
    recommender = build(folder, tmp_path / "index", {"type": "flat"})
    titles, users = recommender.index.vectors(np.arange(600)), np.asarray(recommender.users.vectors)
    for k in (1, 2, 3, 10):
        scores, rows = one_way(users, titles, k)
        answers = recommender.recommend(list(recommender.users.ids), k, include_seen=True)
        np.testing.assert_array_equal([answer.rows for answer in answers], rows)
        np.testing.assert_array_equal([answer.scores for answer in answers], scores)
        assert k == 1 or (scores[:, 0] == scores[:, 1]).any(), "there are ties to be put in order"


# --- what a matrix product rounds -----------------------------------------------------------------------------------


def one_way(queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int) -> tuple[Any, Any]:
    """Rank by the float64 product, rounded to float32, ties by row."""
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    rows = np.broadcast_to(np.arange(len(vectors)), scores.shape)
    best = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, best, axis=1), best


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    titles=st.integers(1, 60),
    queries=st.integers(1, 5),
    k=st.integers(1, 12),
    copies=st.integers(1, 60),
    ties_alone=st.booleans(),
)
def test_what_rounding_turns_round_is_put_right(
    seed: int, titles: int, queries: int, k: int, copies: int, ties_alone: bool
) -> None:
    """The search's scores are off by as much as float32 arithmetic may be, another way at every call."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(max(1, titles // copies), 16))
    vectors = base[rng.integers(len(base), size=titles)] + rng.normal(size=(titles, 16)) * rng.choice([0, 1e-8, 1e-6])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    asked = rng.normal(size=(queries, 16)).astype(np.float32)
    norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    error = rounding_error(asked, norm)
    k = min(k, titles)

    def noisy(some: NDArray[np.float32], fetch: int) -> tuple[Any, Any]:
        exact = some.astype(np.float64) @ vectors.astype(np.float64).T
        bound = rounding_error(some, norm).astype(np.float64)[:, None]
        scores = (exact + rng.uniform(-0.95, 0.95, size=exact.shape) * bound).astype(np.float32)
        best = np.argsort(-scores, axis=1)[:, :fetch]
        return np.take_along_axis(scores, best, axis=1), best

    scores, rows = settled(noisy, asked, k, titles, error, lambda rows: vectors[rows], ties_alone=ties_alone)
    true_scores, true_rows = one_way(asked, vectors, k)
    np.testing.assert_array_equal(rows, true_rows)
    if ties_alone:
        np.testing.assert_allclose(scores, true_scores, rtol=0, atol=float(error.max()))
    else:
        np.testing.assert_array_equal(scores, true_scores)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), dim=st.sampled_from([1, 2, 31, 384, 1000]), count=st.integers(1, 9))
def test_products_hang_on_neither_batch_nor_place(seed: int, dim: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(7, dim)).astype(np.float32)
    vectors = rng.normal(size=(7, count, dim)).astype(np.float32)
    together = inner_products(queries, vectors)
    for q in range(7):
        for v in range(count):
            alone = inner_products(queries[q : q + 1], vectors[q : q + 1, v : v + 1])
            assert alone[0, 0] == together[q, v]
    true = np.einsum("qvd,qd->qv", vectors.astype(np.longdouble), queries.astype(np.longdouble))
    np.testing.assert_allclose(together, true.astype(np.float64), rtol=6e-8, atol=1e-30)
