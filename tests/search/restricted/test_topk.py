"""Top-k under a restriction: the promise of k results held against brute force, over thousands of random filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.config.index_types import GPU_LIMIT, FusedIndex
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.errors import DataError, UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.hardware.device import GPU_NARROW_SQ_LIMIT, Device
from semrec_faiss.index.subset import honours_selector, scan_rows, search_selected
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.restricted import topk
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.strategy import CPU_COSTS, GPU_COSTS, Costs, choose_strategy
from semrec_faiss.search.restricted.topk import restricted_top_k

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")

Mask = NDArray[np.bool_]

FILTERS = 2000
SHARES = 3
"""Each type is asked for every third filter, from one that depends on the type: all of them together for all."""
MOST = 500
NAMED = ("overfetch", "subset", "selector")


@dataclass(frozen=True)
class Case:
    """One way to index: its settings, how near its scores are to the true ones, and what it can do."""

    settings: dict[str, Any]
    tolerance: float = 1e-5
    exact: bool = False
    selector: bool = True
    gpu: bool = True


def _ivf(kind: str, nprobe: int = 4, **build: Any) -> dict[str, Any]:
    return {"type": kind, "build": {"nlist": 32, **build}, "search": {"nprobe": nprobe}}


CASES = {
    "flat": Case({"type": "flat"}, exact=True),
    "fused": Case({"type": "fused"}, exact=True),
    "ivf_flat": Case(_ivf("ivf_flat")),
    "ivf_flat_all_lists": Case(_ivf("ivf_flat", 32), exact=True),
    "ivf_sq": Case(_ivf("ivf_sq"), tolerance=1e-3),
    "ivf_pq": Case(_ivf("ivf_pq", M=4)),
    "hnsw": Case({"type": "hnsw"}, gpu=False),
    "factory_ivf_sq8": Case({"factory": "IVF32,SQ8", "search": {"nprobe": 4}}, tolerance=2e-2),
    "factory_pca": Case({"factory": "PCA8,IVF32,Flat", "search": {"nprobe": 4, "refine": 4}}, selector=False),
}
PLACES = [
    pytest.param((name, kind), id=f"{name}-{kind}", marks=[pytest.mark.gpu] if kind == "gpu" else [])
    for kind in ("cpu", "gpu")
    for name, case in CASES.items()
    if kind == "cpu" or case.gpu
]


@dataclass(frozen=True)
class Built:
    """An index of the world's titles."""

    case: Case
    index: VectorIndex
    world: Any

    @property
    def strategies(self) -> tuple[str, ...]:
        """What may be asked for by name here."""
        if self.index.fused is not None:
            return (*NAMED[:2], "masked")
        return NAMED if self.case.selector and not self.index.device.gpus else NAMED[:2]


def build(name: str, kind: str, world: Any, make_index: Callable[..., VectorIndex]) -> Built:
    device = Device(gpus=(0,), temp_memory_mb=256) if kind == "gpu" else Device()
    return Built(CASES[name], make_index(world.titles, CASES[name].settings, device), world)


@pytest.fixture(scope="module", params=PLACES)
def built(request: pytest.FixtureRequest, world: Any, make_index: Callable[..., VectorIndex]) -> Built:
    """Every index type over the same titles."""
    return build(*request.param, world, make_index)


@pytest.fixture(scope="module")
def flat(world: Any, make_index: Callable[..., VectorIndex]) -> Built:
    """The exact index."""
    return build("flat", "cpu", world, make_index)


@pytest.fixture(scope="module")
def filters(world: Any, filter_maker: Any) -> list[tuple[Filter, Mask]]:
    """Two thousand filters and what they let through, as SQL's own logic written in numpy says."""
    maker = filter_maker(world.entries, seed=7)
    return [maker.draw() for _ in range(FILTERS)]


def most_of(built: Built) -> int:
    """The largest k asked for: type fused has a limit on a GPU."""
    return min(MOST, built.index.k_limit or MOST)


