"""Metrics on cases small enough to compute by hand, and their laws on random ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.measure.quality.metrics import (
    Latency,
    confidence_interval,
    descending,
    exact_scores,
    fill_rate,
    mean_of,
    ndcg_at_k,
    recall_at_k,
    wilson_interval,
)

NONE = -np.inf


def rows_of(*lists: list[int]) -> np.ndarray:
    return np.array(lists, dtype=np.int64)


def scores_of(*lists: list[float]) -> np.ndarray:
    return np.array(lists, dtype=np.float32)


@pytest.mark.parametrize(
    ("rows", "scores", "truth", "expected"),
    [
        ([3, 1, 2], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7], 1.0),
        ([1, 2, 3], [0.8, 0.7, 0.9], [0.9, 0.8, 0.7], 1.0),  # recall does not see the order
        ([3, 1, 9], [0.9, 0.8, 0.1], [0.9, 0.8, 0.7], 2 / 3),
        ([3, -1, -1], [0.9, NONE, NONE], [0.9, 0.8, 0.7], 1 / 3),  # came up short
        ([-1, -1, -1], [NONE, NONE, NONE], [0.9, 0.8, 0.7], 0.0),
        ([3, 3, 3], [0.9, 0.9, 0.9], [0.9, 0.8, 0.7], 1 / 3),  # one title three times
        ([3, 1, 8], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7], 1.0),  # title 8 ties with the last of the list
        ([7, 8, 9], [0.7, 0.7, 0.7], [0.9, 0.7, 0.7], 2 / 3),  # ties cannot stand in for the best one
        ([7, 8, 9], [0.7, 0.7, 0.7], [0.7, 0.7, 0.7], 1.0),
        ([3, 1, -1], [0.9, 0.8, NONE], [0.9, 0.8, NONE], 1.0),  # only two titles match
        ([3, -1, -1], [0.9, NONE, NONE], [0.9, 0.8, NONE], 0.5),
        ([3, 1, 2], [0.9, 0.8, 0.7], [0.9, 0.8, NONE], 1.0),  # more than match is no more than all
        ([3, 1, 2], [-0.5, -0.6, -0.9], [-0.5, -0.6, -0.7], 2 / 3),  # inner products may be negative
        ([3, 1, 2], [400.0, 300.0, 100.0], [400.0, 300.0, 200.0], 2 / 3),  # and large
    ],
)
def test_recall(rows: list[int], scores: list[float], truth: list[float], expected: float) -> None:
    found = recall_at_k(rows_of(rows), scores_of(scores), scores_of(truth))
    assert found == pytest.approx([expected])


def test_recall_where_nothing_matches_is_no_number() -> None:
    truth = scores_of([NONE, NONE], [0.2, 0.2])
    found = recall_at_k(rows_of([-1, -1], [4, 5]), scores_of([NONE, NONE], [0.2, 0.1]), truth)
    assert np.isnan(found[0])
    assert found[1] == 0.5
    assert mean_of(found) == 0.5
    assert mean_of(found[:1]) is None


def test_tie_within_float32_noise_and_no_wider() -> None:
    truth = scores_of([0.9, 0.8])
    assert recall_at_k(rows_of([3, 9]), scores_of([0.9, 0.8 - 1e-6]), truth) == [1.0]
    assert recall_at_k(rows_of([3, 9]), scores_of([0.9, 0.8 - 1e-5]), truth) == [0.5]
    assert recall_at_k(rows_of([3, 9]), scores_of([0.9, 0.79]), truth, tolerance=0.02) == [1.0]


def test_ndcg_by_hand() -> None:
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    cases = [
        ([3, 1, 2], [0.9, 0.8, 0.7], ideal),
        ([2, 1, 3], [0.7, 0.8, 0.9], 1 + 2 / math.log2(3) + 3 / 2),  # backwards
        ([1, 2, 9], [0.8, 0.7, 0.1], 2 + 1 / math.log2(3)),  # the best is missed
        ([3, 1, -1], [0.9, 0.8, NONE], 3 + 2 / math.log2(3)),
        ([3, 3, 1], [0.9, 0.9, 0.8], 3 + 2 / 2),  # the repeat gains nothing, and keeps its rank
        ([-1, -1, -1], [NONE, NONE, NONE], 0.0),
    ]
    truth = scores_of([0.9, 0.8, 0.7])
    for rows, scores, gained in cases:
        assert ndcg_at_k(rows_of(rows), scores_of(scores), truth) == pytest.approx([gained / ideal])


def test_ndcg_of_titles_that_tie() -> None:
    truth = scores_of([0.9, 0.8, 0.8])  # gains 3, 2, 2
    ideal = 3 + 2 / math.log2(3) + 2 / 2
    assert ndcg_at_k(rows_of([5, 7, 8]), scores_of([0.9, 0.8, 0.8]), truth) == pytest.approx([1.0])
    assert ndcg_at_k(rows_of([7, 8, 9]), scores_of([0.8, 0.8, 0.8]), truth) == pytest.approx(
        [(2 + 2 / math.log2(3) + 1) / ideal]
    )


def test_ndcg_with_fewer_matches_than_k() -> None:
    truth = scores_of([0.9, NONE], [NONE, NONE])
    found = ndcg_at_k(rows_of([4, -1], [-1, -1]), scores_of([0.9, NONE], [NONE, NONE]), truth)
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_fill_rate() -> None:
    rows = rows_of([1, 2, 3], [1, -1, -1], [-1, -1, -1], [5, 5, -1])
    assert fill_rate(rows, 100) == pytest.approx([1, 1 / 3, 0, 1 / 3])
    assert fill_rate(rows, np.array([3, 1, 2, 2])) == pytest.approx([1, 1, 0, 0.5])
    assert np.isnan(fill_rate(rows, 0)).all()


def test_exact_scores_are_inner_products_and_minus_infinity_for_none() -> None:
    vectors = scores_of([1, 0], [0, 1], [0.6, 0.8])
    queries = scores_of([1, 0], [0, 2])
    found = exact_scores(queries, rows_of([2, -1], [1, 2]), lambda rows: vectors[rows])
    assert found[0] == pytest.approx([0.6, NONE])
    assert found[1] == pytest.approx([2, 1.6])
    assert exact_scores(queries, np.empty((2, 0), np.int64), lambda rows: vectors[rows]).shape == (2, 0)


def test_descending_keeps_what_is_missing_last() -> None:
    assert descending(scores_of([0.1, NONE, 0.3])).tolist() == [[pytest.approx(0.3), pytest.approx(0.1), NONE]]


def test_latency_by_hand() -> None:
    summary = Latency.of([float(value) for value in range(1, 101)])
    assert (summary.mean_ms, summary.p50_ms) == (50.5, 50.5)
    assert summary.p95_ms == pytest.approx(95.05)  # between the 95th and the 96th, a twentieth of the way
    assert summary.p99_ms == pytest.approx(99.01)
    assert Latency.of([7.0]) == Latency(7.0, 7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no times"):
        Latency.of([])


def test_wilson_interval_of_a_textbook_case() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, method 3.
    found = wilson_interval(81, 263)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    assert wilson_interval(0, 20).high == pytest.approx(0.1611, abs=5e-5)  # the same table, 0 of 20


def test_interval_names_its_method_and_never_claims_certainty() -> None:
    perfect = confidence_interval(np.ones(50))
    assert perfect is not None
    assert (perfect.method, perfect.high) == ("wilson", 1.0)
    assert perfect.low == pytest.approx(50 / (50 + 1.959964**2), abs=1e-5)
    mixed = confidence_interval(np.array([1.0, 0.5] * 200))
    assert mixed is not None
    half = 1.96 * 0.25 / math.sqrt(400)  # the normal approximation, good for 400 values
    assert mixed.method == "bootstrap"
    assert (mixed.low, mixed.high) == (pytest.approx(0.75 - half, abs=3e-3), pytest.approx(0.75 + half, abs=3e-3))
    assert mixed == confidence_interval(np.array([1.0, 0.5] * 200)), "the same values, the same interval"
    assert confidence_interval(np.array([np.nan])) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 30))
def test_laws_on_random_answers(seed: int, k: int, titles: int) -> None:
    random = np.random.default_rng(seed)
    all_scores = random.integers(-5, 6, (4, titles)).astype(np.float32)  # whole numbers: many ties
    truth = np.full((4, k), NONE, np.float32)
    best = -np.sort(-all_scores, axis=1)[:, :k]
    truth[:, : best.shape[1]] = best
    found = np.stack([random.permutation(np.concatenate([np.arange(titles), [-1] * k]))[:k] for _ in range(4)])
    own = np.where(found < 0, NONE, np.take_along_axis(all_scores, np.maximum(found, 0), axis=1)).astype(np.float32)
    recall, ndcg = recall_at_k(found, own, truth), ndcg_at_k(found, own, truth)
    assert ((recall >= 0) & (recall <= 1) & (ndcg >= 0) & (ndcg <= 1 + 1e-12)).all()
    for query in range(4):  # multiset overlap of scores is what crediting ties means
        left = truth[query][np.isfinite(truth[query])].tolist()
        size = len(left)
        for score in own[query][found[query] >= 0].tolist():
            if score in left:
                left.remove(score)
        strictly = (size - len(left)) / size
        assert recall[query] == pytest.approx(strictly)
    order = np.argsort(-own, axis=1, kind="stable")
    sorted_ndcg = ndcg_at_k(np.take_along_axis(found, order, 1), np.take_along_axis(own, order, 1), truth)
    assert (sorted_ndcg >= ndcg - 1e-12).all(), "best first is never worse"
