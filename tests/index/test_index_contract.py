"""One contract for every index type, on CPU and on GPU: what DESIGN.md says that every search promises."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from semrec_faiss.errors import DataError, DeviceError, UsageError
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.search_result import SearchResult
from semrec_faiss.index.vector_index import VectorIndex

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")

DIM = 32
DUPLICATES = 40
K = 10


@dataclass(frozen=True)
class Case:
    """One way to index: its settings, how near its scores are to the true ones, and the recall to hold at k = 10."""

    settings: dict[str, Any]
    tolerance: float = 1e-5
    recall: float = 1.0
    exact: bool = False
    gpu: bool = True


def _ivf(kind: str, nlist: int, nprobe: int, *, refine: int | None = None, **build: Any) -> dict[str, Any]:
    search = {"nprobe": nprobe} | ({"refine": refine} if kind == "ivf_pq" else {})
    return {"type": kind, "build": {"nlist": nlist, **build}, "search": search}


# Recall was measured on this data and is held a little below: 1.000, 0.999, 0.989, 0.906, 0.444, 1.000, 0.971, 0.846.
CASES = {
    "flat": Case({"type": "flat"}, exact=True),
    "fused": Case({"type": "fused"}, exact=True),
    "ivf_flat": Case(_ivf("ivf_flat", 64, 8), recall=0.99),
    "ivf_flat_all_lists": Case(_ivf("ivf_flat", 16, 16), exact=True),
    "ivf_sq_fp16": Case(_ivf("ivf_sq", 64, 8), tolerance=1e-3, recall=0.98),
    "ivf_sq_8bit": Case(_ivf("ivf_sq", 64, 8, storage="8bit"), tolerance=1e-2, recall=0.96),
    "ivf_pq_refine": Case(_ivf("ivf_pq", 32, 8, refine=4, M=8), recall=0.85),
    "ivf_pq_quantised": Case(_ivf("ivf_pq", 32, 8, M=8), tolerance=0.5, recall=0.35),
    "hnsw": Case({"type": "hnsw"}, recall=0.99, gpu=False),
    "factory_ivf_sq8": Case({"factory": "IVF32,SQ8", "search": {"nprobe": 8}}, tolerance=2e-2, recall=0.93),
    "factory_pca": Case({"factory": "PCA16,IVF32,Flat", "search": {"nprobe": 8, "refine": 4}}, recall=0.78),
}

PLACES = [
    pytest.param((name, kind), id=f"{name}-{kind}", marks=[pytest.mark.gpu] if kind == "gpu" else [])
    for kind in ("cpu", "gpu")
    for name, case in CASES.items()
    if kind == "cpu" or case.gpu
]


def device_of(kind: str) -> Device:
    """The CPU, or the first GPU with little scratch memory, so that many indexes share one small GPU."""
    return Device(gpus=(0,), temp_memory_mb=256) if kind == "gpu" else Device()


@dataclass(frozen=True)
class Built:
    """An index and what it must answer."""

    name: str
    case: Case
    index: VectorIndex
    titles: NDArray[np.float64]
    queries: NDArray[np.float64]
    all_scores: NDArray[np.float64]

    def check(self, found: SearchResult, rows_of_queries: NDArray[np.int64] | slice = slice(None)) -> None:
        """Hold scores against the true ones of the rows that were returned, as near as the type can."""
        own = np.take_along_axis(self.all_scores[rows_of_queries], found.rows, axis=1)
        np.testing.assert_allclose(found.scores, own, rtol=0, atol=self.case.tolerance)


@pytest.fixture(scope="module")
def world(clusters: Callable[..., NDArray[np.float32]], unit: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """4,040 clustered titles, the last 40 being copies of the first, and 100 queries near titles."""
    titles = clusters(4000, DIM, clusters=60, seed=3)
    titles = np.concatenate([titles, titles[:DUPLICATES]])
    noise = np.random.default_rng(5).normal(size=(100, DIM)) * (0.15 / np.sqrt(DIM))
    return unit(titles), unit(titles[np.arange(0, 4000, 40)] + noise)


@pytest.fixture(scope="module", params=PLACES)
def built(request: pytest.FixtureRequest, world: Any, make_index: Callable[..., VectorIndex]) -> Built:
    """Every index type over the same titles."""
    name, kind = request.param
    titles, queries = world
    index = make_index(titles, CASES[name].settings, device_of(kind))
    return Built(name, CASES[name], index, titles, queries, queries @ titles.T)


@pytest.fixture(scope="module", params=PLACES)
def small(request: pytest.FixtureRequest, world: Any, make_index: Callable[..., VectorIndex]) -> Built:
    """Every index type over 300 titles, copies among them, asked in only one of its lists."""
    name, kind = request.param
    titles, queries = world
    few = np.concatenate([titles[:280], titles[:20]])
    chosen = {**CASES[name].settings}
    if "nprobe" in chosen.get("search", {}):
        chosen["search"] = {**chosen["search"], "nprobe": 1}
    if "factory" in chosen:
        chosen["factory"] = chosen["factory"].replace("IVF32", "IVF8")
    elif "build" in chosen:
        chosen["build"] = {**chosen["build"], "nlist": 8}
    index = make_index(few, chosen, device_of(kind))
    return Built(name, CASES[name], index, few, queries, queries @ few.T)


def same_answers(one: SearchResult, other: SearchResult, tolerance: float = 1e-5) -> None:
    """Equal scores, and equal titles wherever no neighbour in the ranking scores the same."""
    assert one.rows.shape == other.rows.shape
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=tolerance)
    gaps = np.abs(np.diff(one.scores, axis=1)) > 2 * tolerance
    alone = np.ones(one.scores.shape, dtype=bool)
    alone[:, 1:] &= gaps
    alone[:, :-1] &= gaps
    alone[:, -1] = False  # who comes next is not known
    assert alone.mean() > 0.3 or one.rows.shape[1] < 3, "nothing is compared"
    np.testing.assert_array_equal(one.rows[alone], other.rows[alone])


# --- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, K, 200])
def test_results_are_full_and_in_order(built: Built, well_formed: Callable[..., None], k: int) -> None:
    found = built.index.search(built.queries, k)
    assert found.rows.shape == (len(built.queries), k)
    well_formed(found.rows, found.scores, len(built.titles))
    built.check(found)


def test_recall_is_what_the_type_is_chosen_for(built: Built, truth: Callable[..., Any]) -> None:
    best, _ = truth(built.titles, built.queries, K)
    found = built.index.search(built.queries, K)
    own = np.take_along_axis(built.all_scores, found.rows, axis=1)
    recall = float((own >= best[:, -1:] - 1e-5).mean())
    assert recall >= built.case.recall
    assert found.exact == built.index.exact
    assert bool(found.exact) is built.case.exact


def test_an_exact_type_gives_what_brute_force_gives(built: Built, same_ranking: Callable[..., None]) -> None:
    if not built.case.exact:
        pytest.skip("not exact")
    for k in (1, K, min(500, built.index.k_limit or 500)):
        found = built.index.search(built.queries, k)
        same_ranking(found.rows, found.scores, built.all_scores)
        assert found.strategy == "index"


def test_copies_of_a_title_stand_together(built: Built, well_formed: Callable[..., None]) -> None:
    found = built.index.search(built.titles[:DUPLICATES], K)
    well_formed(found.rows, found.scores, len(built.titles))
    if built.case.exact:
        for row in range(DUPLICATES):  # BLAS may round the score of one copy up and of the other down
            assert sorted(found.rows[row, :2].tolist()) == [row, 4000 + row]
            np.testing.assert_allclose(found.scores[row, :2], 1.0, rtol=0, atol=1e-6)


def test_equal_scores_stand_in_row_order(make_index: Callable[..., VectorIndex]) -> None:
    titles = np.zeros((50, 4))
    titles[np.arange(50), np.arange(50) % 4] = 1.0  # inner products of these are exact
    for settings_of in ({"type": "flat"}, _ivf("ivf_flat", 4, 4)):
        found = make_index(titles, settings_of).search(np.array([[3.0, 2.0, 1.0, 0.5]]), 50)
        assert found.rows[0].tolist() == [row for column in range(4) for row in range(column, 50, 4)]


def test_a_batch_answers_as_single_queries_do(built: Built) -> None:
    batch = built.index.search(built.queries[:30], K)
    singles = [built.index.search(query[None, :], K) for query in built.queries[:30]]
    stacked = SearchResult(
        np.concatenate([one.rows for one in singles]),
        np.concatenate([one.scores for one in singles]),
        batch.exact,
        batch.strategy,
    )
    same_answers(batch, stacked)
    assert {one.strategy for one in singles} == {batch.strategy}


def test_a_batch_longer_than_a_block_answers_the_same(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = built.index.search(built.queries, K)
    monkeypatch.setattr("semrec_faiss.index.vector_index.QUERY_BLOCK_ROWS", 7)
    same_answers(whole, built.index.search(built.queries, K))


def test_no_query_gives_no_answer(built: Built) -> None:
    found = built.index.search(np.empty((0, DIM), np.float32), 3)
    assert found.rows.shape == found.scores.shape == (0, 3)
    assert (found.rows.dtype, found.scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("k", [299, 300, 301, 5000])
def test_k_up_to_and_over_all_titles(small: Built, well_formed: Callable[..., None], k: int) -> None:
    if small.index.k_limit is not None and k > small.index.k_limit:
        with pytest.raises(UsageError, match=f"k is {k}, over type fused's limit of 256"):
            small.index.search(small.queries, k)
        return
    found = small.index.search(small.queries, k)
    assert found.rows.shape == (len(small.queries), min(k, 300))
    well_formed(found.rows, found.scores, 300)
    small.check(found)
    if k >= 300:
        assert (np.sort(found.rows, axis=1) == np.arange(300)).all()


@pytest.mark.parametrize("k", [1, 30, 100, 250])
def test_one_list_visited_still_gives_k_titles(small: Built, well_formed: Callable[..., None], k: int) -> None:
    found = small.index.search(small.queries, k)
    assert found.rows.shape == (len(small.queries), k)
    well_formed(found.rows, found.scores, 300)
    small.check(found)


def test_a_query_that_was_completed_does_not_change_its_neighbours(small: Built) -> None:
    """Lists differ in length: for some k some queries of a batch come up short and others do not."""
    for k in (20, 40, 80):
        batch = small.index.search(small.queries, k)
        for position in range(0, len(small.queries), 9):
            single = small.index.search(small.queries[position : position + 1], k)
            np.testing.assert_allclose(single.scores[0], batch.scores[position], rtol=0, atol=1e-5)


def test_the_vectors_are_had_back_as_they_were_added(built: Built) -> None:
    rows = [0, 17, 4039, 17]
    np.testing.assert_array_equal(built.index.vectors(rows), built.titles[rows].astype(np.float32))
    np.testing.assert_array_equal(built.index.block(17, 31), built.titles[17:31].astype(np.float32))
    assert built.index.vectors([]).shape == (0, DIM)
    assert built.index.vectors(np.array([3])).dtype == np.float32
    assert (built.index.count, built.index.dim) == (4040, DIM)


# --- what a query may look like -------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[NDArray[np.float32]], NDArray[Any]]] = {
    "float64": lambda q: q.astype(np.float64),
    "big endian": lambda q: q.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "every second row": lambda q: np.repeat(q, 2, axis=0)[::2],
    "every second column": lambda q: np.repeat(q, 2, axis=1)[:, ::2],
    "backwards": lambda q: np.ascontiguousarray(q[::-1, ::-1])[::-1, ::-1],
    "read-only": lambda q: np.frombuffer(q.tobytes(), np.float32).reshape(q.shape),
    "nested lists": lambda q: q.tolist(),
    "three times as long": lambda q: q * np.float32(3),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_query_does_not_matter(built: Built, form: str) -> None:
    plain = built.queries[:20].astype(np.float32)
    given_form = FORMS[form](plain)
    before = np.array(given_form, copy=True)
    same_answers(built.index.search(plain, K), built.index.search(given_form, K))
    np.testing.assert_array_equal(given_form, before)


def test_float16_queries_are_answered_for_what_they_hold(built: Built) -> None:
    half = built.queries[:20].astype(np.float16)
    same_answers(built.index.search(half.astype(np.float32), K), built.index.search(half, K))


def test_whole_numbers_are_a_query_too(built: Built) -> None:
    whole = np.rint(built.queries[:20] * 50).astype(np.int32)
    same_answers(built.index.search(whole.astype(np.float64), K), built.index.search(whole, K))


@pytest.mark.parametrize("scale", [1e30, 3e38, 1e-30, 1e-38, 1e-20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_and_tiny_queries_have_a_direction_like_any_other(
    built: Built, scale: float, dtype: type[np.floating[Any]]
) -> None:
    queries = built.queries[:20] / np.abs(built.queries[:20]).max(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Triton compiles")  # on a GPU, where this question is the first
        found = built.index.search((queries * scale).astype(dtype), K)
    # 1e-38 is held by float32 with few digits left
    same_answers(built.index.search(queries, K), found, tolerance=1e-5 if scale != 1e-38 else 1e-4)


def test_one_huge_query_does_not_change_its_neighbours(built: Built) -> None:
    queries = built.queries[:5].astype(np.float32)
    mixed = queries * np.float32([1, 1e30, 1, 1e-30, 1])[:, None]
    same_answers(built.index.search(queries, K), built.index.search(mixed, K))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, True, False, np.True_, 1.5, 2.0, np.float64(3), "3", None, [3], float("nan")])
def test_a_k_that_is_no_count_is_refused(built: Built, k: Any) -> None:
    with pytest.raises(UsageError, match="k is"):
        built.index.search(built.queries[:2], k)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_any_whole_number_is_a_k(built: Built, kind: type[np.integer[Any]]) -> None:
    assert built.index.search(built.queries[:2], kind(7)).rows.shape == (2, 7)


@pytest.mark.parametrize(
    "queries",
    [
        np.ones((2, DIM - 1), np.float32),
        np.ones((2, DIM + 1), np.float32),
        np.ones((2, 0), np.float32),
        np.ones(DIM, np.float32),
        np.ones((1, 2, DIM), np.float32),
        np.ones((2, DIM), bool),
        np.ones((2, DIM), complex),
        np.full((2, DIM), "x"),
        np.full((2, DIM), None),
        # Once a fault: the shape of a batch of none was not looked at; a number has no length.
        np.ones((0, DIM + 1), np.float32),
        np.float32(1),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_a_wrong_shape_or_kind_is_refused(built: Built, queries: Any) -> None:
    with pytest.raises(UsageError, match="queries"):
        built.index.search(queries, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_query_that_is_not_finite_is_refused_by_its_row(
    built: Built, value: float, dtype: type[np.floating[Any]]
) -> None:
    queries = built.queries[:5].astype(dtype)
    queries[3, 7] = value
    with pytest.raises(DataError, match=r"queries\[3\] .*(NaN|infinite)"):
        built.index.search(queries, 3)


def test_an_all_zero_query_is_refused_by_its_row(built: Built) -> None:
    queries = built.queries[:5].copy()
    queries[2] = 0
    with pytest.raises(DataError, match=r"queries\[2\] .*zero"):
        built.index.search(queries, 3)


def test_the_row_that_is_named_counts_from_the_start_of_the_batch(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once a fault: it was counted from the start of the block that the batch is cut into.
    monkeypatch.setattr("semrec_faiss.index.vector_index.QUERY_BLOCK_ROWS", 4)
    queries = built.queries[:11].copy()
    queries[9] = 0
    with pytest.raises(DataError, match=r"queries\[9\] "):
        built.index.search(queries, 3)


# --- threads and memory ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_threads_get_what_one_gets(built: Built) -> None:
    parts = [built.queries[start : start + 5] for start in range(0, 100, 5)] * 3
    serial = [built.index.search(part, K) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda part: built.index.search(part, K), parts))
    for one, other in zip(serial, at_once, strict=True):
        same_answers(one, other)


def test_threads_that_ask_for_vectors_first_get_them(world: Any, make_index: Callable[..., VectorIndex]) -> None:
    titles, _ = world
    index = make_index(titles, CASES["ivf_flat"].settings)
    with ThreadPoolExecutor(8) as pool:
        for row, found in enumerate(pool.map(lambda row: index.vectors([row]), range(200))):
            np.testing.assert_array_equal(found[0], titles[row].astype(np.float32))


@pytest.fixture
def memory_for(built: Built, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[int]]]:
    """Let FAISS run out of memory over a number of queries; returns the sizes that were tried."""
    if built.index.fused is not None:
        pytest.skip("type fused on a GPU does not ask FAISS; tests/index/fused/test_searcher.py has its own")

    def limit(queries: int, error: type[Exception] = RuntimeError) -> list[int]:
        real = built.index.faiss_search
        tried: list[int] = []

        def search(block: NDArray[np.float32], k: int, **options: Any) -> Any:
            tried.append(len(block))
            if len(block) > queries:
                raise error("Error in virtual void* faiss::gpu::…: Error: 'err == cudaSuccess' failed: out of memory")
            return real(block, k, **options)

        monkeypatch.setattr(built.index, "faiss_search", search)
        monkeypatch.setattr(built.index, "block_rows", built.index.block_rows)
        return tried

    yield limit


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_out_of_memory_halves_the_block_and_says_so_once(
    built: Built, memory_for: Callable[..., list[int]], error: type[Exception]
) -> None:
    whole = built.index.search(built.queries, K)
    tried = memory_for(13, error)
    with pytest.warns(RuntimeWarning, match="memory") as warned:
        halved = built.index.search(built.queries, K)
        again = built.index.search(built.queries, K)
    assert sum("memory" in str(one.message) for one in warned) == 1
    same_answers(whole, halved)
    same_answers(whole, again)
    assert tried[:4] == [100, 50, 25, 12]
    assert max(tried[4:]) == 12


def test_out_of_memory_for_a_single_query_is_a_device_error(built: Built, memory_for: Callable[..., list[int]]) -> None:
    memory_for(0)
    with pytest.warns(RuntimeWarning), pytest.raises(DeviceError, match=r"single query.*out of memory"):
        built.index.search(built.queries, K)


def test_any_other_failure_of_faiss_is_a_device_error(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    if built.index.fused is not None:
        pytest.skip("type fused on a GPU does not ask FAISS")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Error in somewhere at file.cpp:7: Error: 'x' failed: it broke")

    monkeypatch.setattr(built.index, "faiss_search", broken)
    with pytest.raises(DeviceError, match="it broke"):
        built.index.search(built.queries[:2], K)


# --- against brute force, whatever the data -------------------------------------------------------------------------

_COMPONENTS = st.integers(-4, 4).map(float)


@st.composite
def _questions(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64], int, bool, int]:
    """Titles with copies among them, queries, k, whether to normalise, and a number of lists (0: flat)."""
    count, dim = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    some = draw(arrays.arrays(np.float64, (draw(st.integers(1, count)), dim), elements=_COMPONENTS))
    some[~some.any(axis=1), 0] = 1.0
    titles = some[draw(st.lists(st.integers(0, len(some) - 1), min_size=count, max_size=count))]
    queries = draw(arrays.arrays(np.float64, (draw(st.integers(1, 5)), dim), elements=_COMPONENTS))
    queries[~queries.any(axis=1), -1] = -2.0
    return titles, queries, draw(st.integers(1, count + 3)), draw(st.booleans()), draw(st.integers(0, min(count, 4)))


@settings(max_examples=200, deadline=None)
@given(_questions())
@pytest.mark.slow
def test_exact_types_equal_brute_force(
    make_index: Callable[..., VectorIndex], unit: Any, same_ranking: Callable[..., None], question: Any
) -> None:
    titles, queries, k, normalize, nlist = question
    chosen = _ivf("ivf_flat", nlist, nlist) if nlist else {"type": "flat"}
    index = make_index(titles, {**chosen, "normalize": normalize})
    found = index.search(queries, k)
    assert found.exact
    assert found.rows.shape == (len(queries), min(k, len(titles)))
    if normalize:
        titles, queries = unit(titles), unit(queries)
    same_ranking(found.rows, found.scores, queries @ titles.T, tolerance=1e-6 if normalize else 0)
