"""VectorIndex beyond the contract: preparing queries, unnormalised vectors, limits, the scan that completes a query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import DataError, SemrecError, UsageError
from semrec_faiss.index.cpu import exact
from semrec_faiss.index.cpu.exact import order_ties, rescore, scan
from semrec_faiss.index.cpu.products import best_of_one
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.vector_index import VectorIndex

MakeIndex = Callable[..., VectorIndex]

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")


@pytest.fixture(scope="module")
def titles(clusters: Callable[..., NDArray[np.float32]]) -> NDArray[np.float32]:
    """500 unit vectors of 12 dimensions."""
    return clusters(500, 12, seed=9)


# --- preparing queries ----------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.just(5)), elements=st.floats(-1, 1)),
    st.integers(-300, 300),
)
def test_prepared_queries_have_unit_length_and_the_same_direction(
    make_index: MakeIndex, queries: NDArray[np.float64], exponent: int
) -> None:
    queries[np.abs(queries).max(axis=1) < 1e-3, 0] = 1.0
    index = make_index(np.eye(5), {"type": "flat"})
    prepared = index.prepare(queries * 10.0**exponent)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(prepared, axis=1), 1.0, atol=1e-6)
    expected = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    np.testing.assert_allclose(prepared, expected, rtol=0, atol=1e-6)


def test_preparing_twice_changes_nothing_that_matters(titles: NDArray[np.float32], make_index: MakeIndex) -> None:
    index = make_index(titles, {"type": "flat"})
    once = index.prepare(titles[:9] * 5)
    np.testing.assert_allclose(index.prepare(once), once, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(
        index.search(once, 5, prepared=True).rows, index.search(titles[:9] * 5, 5, prepared=False).rows
    )


def test_without_normalising_scores_are_inner_products(make_index: MakeIndex) -> None:
    rng = np.random.default_rng(4)
    vectors, queries = rng.normal(size=(200, 6)) * rng.uniform(0.1, 50, (200, 1)), rng.normal(size=(7, 6)) * 3
    for kind in ({"type": "flat"}, {"type": "ivf_flat", "build": {"nlist": 4}, "search": {"nprobe": 4}}):
        found = make_index(vectors, {**kind, "normalize": False}).search(queries, 9)
        all_scores = queries @ vectors.astype(np.float32).T.astype(np.float64)
        best = -np.sort(-all_scores, axis=1)[:, :9]
        np.testing.assert_allclose(found.scores, best, rtol=1e-5)
        np.testing.assert_allclose(np.take_along_axis(all_scores, found.rows, axis=1), best, rtol=1e-5)
        assert found.exact


def test_without_normalising_a_zero_query_scores_every_title_zero(
    make_index: MakeIndex, titles: NDArray[np.float32]
) -> None:
    index = make_index(titles, {"type": "flat", "normalize": False})
    found = index.search(np.zeros((1, 12)), 20)
    assert found.scores.tolist() == [[0.0] * 20]
    assert (np.diff(found.rows[0]) > 0).all()


@pytest.mark.parametrize("value", [1e39, 1e100, 1e200, 1e308])
def test_without_normalising_what_float32_cannot_hold_is_refused(
    make_index: MakeIndex, titles: NDArray[np.float32], value: float
) -> None:
    # Once a fault: up to 1e154, whose square float64 holds, it became infinite without a word.
    index = make_index(titles, {"type": "flat", "normalize": False})
    queries = np.ones((3, 12))
    queries[1, 4] = value
    with pytest.raises(DataError, match=r"queries\[1\] .*float32"):
        index.search(queries, 3)


def test_scores_that_float32_cannot_hold_are_refused_or_right(make_index: MakeIndex) -> None:
    # Once a fault: the first title's true score is 0; it came back as infinite and first.
    index = make_index(np.array([[1e30, 1e30], [2, -1], [1, 1]]), {"type": "flat", "normalize": False})
    try:
        found = index.search(np.array([[1e30, -1e30]]), 3)
    except SemrecError:
        return
    assert found.rows[0, 0] == 1
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("queries", [[[1.0] * 12, [1.0]], None, 3, "title", {"a": 1}, [[10**400] * 12]])
def test_what_is_no_array_is_refused(make_index: MakeIndex, titles: NDArray[np.float32], queries: Any) -> None:
    # Once a fault: ragged lists ended in ValueError, what has no length in TypeError.
    with pytest.raises(UsageError):
        make_index(titles, {"type": "flat"}).search(queries, 3)


# --- few titles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "ivf_sq", "hnsw"])
def test_an_index_of_very_few_titles_answers(
    make_index: MakeIndex, titles: NDArray[np.float32], kind: str, count: int
) -> None:
    index = make_index(titles[:count], {"type": kind})
    for k in (1, count, count + 5):
        found = index.search(titles[:4], k)
        assert found.rows.shape == (4, min(k, count))
        assert (found.rows >= 0).all()
    assert (np.sort(index.search(titles[:4], count).rows, axis=1) == np.arange(count)).all()


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 31])
@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw"])
def test_any_dimension_will_do(make_index: MakeIndex, clusters: Any, kind: str, dim: int) -> None:
    vectors = clusters(300, dim, seed=2)
    found = make_index(vectors, {"type": kind}).search(vectors[:5], 3)
    assert found.rows.shape == (5, 3)
    np.testing.assert_allclose(found.scores[:, 0], 1.0, atol=1e-2)


# --- search settings that are out of all range ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [2**31, 2**32, 2**63, 10**30, 10**400], ids=["2^31", "2^32", "2^63", "1e30", "1e400"]
)
@pytest.mark.parametrize(
    ("kind", "setting"), [("ivf_flat", "nprobe"), ("ivf_pq", "refine"), ("hnsw", "efSearch"), ("factory", "nprobe")]
)
def test_an_enormous_search_setting_is_refused_or_means_all(
    make_index: MakeIndex, titles: NDArray[np.float32], kind: str, setting: str, number: int
) -> None:
    # Once a fault: OverflowError or TypeError from FAISS, or "'cur_nprobe > 0' failed" at every search.
    chosen = {"factory": "IVF4,Flat"} if kind == "factory" else {"type": kind}
    try:
        index = make_index(titles, {**chosen, "search": {setting: number}})
    except UsageError as error:
        assert setting in str(error)
        return
    found = index.search(titles[:3], 5)
    np.testing.assert_allclose(found.scores[:, 0], 1.0, atol=1e-5)


def test_a_graph_never_keeps_more_candidates_than_there_are_titles(
    make_index: MakeIndex, titles: NDArray[np.float32]
) -> None:
    # FAULT: FAISS takes memory for all of efSearch, here 80 s and some 16 GB for every search of 500 titles.
    try:
        index = make_index(titles, {"type": "hnsw", "search": {"efSearch": 2**31 - 1}})
    except UsageError:
        return
    assert index.cpu_index.hnsw.efSearch <= len(titles)
    np.testing.assert_allclose(index.search(titles[:3], 5).scores[:, 0], 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "setting"), [("ivf_flat", "seed"), ("hnsw", "efConstruction"), ("ivf_flat", "nlist"), ("ivf_pq", "M")]
)
@pytest.mark.parametrize("number", [2**31, 10**30])
def test_an_enormous_build_setting_is_refused(
    make_index: MakeIndex, titles: NDArray[np.float32], kind: str, setting: str, number: int
) -> None:
    # Once a fault: OverflowError from FAISS.
    with pytest.raises(UsageError, match=setting):
        make_index(titles, {"type": kind, "build": {setting: number}})


# --- how a result came about ----------------------------------------------------------------------------------------


def test_exact_says_whether_a_scan_would_find_the_same(make_index: MakeIndex, titles: NDArray[np.float32]) -> None:
    def is_exact(kind: str, nprobe: int | None = None) -> bool:
        search = {} if nprobe is None else {"search": {"nprobe": nprobe}}
        build = {"build": {"nlist": 8}} if kind.startswith("ivf") else {}
        return make_index(titles, {"type": kind, **build, **search}).exact

    assert is_exact("flat")
    assert not is_exact("ivf_flat", 7)
    assert is_exact("ivf_flat", 8)
    assert is_exact("ivf_flat", 9)
    assert not is_exact("ivf_sq", 8)
    assert not is_exact("ivf_pq", 8)
    assert not is_exact("hnsw")


def test_the_strategy_says_how_titles_were_found(make_index: MakeIndex, titles: NDArray[np.float32]) -> None:
    def strategy(settings_of: dict[str, Any], k: int) -> str:
        return make_index(titles, settings_of).search(titles[:5], k).strategy

    assert strategy({"type": "flat"}, 500) == "index"
    assert strategy({"type": "ivf_pq", "build": {"nlist": 4}}, 3) == "refine"
    assert strategy({"type": "ivf_pq", "build": {"nlist": 4}, "search": {"refine": None}}, 3) == "index"
    assert strategy({"factory": "IVF8,Flat"}, 500) == "index+scan"  # no nprobe to raise: scanned
    assert strategy({"factory": "IVF8,SQ8", "search": {"refine": 2}}, 500) == "refine+scan"


@pytest.mark.parametrize("settings_of", [{"type": "hnsw"}, {"factory": "IVF8,Flat"}], ids=["hnsw", "factory"])
def test_what_an_exact_scan_completes_is_the_same_in_any_batch(
    settings_of: dict[str, Any], make_index: MakeIndex, clusters: Any
) -> None:
    """Once a fault: products of a batch are rounded otherwise than those of one query, and so were scores and order."""
    vectors = clusters(4000, 96, clusters=40, seed=8)
    index, queries = make_index(vectors, settings_of), vectors[:40]
    batch = index.search(queries, 4000)
    assert batch.strategy == "index+scan"
    for query in range(5):
        alone = index.search(queries[query : query + 1], 4000)
        np.testing.assert_array_equal(alone.rows[0], batch.rows[query])
        np.testing.assert_array_equal(alone.scores[0], batch.scores[query])


def test_refining_gives_exact_scores_and_never_fewer_hits(
    make_index: MakeIndex, clusters: Any, truth: Callable[..., Any]
) -> None:
    vectors = clusters(3000, 24, clusters=40, seed=8)
    queries = vectors[::50] + 0.02
    unit_queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    best, _ = truth(vectors, unit_queries, 10)
    hits = []
    for refine in (None, 1, 4, 16):
        settings_of = {"type": "ivf_pq", "build": {"nlist": 4, "M": 6}, "search": {"nprobe": 4, "refine": refine}}
        found = make_index(vectors, settings_of).search(queries, 10)
        own = np.einsum("qkd,qd->qk", vectors[found.rows], unit_queries)
        if refine:
            np.testing.assert_allclose(found.scores, own, rtol=0, atol=1e-5)
        hits.append(int((own >= best[:, -1:] - 1e-6).sum()))
    assert hits == sorted(hits)
    assert hits[0] < hits[2] < hits[3]


def test_more_lists_never_find_less(make_index: MakeIndex, clusters: Any, truth: Callable[..., Any]) -> None:
    vectors = clusters(3000, 16, clusters=200, spread=1.0, seed=8)
    best, _ = truth(vectors, vectors[:100], 10)
    hits = []
    for nprobe in (1, 4, 16, 64):
        settings_of = {"type": "ivf_flat", "build": {"nlist": 64}, "search": {"nprobe": nprobe}}
        found = make_index(vectors, settings_of).search(vectors[:100], 10)
        hits.append(int((found.scores >= best[:, -1:] - 1e-6).sum()))
    assert hits == sorted(hits)
    assert hits[0] < hits[-1] == 1000


def test_an_index_that_quantises_is_not_opened_without_its_vectors(
    make_index: MakeIndex, titles: NDArray[np.float32]
) -> None:
    index = make_index(titles, {"type": "ivf_sq"})
    with pytest.raises(DataError, match="original vectors"):
        VectorIndex(index.cpu_index, index.config)


def test_a_cpu_has_no_limit_of_k_and_a_gpu_shares_it_with_refine(
    make_index: MakeIndex, titles: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, limit in (("flat", 2048), ("ivf_pq", 512)):
        index = make_index(titles, {"type": kind})
        assert index.k_limit is None
        monkeypatch.setattr(index, "device", Device(gpus=(0,)))
        assert index.k_limit is None, "500 titles are never more than the limit"
        monkeypatch.setattr(index, "count", 5000)
        assert index.k_limit == limit
        with pytest.raises(UsageError, match=rf"k is {limit + 1}, over the GPU's limit of {limit}"):
            index.search(titles[:1], limit + 1)


def test_refine_that_leaves_no_k_on_a_gpu_is_refused_when_the_config_is_read() -> None:
    # Once a fault: every k was then "over the GPU's limit of 0".
    with pytest.raises(UsageError, match="refine"):
        config_from_dict({"index": {"type": "ivf_pq", "search": {"refine": 4096}}, "device": {"kind": "gpu"}})


# --- exact.py -------------------------------------------------------------------------------------------------------


def test_scan_in_steps_gives_what_brute_force_gives(
    titles: NDArray[np.float32], truth: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "SCAN_ROWS", 37)
    for k in (1, 36, 37, 38, 500):
        scores, rows = scan(titles[:7], k, 500, lambda wanted: titles[wanted])
        best, _ = truth(titles, titles[:7], k)
        np.testing.assert_allclose(scores, best, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.einsum("qkd,qd->qk", titles[rows], titles[:7]), best, rtol=0, atol=1e-5)
        assert all(len(set(row)) == k for row in rows.tolist())


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rescoring_ranks_candidates_exactly_and_missing_ones_last(data: st.DataObject) -> None:
    vectors = np.arange(1.0, 13.0, dtype=np.float32).reshape(12, 1) % 5
    width = data.draw(st.integers(1, 8))
    candidates = np.full((3, width), -1, np.int64)
    for query in range(3):
        known = data.draw(st.lists(st.integers(0, 11), max_size=width, unique=True))
        candidates[query, : len(known)] = known
        candidates[query] = data.draw(st.permutations(candidates[query].tolist()))
    k = data.draw(st.integers(1, width))
    scores, rows = rescore(np.ones((3, 1), np.float32), candidates, k, lambda wanted: vectors[wanted])
    for query in range(3):
        ranked = sorted(
            (row for row in candidates[query].tolist() if row >= 0), key=lambda row: (-vectors[row, 0], row)
        )
        padded = (ranked + [-1] * width)[:k]
        assert rows[query].tolist() == padded
        assert scores[query].tolist() == [vectors[row, 0] if row >= 0 else -np.inf for row in padded]


def test_ordering_ties_moves_nothing_else() -> None:
    scores = np.array([[3, 3, 3, 2, 1, 1], [5, 4, 3, 2, 1, 0]], np.float32)
    rows = np.array([[9, 2, 5, 7, 8, 1], [5, 4, 3, 2, 1, 0]], np.int64)
    order_ties(scores, rows)
    assert rows.tolist() == [[2, 5, 9, 7, 1, 8], [5, 4, 3, 2, 1, 0]]
    assert scores.tolist() == [[3, 3, 3, 2, 1, 1], [5, 4, 3, 2, 1, 0]]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 129, 640, 1000])
@pytest.mark.parametrize("k", [1, 3, 10, 400])
def test_a_single_query_of_a_flat_index_is_scanned_exactly(count: int, k: int) -> None:
    """Many exact ties: vectors are drawn from a few, so that blocks and bounds are full of equal scores."""
    rng = np.random.default_rng(count * k)
    vectors = rng.integers(-2, 3, (max(2, count // 9), 5)).astype(np.float32)[
        rng.integers(0, max(2, count // 9), count)
    ]
    query = rng.integers(-2, 3, (1, 5)).astype(np.float32)
    wanted = min(k, count)
    scores, rows = best_of_one(query, wanted, vectors)
    exact = vectors @ query[0]  # small whole numbers: no rounding
    order = np.lexsort((np.arange(count), -exact))[:wanted]
    np.testing.assert_array_equal(rows[0], order)
    np.testing.assert_array_equal(scores[0], exact[order])


@pytest.mark.parametrize("count", [1, 700, 20_000])
def test_the_best_of_one_among_vectors_at_odd_addresses(clusters: Any, truth: Callable[..., Any], count: int) -> None:
    """A mapped index file holds its vectors 45 bytes behind its start."""
    aligned = clusters(count, 24, seed=9)
    raw = np.zeros(aligned.nbytes + 45, np.uint8)
    raw[45:] = np.frombuffer(aligned.tobytes(), np.uint8)
    odd = raw[45:].view(np.float32).reshape(aligned.shape)
    assert not odd.flags.aligned
    query = clusters(1, 24, seed=10)
    k = min(10, count)
    scores, rows = best_of_one(query, k, odd)
    expected_scores, expected_rows = truth(aligned, query, k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


# --- search settings that change ------------------------------------------------------------------------------------


def test_search_settings_change_without_loading_anything_again(
    make_index: MakeIndex, titles: NDArray[np.float32]
) -> None:
    def made(nprobe: int) -> VectorIndex:
        return make_index(titles, {"type": "ivf_flat", "build": {"nlist": 8}, "search": {"nprobe": nprobe}})

    index = made(1)
    for nprobe in (8, 2, 1):
        expected = made(nprobe)
        index.set_search(expected.config)
        assert index.exact == expected.exact
        assert np.array_equal(index.search(titles[:50], 10).rows, expected.search(titles[:50], 10).rows)
    other = make_index(titles, {"type": "ivf_flat", "build": {"nlist": 4}, "search": {"nprobe": 1}})
    with pytest.raises(UsageError, match="only the search settings"):
        index.set_search(other.config)