def check(
    built: Built, found: TopK, asked: NDArray[np.int64], k: int, allowed: Mask, *, exact: bool | None = None
) -> None:
    """Hold a result against everything that a search promises; ``allowed``: bool (queries, titles)."""
    k = min(k, allowed.shape[1])
    matching = allowed.sum(axis=1)
    assert found.rows.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert found.rows.shape == found.scores.shape == (len(asked), k)
    np.testing.assert_array_equal(found.matching, matching)
    full = np.arange(k) < np.minimum(k, matching)[:, None]  # k results whenever so many match, and -1 after them
    np.testing.assert_array_equal(found.rows >= 0, full)
    np.testing.assert_array_equal(found.returned, np.minimum(k, matching))
    assert (found.rows[~full] == -1).all()
    assert np.isneginf(found.scores[~full]).all()
    assert np.isfinite(found.scores[full]).all()
    rows = np.where(full, found.rows, 0)
    assert np.take_along_axis(allowed, rows, axis=1)[full].all(), "a title that may not be returned"
    ordered = np.sort(np.where(full, found.rows, -1 - np.arange(k)), axis=1)
    assert (np.diff(ordered, axis=1) > 0).all(), "a title twice"
    with np.errstate(invalid="ignore"):
        steps = np.diff(found.scores, axis=1)
    inside = full[:, 1:]
    assert (steps[inside] <= 0).all(), "scores must descend"
    assert (np.diff(found.rows, axis=1)[inside & (steps == 0)] > 0).all(), "equal scores must stand in row order"
    truth = built.world.scores[asked]
    own = np.take_along_axis(truth, rows, axis=1)
    np.testing.assert_allclose(found.scores[full], own[full], rtol=0, atol=built.case.tolerance)
    assert exact is None or bool(found.exact) is exact
    if found.exact:
        # With the best possible scores, an id can differ from brute force's only where scores are equal.
        best = -np.sort(-np.where(allowed, truth, -np.inf), axis=1)[:, :k]
        np.testing.assert_allclose(found.scores[full], best[full], rtol=0, atol=1e-5)
        np.testing.assert_allclose(own[full], best[full], rtol=0, atol=1e-5)


def draw_exclusions(rng: np.random.Generator, queries: int, mask: Mask) -> list[NDArray[np.int64]]:
    """For each query nothing, a few rows, two thousand, or all that match but a few."""
    lists = []
    for _ in range(queries):
        kind = rng.integers(5)
        size = (0, 3, 100, 2000, len(mask))[kind]
        rows = rng.permutation(len(mask))[:size]
        spared = rng.choice(len(mask), size=int(rng.integers(0, 6)), replace=False)
        lists.append(np.setdiff1d(rows, spared) if kind == 4 else rows)
    return lists


def allowed_by(mask: Mask, lists: list[NDArray[np.int64]] | None, queries: int) -> Mask:
    allowed = np.repeat(mask[None, :], queries, axis=0)
    for query, rows in enumerate(lists or []):
        allowed[query, rows] = False
    return allowed


# The promise


def test_the_filters_are_as_random_as_they_should_be(world: Any, filters: list[tuple[Filter, Mask]]) -> None:
    matching = np.array([mask.sum() for _, mask in filters])
    assert len(filters) == FILTERS >= 2000
    assert len({wanted for wanted, _ in filters}) > 1700
    assert (matching == 0).sum() >= 80
    assert (matching == len(world.entries)).sum() >= 60
    assert ((matching > 0) & (matching < 10)).sum() >= 80
    per_tenth = np.histogram(matching[(matching > 0) & (matching < len(world.entries))], 10, (0, len(world.entries)))[0]
    assert per_tenth.min() >= 20
    said = Counter(word for wanted, _ in filters for word in ("NOT", "AND", "OR", "NULL") if word in str(wanted.where))
    assert min(said.values()) >= 200


@pytest.mark.slow
def test_sql_and_numpy_agree_on_every_filter(world: Any, filters: list[tuple[Filter, Mask]]) -> None:
    for wanted, mask in filters:
        np.testing.assert_array_equal(
            matching_rows(world.catalog, *wanted.clauses(world.catalog)), np.flatnonzero(mask)
        )


@pytest.mark.slow
def test_2000_random_filters_give_what_brute_force_gives(built: Built, filters: list[tuple[Filter, Mask]]) -> None:
    """Every filter of a share by the automatic strategy, every third one by name; half with exclusions a query."""
    rng = np.random.default_rng(11)
    most = most_of(built)
    asked_for: Counter[str] = Counter()
    ran: Counter[str] = Counter()
    excluded, sizes = 0, set()
    mine = filters[list(CASES.values()).index(built.case) % SHARES :: SHARES]
    for number, (_, mask) in enumerate(mine):
        names = ["auto"] if number % 3 else ["auto", built.strategies[number // 3 % len(built.strategies)]]
        for strategy in names:
            k = int(rng.choice([1, 10, most, int(np.exp(rng.uniform(0, np.log(most))))]))
            asked = rng.choice(len(built.world.queries), size=int(rng.integers(1, 5)), replace=False)
            lists = draw_exclusions(rng, len(asked), mask) if rng.random() < 0.5 else None
            exclusions = None if lists is None else Exclusions.of(lists)
            restriction = Restriction(len(mask), mask, exclusions)
            gathered = built.index.vectors(restriction.rows) if rng.random() < 0.3 else None
            found = restricted_top_k(
                built.index,
                np.ascontiguousarray(built.world.queries[asked]),
                k,
                restriction,
                strategy=strategy,
                gathered=gathered,
            )
            exact = True if built.case.exact or found.strategy == "subset" else None
            check(built, found, asked, k, allowed_by(mask, lists, len(asked)), exact=exact)
            assert strategy in ("auto", found.strategy.partition("+")[0])
            asked_for[strategy] += 1
            ran[found.strategy.partition("+")[0]] += 1
            excluded += lists is not None
            sizes.add(k)
    assert asked_for["auto"] == len(mine) >= FILTERS // SHARES
    assert min(asked_for[name] for name in built.strategies) >= len(mine) // 3 // len(built.strategies)
    assert min(ran[name] for name in built.strategies) >= len(mine) // 3 // len(built.strategies)
    assert excluded >= 0.6 * len(mine)
    assert {1, 10, most} <= sizes
    assert len(sizes) > 100


@pytest.mark.slow
def test_no_mask_but_exclusions(built: Built) -> None:
    rng = np.random.default_rng(12)
    everything = np.ones(len(built.world.titles), np.bool_)
    for number in range(100):
        k = int(rng.choice([1, 10, 100, most_of(built)]))
        asked = rng.choice(len(built.world.queries), size=6, replace=False)
        lists = draw_exclusions(rng, 6, everything)
        strategy = ("auto", *built.strategies)[number % (1 + len(built.strategies))]
        restriction = Restriction(len(everything), None, Exclusions.of(lists))
        found = restricted_top_k(built.index, built.world.queries[asked], k, restriction, strategy=strategy)
        check(built, found, asked, k, allowed_by(everything, lists, 6))


def test_one_title_at_most_left_out_of_each_query(built: Built) -> None:
    """What every question about a title comes to: among the best, far from them, or none to leave out."""
    titles, asked = len(built.world.titles), np.arange(6)
    best = np.argsort(-built.world.scores[asked], axis=1)
    lists = [[int(best[0, 0])], [], [int(best[2, 4])], [int(best[3, -1])], [int(best[4, 9])], []]
    everything = np.ones(titles, np.bool_)
    for k in (1, 5, 10, most_of(built) - 1, most_of(built)):
        found = restricted_top_k(
            built.index, built.world.queries[asked], k, Restriction(titles, None, Exclusions.of(lists))
        )
        check(built, found, asked, k, allowed_by(everything, lists, 6))
        assert found.strategy.startswith(("index", "refine", "overfetch", "masked"))


@pytest.mark.slow
def test_an_approximate_index_loses_little_by_a_filter(built: Built, filters: list[tuple[Filter, Mask]]) -> None:
    k, asked = 10, np.arange(20)
    shares: dict[bool, list[float]] = {True: [], False: []}
    for _, mask in filters[:400]:
        if mask.sum() < k:
            continue
        found = restricted_top_k(built.index, built.world.queries[asked], k, Restriction(len(mask), mask))
        truth = np.where(mask, built.world.scores[asked], -np.inf)
        worst = -np.sort(-truth, axis=1)[:, k - 1 : k]
        good = np.take_along_axis(truth, found.rows, axis=1) >= worst - 1e-5
        shares[bool(mask.mean() < 0.02)].append(float(good.mean()))
    assert len(shares[True]) > 30
    assert np.mean(shares[True]) == 1.0, "few matching titles are scanned exactly"
    assert np.mean(shares[False]) >= 0.8


@pytest.mark.slow
def test_a_batch_answers_as_single_queries_do(built: Built, filters: list[tuple[Filter, Mask]]) -> None:
    rng = np.random.default_rng(13)
    for _, mask in filters[:25]:
        lists = draw_exclusions(rng, 8, mask)
        for strategy in built.strategies:
            batch = restricted_top_k(
                built.index,
                built.world.queries[:8],
                20,
                Restriction(len(mask), mask, Exclusions.of(lists)),
                strategy=strategy,
            )
            for query, rows in enumerate(lists):
                single = restricted_top_k(
                    built.index,
                    built.world.queries[query : query + 1],
                    20,
                    Restriction(len(mask), mask, Exclusions.of([rows])),
                    strategy=strategy,
                )
                assert single.matching[0] == batch.matching[query]
                assert single.returned[0] == batch.returned[query]
                if batch.exact:
                    kept = batch.rows[query] >= 0
                    np.testing.assert_allclose(batch.scores[query][kept], single.scores[0][kept], rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_titles_left_out_are_fetched_only_where_they_are_the_best(
    flat: Built, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third query excludes its very best titles, the others any as many: only the first are asked again."""
    monkeypatch.setattr("semrec_faiss.search.restricted.allowed.PROBED_OF", 30)
    monkeypatch.setattr("semrec_faiss.search.restricted.allowed.PROBED", 9)
    rng, count = np.random.default_rng(21), len(flat.world.titles)
    mask = rng.random(count) < 0.8 if masked else np.ones(count, np.bool_)
    best = np.argsort(-flat.world.scores[:60], axis=1)
    lists = [best[query, :150] if query % 3 == 0 else rng.permutation(count)[:150] for query in range(60)]
    restriction = Restriction(count, mask if masked else None, Exclusions.of(lists))
    for asked in (np.arange(60), np.arange(20)):  # with those that show how much is needed, and without
        its = restriction.take(asked)
        found = restricted_top_k(flat.index, flat.world.queries[asked], 10, its, strategy="overfetch")
        check(flat, found, asked, 10, allowed_by(mask, lists, 60)[asked], exact=True)
        fetched = [stage.fetched for stage in found.stages]
        assert fetched[0] < 100
        assert max(fetched) >= 160
    assert sum(stage.queries for stage in found.stages if stage.fetched == fetched[0]) == 20
    assert sum(stage.queries for stage in found.stages if stage.fetched == max(fetched)) == 7


# Blocks and pieces


def test_blocks_of_queries_answer_the_same(flat: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(14)
    mask = rng.random(len(flat.world.titles)) < 0.3
    asked = np.arange(50)
    lists = draw_exclusions(rng, 50, mask)
    restriction = Restriction(len(mask), mask, Exclusions.of(lists))
    monkeypatch.setattr(topk, "QUERY_BLOCK", 7)
    monkeypatch.setattr(topk, "GATHER_AT_ONCE_BYTES", 0)
    monkeypatch.setattr("semrec_faiss.index.subset.SCAN_ROWS", 64)
    monkeypatch.setattr("semrec_faiss.index.exclusions.SCRATCH_BYTES", 3 * len(mask))
    for strategy in NAMED:
        found = restricted_top_k(flat.index, flat.world.queries[asked], 30, restriction, strategy=strategy)
        check(flat, found, asked, 30, allowed_by(mask, lists, 50), exact=True)
        assert sum(stage.queries for stage in found.stages if stage.name == strategy) >= 40
        assert len({(stage.name, stage.fetched) for stage in found.stages}) == len(found.stages)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 1000])
def test_scanning_piece_by_piece(flat: Built, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    chosen = np.sort(np.random.default_rng(rows).choice(len(flat.world.titles), size=rows, replace=False))
    monkeypatch.setattr("semrec_faiss.index.subset.SCAN_ROWS", 64)
    truth = flat.world.scores[:5, chosen]
    for k in (1, 63, 100):
        for gathered in (None, flat.index.vectors(chosen)):
            scores, found = scan_rows(flat.index, flat.world.queries[:5], k, chosen, gathered)
            take = min(k, rows)
            assert (found[:, take:] == -1).all()
            assert np.isneginf(scores[:, take:]).all()
            np.testing.assert_allclose(scores[:, :take], -np.sort(-truth, axis=1)[:, :take], rtol=0, atol=1e-5)
            assert all(len(set(one)) == take for one in found[:, :take].tolist())


def test_no_queries_are_no_trouble(built: Built) -> None:
    mask = np.arange(len(built.world.titles)) < 50
    for strategy in ("auto", *built.strategies):
        restriction = Restriction(len(mask), mask, Exclusions.of([]))
        found = restricted_top_k(built.index, built.world.queries[:0], 5, restriction, strategy=strategy)
        assert found.rows.shape == (0, 5)
        assert len(found.matching) == 0


# What is said, and what is refused


def test_the_account_adds_up(flat: Built) -> None:
    mask = np.zeros(len(flat.world.titles), np.bool_)
    mask[::700] = True  # three titles: an over-fetch finds them only by asking for everything
    found = restricted_top_k(flat.index, flat.world.queries[:4], 5, Restriction(len(mask), mask), strategy="overfetch")
    assert (found.stages[0].name, found.stages[0].queries) == ("overfetch", 4)
    fetched = [stage.fetched for stage in found.stages]
    assert fetched == sorted(fetched)
    assert fetched[-1] == len(mask)
    assert all(stage.elapsed_ms > 0 for stage in found.stages)
    assert (found.strategy, found.returned.tolist()) == ("overfetch", [3] * 4)
    plain = restricted_top_k(flat.index, flat.world.queries[:4], 5, Restriction(len(mask)))
    assert (plain.strategy, [stage.name for stage in plain.stages]) == ("index", ["index"])
    assert plain.matching.tolist() == [len(mask)] * 4


def test_a_search_that_came_up_short_says_that_it_scanned(built: Built) -> None:
    if "selector" not in built.strategies or built.case.exact:
        pytest.skip("comes up short nowhere")
    mask = np.arange(len(built.world.titles)) % 500 == 3
    queries = built.world.queries[:20]
    found = restricted_top_k(built.index, queries, 5, Restriction(len(mask), mask), strategy="selector")
    check(built, found, np.arange(20), 5, allowed_by(mask, None, 20))
    if built.case.settings.get("type") != "hnsw":
        assert found.strategy == "selector+subset"
        assert found.stages[-1].name == "subset"
        assert 0 < found.stages[-1].queries <= 20
        assert found.exact is False


def test_k_beyond_the_titles_and_below_one(flat: Built) -> None:
    mask = np.arange(len(flat.world.titles)) % 3 == 0
    asked = np.arange(3)
    found = restricted_top_k(flat.index, flat.world.queries[:3], 10**9, Restriction(len(mask), mask))
    check(flat, found, asked, 10**9, allowed_by(mask, None, 3), exact=True)
    for k in (0, -1):
        with pytest.raises(UsageError, match=f"k is {k}; it must be from 1 to {len(mask)}"):
            restricted_top_k(flat.index, flat.world.queries[:3], k, Restriction(len(mask), mask))


def test_k_beyond_what_a_gpu_returns_names_every_way_out(flat: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat.index, "fused", object())
    monkeypatch.setattr(flat.index, "config", FusedIndex(type="fused"))
    count = len(flat.world.titles)
    assert count > 2049
    with pytest.raises(UsageError, match="k is 2049; it must be from 1 to 2048") as caught:
        restricted_top_k(flat.index, flat.world.queries[:3], 2049, Restriction(count, None))
    assert caught.value.fix == "lower k, or take type flat, or set device.kind=cpu"
    with pytest.raises(UsageError, match="over type fused's limit of 2048") as caught:
        flat.index.search(flat.world.queries[:3], 2049)
    assert caught.value.fix == "lower k, or take type flat, or set device.kind=cpu"


def test_unknown_strategies_are_refused(flat: Built) -> None:
    mask = np.arange(len(flat.world.titles)) % 3 == 0
    with pytest.raises(UsageError, match="unknown strategy 'fastest'; known: auto, overfetch, subset, selector"):
        restricted_top_k(flat.index, flat.world.queries[:3], 5, Restriction(len(mask), mask), strategy="fastest")


# Once a fault: without a restriction the name is not looked at.
def test_unknown_strategies_are_refused_without_a_filter_too(flat: Built) -> None:
    with pytest.raises(UsageError, match="unknown strategy"):
        restricted_top_k(
            flat.index,
            flat.world.queries[:3],
            5,
            Restriction(len(flat.world.titles)),
            strategy="fastest",
        )


def test_a_type_without_selector_says_so(world: Any, make_index: Callable[..., VectorIndex]) -> None:
    case = build("factory_pca", "cpu", world, make_index)
    assert not honours_selector(case.index)
    mask = np.ones(len(world.titles), np.bool_)
    mask[0] = False
    with pytest.raises(UsageError, match="selector strategy needs"):
        restricted_top_k(case.index, world.queries[:2], 5, Restriction(len(mask), mask), strategy="selector")


# Never a selector on a GPU


def shapes() -> list[tuple[int, int, int, bool]]:
    """Batches of every kind: matching titles, queries, k, gathered or not."""
    return [
        (matching, queries, k, gathered)
        for matching in (1, 5, 21, 210, 1050, 2000, 2099)
        for queries in (1, 10, 1000, 100_000)
        for k in (1, 10, 500)
        for gathered in (False, True)
    ]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.selector])
def test_the_planner_chooses_a_selector_on_a_cpu_only(
    world: Any, make_index: Callable[..., VectorIndex], name: str
) -> None:
    """An index that says it is on a GPU, on a machine that needs none."""
    index = build(name, "cpu", world, make_index).index
    cheap = Costs(gather=1.0, scan=1.0, multiply=1.0, selector=0.0, lists=1.0)
    for gpus in ((), (0,), (0, 1)):
        index.device = Device(gpus=gpus)
        assert honours_selector(index) is not bool(gpus)
        chosen = set()
        for matching, queries, k, gathered in shapes():
            mask = np.arange(len(world.titles)) < matching
            for costs in (None, CPU_COSTS, GPU_COSTS, cheap):
                chosen.add(
                    choose_strategy(index, queries, k, Restriction(len(mask), mask), costs, is_gathered=gathered)
                )
        assert chosen <= {"overfetch", "subset"} if gpus else {"overfetch", "subset", "selector"}
        if name in ("flat", "hnsw"):  # inverted lists of so few titles are better scanned
            assert ("selector" in chosen) is not bool(gpus)


def test_a_selector_is_refused_on_a_gpu(world: Any, make_index: Callable[..., VectorIndex]) -> None:
    mask = np.arange(len(world.titles)) % 2 == 0
    for name, case in CASES.items():
        if not case.selector:
            continue
        index = build(name, "cpu", world, make_index).index
        index.device = Device(gpus=(0,))
        with pytest.raises(UsageError, match=r"selector strategy needs .* on a CPU, not type \w+ on gpu 0"):
            search_selected(index, world.queries[:2], 5, mask)
        with pytest.raises(UsageError, match="selector"):
            restricted_top_k(index, world.queries[:2], 5, Restriction(len(mask), mask), strategy="selector")


def watch_for_selectors(index: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the selector of every search of the index that is handed parameters."""
    seen: list[Any] = []
    search = index.faiss_search

    def watched(queries: Any, k: int, **options: Any) -> Any:
        seen.append(getattr(options.get("params"), "sel", None))
        return search(queries, k, **options)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the selector search was called for an index on a GPU")

    monkeypatch.setattr(index, "faiss_search", watched)
    monkeypatch.setattr(topk, "search_selected", never)
    return seen


def run_every_shape(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_for_selectors(built.index, monkeypatch)
    rng = np.random.default_rng(15)
    for matching, _, asked_k, gathered in shapes():
        k = min(asked_k, most_of(built))
        mask = rng.permutation(len(built.world.titles)) < matching
        lists = draw_exclusions(rng, 3, mask)
        restriction = Restriction(len(mask), mask, Exclusions.of(lists))
        found = restricted_top_k(
            built.index,
            built.world.queries[:3],
            k,
            restriction,
            gathered=built.index.vectors(restriction.rows) if gathered else None,
        )
        check(built, found, np.arange(3), k, allowed_by(mask, lists, 3))
    assert len(seen) > 20 or built.index.fused is not None
    assert all(selector is None for selector in seen)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.gpu])
def test_no_selector_reaches_an_index_that_says_it_is_on_a_gpu(
    world: Any, make_index: Callable[..., VectorIndex], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    built = build(name, "cpu", world, make_index)
    from semrec_faiss.index.hardware.device import load_faiss

    faiss = load_faiss()
    limits: list[int] = []

    def knn(index: VectorIndex, queries: Any, k: int, vectors: Any) -> Any:
        limits.append(k)
        return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)

    monkeypatch.setattr("semrec_faiss.index.subset._knn", knn)
    built.index.device = Device(gpus=(0,))
    run_every_shape(built, monkeypatch)
    k_limits = {"ivf_pq": GPU_LIMIT // 4, "factory_pca": GPU_LIMIT // 4, "factory_ivf_sq8": GPU_NARROW_SQ_LIMIT}
    assert built.index.k_limit == k_limits.get(name, GPU_LIMIT)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.gpu])
def test_no_selector_reaches_a_gpu(
    world: Any, make_index: Callable[..., VectorIndex], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run_every_shape(build(name, "gpu", world, make_index), monkeypatch)


@pytest.mark.gpu
def test_cpu_and_gpu_give_the_same(
    world: Any, make_index: Callable[..., VectorIndex], filters: list[tuple[Filter, Mask]]
) -> None:
    cpu, gpu = (build("flat", kind, world, make_index) for kind in ("cpu", "gpu"))
    for _, mask in filters[:200]:
        one, other = (
            restricted_top_k(place.index, world.queries[:50], 25, Restriction(len(mask), mask)) for place in (cpu, gpu)
        )
        np.testing.assert_array_equal(one.matching, other.matching)
        np.testing.assert_array_equal(one.returned, other.returned)
        kept = one.rows >= 0
        np.testing.assert_allclose(one.scores[kept], other.scores[kept], rtol=0, atol=1e-5)


# Once a fault: the restricted searches let through what the plain one refuses.
@pytest.mark.parametrize("strategy", ["auto", *NAMED])
def test_a_score_that_no_float32_holds_is_refused_by_every_strategy(
    world: Any, make_index: Callable[..., VectorIndex], strategy: Any
) -> None:
    titles = world.titles.copy()
    titles[100:103] *= np.float32(3e38)
    index = make_index(titles, {"type": "flat", "normalize": False})
    mask = np.arange(len(titles)) < 200
    with pytest.raises(DataError, match="larger than a float32 can hold"):
        restricted_top_k(index, titles[100:101], 5, Restriction(len(mask), mask), strategy=strategy)
