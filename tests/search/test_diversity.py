"""Varied lists against maximal marginal relevance in plain Python, and limits per field that are kept and filled."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import UsageError
from semrec_faiss.index.cpu.exact import wide_products
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search import diversity
from semrec_faiss.search.diversity import Groups, Variety
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish

Mask = NDArray[np.bool_]

pytestmark = pytest.mark.filterwarnings("ignore:.*few to train")

TYPES: dict[str, dict[str, Any]] = {
    "flat": {"type": "flat"},
    "ivf_flat": {"type": "ivf_flat", "build": {"nlist": 32}, "search": {"nprobe": 4}},
    "ivf_pq": {"type": "ivf_pq", "build": {"nlist": 32, "M": 4}, "search": {"nprobe": 4}},
    "hnsw": {"type": "hnsw"},
}


@pytest.fixture(scope="module")
def searcher(world: Any, make_index: Callable[..., VectorIndex]) -> Searcher:
    """An exact search of the world."""
    return Searcher(make_index(world.titles, {"type": "flat"}), Titles(lambda: world.catalog))


def ask(searcher: Searcher, queries: Any, exclusions: Exclusions | None = None, **wish: Any) -> TopK:

    return searcher.run(np.ascontiguousarray(queries), Wish.of(**wish), exclusions)


def value_of(world: Any, row: int, field: str) -> Any:
    return world.entries[row][field]


def is_full(world: Any, chosen: list[int], row: int, max_per: dict[str, int]) -> bool:
    return any(
        value_of(world, row, field) is not None
        and sum(value_of(world, other, field) == value_of(world, row, field) for other in chosen) >= most
        for field, most in max_per.items()
    )


def follow(
    world: Any, query: int, pool: list[int], found: list[int], k: int, weight: float, max_per: dict[str, int]
) -> None:
    """Replay the choices one by one: each must be open and worth as much as the best that was open."""
    scores, titles = world.scores[query], world.titles.astype(np.float64)
    chosen: list[int] = []
    for position in range(k):
        left = [row for row in pool if row not in chosen and not is_full(world, chosen, row, max_per)]
        if not left:
            assert position == len(found), "a list that ends too early or goes on too long"
            return
        near = (titles[left] @ titles[chosen].T).max(axis=1) if chosen else np.zeros(len(left))
        worth = dict(zip(left, (1 - weight) * scores[left] - weight * near, strict=True))
        if position == 0:
            worth = {row: scores[row] for row in left}  # nothing is chosen yet to differ from
        assert found[position] in worth
        assert worth[found[position]] >= max(worth.values()) - 1e-5
        chosen.append(found[position])
    assert chosen == found


def marginal(relevance: Any, vectors: Any, codes: Any, k: int, weight: float, most: int) -> list[int]:
    """Return the places that maximal marginal relevance chooses, by all products at once."""
    alike = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    chosen: list[int] = []
    for _ in range(k):
        near = alike[chosen].max(axis=0) if chosen else np.zeros(len(vectors))
        worth = (1 - weight) * relevance - weight * near
        worth[chosen] = -np.inf
        used_up = [code for code, times in Counter(codes[chosen].tolist()).items() if code >= 0 and times >= most]
        worth[np.isin(codes, used_up)] = -np.inf
        if worth.max() == -np.inf:
            break
        chosen.append(int(worth.argmax()))
    return chosen


@pytest.mark.parametrize("weight", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("most", [3, 1000])
def test_long_lists_are_those_of_all_products(
    weight: float, most: int, make_index: Callable[..., VectorIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: the whole pool was compared with each choice, which took 5 s for 2,000 of 62,423 titles."""
    rng = np.random.default_rng(7)
    index = make_index(rng.standard_normal((900, 12)).astype(np.float32), {"type": "flat"})
    queries = index.prepare(rng.standard_normal((2, 12)).astype(np.float32))
    codes = rng.integers(-1, 80, 900)
    best = index.search(queries, 700)
    scores, rows = best.scores, best.rows
    pool = TopK(rows, scores, np.full(2, 900), True, "index")
    compared = 0

    def counted(asked: Any, vectors: Any) -> Any:
        nonlocal compared
        compared += vectors.shape[1]
        return wide_products(asked, vectors)

    monkeypatch.setattr(diversity, "wide_products", counted)
    variety = Variety(weight, {"franchise": most})
    found, _ = diversity.choose_varied(index, queries, pool, 300, variety, {"franchise": Groups(codes, list)})
    assert compared == 2 * 700
    for query, own, chosen in zip(queries, rows, found, strict=True):
        vectors = index.vectors(own)
        expected = marginal((vectors @ query).astype(np.float64), vectors, codes[own], 300, weight, most)
        assert chosen[: len(expected)].tolist() == own[expected].tolist()
        assert (chosen[len(expected) :] == -1).all()


def pool_of(world: Any, query: int, allowed: Mask, size: int) -> list[int]:
    """Return the best ``size`` rows that are allowed, and those that tie with the last of them."""
    order = np.lexsort((np.arange(len(allowed)), -world.scores[query]))
    ranked = order[allowed[order]]
    last = world.scores[query][ranked[min(size, len(ranked)) - 1]] if len(ranked) else 0.0
    return [row for place, row in enumerate(ranked.tolist()) if place < size or world.scores[query][row] > last - 1e-6]


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.05, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("k", [1, 2, 10, 25])
def test_each_choice_is_the_best_of_its_pool(world: Any, searcher: Searcher, weight: float, k: int) -> None:
    everything = np.ones(len(world.titles), np.bool_)
    queries = list(range(40, 52))  # far from the copies, whose order in the pool is a matter of rounding
    found = ask(searcher, world.queries[queries], k=k, diversity=weight)
    assert found.exact is False
    for position, query in enumerate(queries):
        pool = pool_of(world, query, everything, max(50, 5 * k))
        follow(world, query, pool, found.rows[position].tolist(), k, weight, {})
        np.testing.assert_allclose(found.scores[position], world.scores[query][found.rows[position]], rtol=0, atol=1e-5)


def test_filters_exclusions_and_limits_together(world: Any, searcher: Searcher) -> None:
    drama = np.array(["Drama" in (entry["genres"] or ()) for entry in world.entries])
    queries = list(range(60, 72))
    seen = [pool_of(world, query, drama, 20) for query in queries]
    found = ask(
        searcher,
        world.queries[queries],
        Exclusions.of(seen),
        k=8,
        where="'Drama' IN genres",
        diversity=0.4,
        max_per={"franchise": 1, "Year": 2},
    )
    for position, query in enumerate(queries):
        allowed = drama.copy()
        allowed[seen[position]] = False
        assert found.matching[position] == allowed.sum()
        pool = pool_of(world, query, allowed, 50)
        follow(world, query, pool, found.rows[position].tolist(), 8, 0.4, {"franchise": 1, "year": 2})


def test_no_diversity_is_the_plain_ranking(world: Any, searcher: Searcher) -> None:
    plain = ask(searcher, world.queries[:20], k=15)
    assert plain.exact is True
    assert plain.strategy == "index"
    slight = ask(searcher, world.queries[:20], k=15, diversity=1e-9)
    np.testing.assert_array_equal(slight.rows, plain.rows)
    loose = ask(searcher, world.queries[:20], k=15, max_per={"franchise": 15})
    np.testing.assert_array_equal(loose.rows, plain.rows)
    np.testing.assert_array_equal(loose.scores, plain.scores)


def test_more_diversity_makes_lists_less_alike(world: Any, searcher: Searcher) -> None:
    likeness = []
    first = ask(searcher, world.queries[:50], k=1).rows[:, 0]
    for weight in (0.0, 0.3, 0.6, 1.0):
        rows = ask(searcher, world.queries[:50], k=10, diversity=weight).rows
        np.testing.assert_array_equal(rows[:, 0], first)
        vectors = world.titles[rows]
        likeness.append(float(np.einsum("qad,qbd->qab", vectors, vectors).mean()))
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[-1] < likeness[0] - 0.1


# Limits per field


def greedy(world: Any, query: int, allowed: Mask, k: int, max_per: dict[str, int]) -> list[int]:
    chosen: list[int] = []
    taken: Counter[tuple[str, Any]] = Counter()
    for row in pool_of(world, query, allowed, len(allowed)):
        own = [(field, value_of(world, row, field)) for field in max_per]
        if all(value is None or taken[field, value] < max_per[field] for field, value in own):
            chosen.append(row)
            taken.update(own)
        if len(chosen) == k:
            break
    return chosen


@pytest.mark.parametrize("max_per", [{"franchise": 1}, {"franchise": 3}, {"year": 1}, {"year": 1, "franchise": 2}])
@pytest.mark.parametrize("k", [5, 60, 500])
def test_a_limit_takes_the_best_that_it_leaves(world: Any, searcher: Searcher, max_per: Any, k: int) -> None:
    """By score alone a limited list is the greedy one over all titles, however far down the pool has to reach."""
    everything = np.ones(len(world.titles), np.bool_)
    found = ask(searcher, world.queries[:3], k=k, max_per=max_per)
    for query in range(3):
        expected = greedy(world, query, everything, k, max_per)
        rows = [row for row in found.rows[query].tolist() if row >= 0]
        assert len(rows) == len(expected) == len(set(rows))
        scores = world.scores[query]
        np.testing.assert_allclose(found.scores[query][: len(rows)], scores[rows], rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores[rows], scores[expected], rtol=0, atol=1e-5)
        for field, most in max_per.items():
            values = Counter(value_of(world, row, field) for row in rows)
            assert max(count for value, count in values.items() if value is not None) <= most
        assert (found.rows[query][len(rows) :] == -1).all()
        assert np.isneginf(found.scores[query][len(rows) :]).all()


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("name", TYPES)
def test_limited_lists_are_as_full_as_can_be(
    world: Any, make_index: Callable[..., VectorIndex], name: str, weight: float
) -> None:
    """The number of titles that a limit leaves is known; no type and no pool may fall short of it."""
    searcher = Searcher(make_index(world.titles, TYPES[name]), Titles(lambda: world.catalog))
    rng = np.random.default_rng(5)
    for most, clause in ((1, "franchise IS NOT NULL"), (2, "franchise IS NOT NULL"), (1, "year < 1960"), (4, "true")):
        field = "franchise" if "franchise" in clause else "year"
        allowed = np.array(
            [
                {"franchise": e["franchise"] is not None, "year": (e["year"] or 9999) < 1960}[field] or clause == "true"
                for e in world.entries
            ]
        )
        seen = [rng.permutation(len(allowed))[: int(rng.integers(0, 1500))] for _ in range(6)]
        k = 40
        found = ask(
            searcher, world.queries[:6], Exclusions.of(seen), k=k, where=clause, diversity=weight, max_per={field: most}
        )
        for query, rows in enumerate(seen):
            mine = allowed.copy()
            mine[rows] = False
            values = Counter(value_of(world, row, field) for row in np.flatnonzero(mine))
            possible = sum(count if value is None else min(most, count) for value, count in values.items())
            assert found.matching[query] == mine.sum()
            assert found.returned[query] == min(k, possible)
            listed = found.rows[query][found.rows[query] >= 0].tolist()
            assert len(set(listed)) == len(listed)
            assert mine[listed].all()
            taken = Counter(value_of(world, row, field) for row in listed)
            assert max((count for value, count in taken.items() if value is not None), default=0) <= most


def test_a_field_is_found_in_any_case_and_by_odd_names(tmp_path: Path, world: Any) -> None:
    lines = ['{"media_id": "a", "title": "A", "My \\"field\\"": 3}', '{"media_id": "b", "title": "B"}']
    lines += ['{"media_id": "c", "title": "C", "My \\"field\\"": 3}', '{"media_id": "d", "title": "D", "x": 1}']
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    codes = Groups.of(Catalog.read(path), 'my "FIELD"').codes
    assert codes[1] == codes[3] == -1
    assert codes[0] == codes[2] >= 0
    franchise = Groups.of(world.catalog, "FRANCHISE").codes
    for row, entry in enumerate(world.entries):
        assert bool(franchise[row] == -1) is (entry["franchise"] is None)
    assert len(set(franchise.tolist())) == len({entry["franchise"] for entry in world.entries})


def test_fields_that_cannot_be_limited(searcher: Searcher, world: Any) -> None:
    for name, message in (
        ("nope", "the titles have no field 'nope'"),
        ("genres", "field 'genres' holds lists; a limit needs one value a title"),
        ("_semrec_row", "the titles have no field '_semrec_row'"),
        ('"; DROP TABLE titles --', "the titles have no field '\"; DROP TABLE titles --'"),
    ):
        with pytest.raises(UsageError) as caught:
            ask(searcher, world.queries[:1], k=5, max_per={name: 1})
        assert caught.value.message == message


@pytest.mark.parametrize("weight", [-0.01, 1.01, float("nan"), float("inf")])
def test_weights_out_of_range(weight: float) -> None:
    with pytest.raises(UsageError, match="it must be from 0 to 1"):
        Variety(weight)


@pytest.mark.parametrize("most", [0, -1, True])
def test_limits_out_of_range(most: int) -> None:
    with pytest.raises(UsageError, match="of at least 1"):
        Variety(0.0, {"franchise": most})


# Batches, edges


def test_a_batch_chooses_as_single_queries_do(world: Any, searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = {"k": 12, "diversity": 0.5, "max_per": {"franchise": 2}, "where": "runtime > 90"}
    batch = ask(searcher, world.queries[:30], **dict(wish))
    monkeypatch.setattr(diversity, "BLOCK_BYTES", 1)  # a query at a time
    np.testing.assert_array_equal(ask(searcher, world.queries[:30], **dict(wish)).rows, batch.rows)
    same = [
        ask(searcher, world.queries[query : query + 1], **dict(wish)).rows[0].tolist() == batch.rows[query].tolist()
        for query in range(30)
    ]
    assert sum(same) >= 29, "one near-tie in thirty lists may be rounded the other way"


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_fewer_match_than_the_pool_holds(world: Any, searcher: Searcher, weight: float) -> None:
    """Every title that matches is returned, and nothing is said of NaN."""
    few = [row for row, entry in enumerate(world.entries) if entry["place"] < 7]
    with warnings.catch_warnings():
        # Once a fault: with diversity 1 the scores of empty places, -inf, are multiplied by 0.
        warnings.simplefilter("error")
        found = ask(searcher, world.queries[:4], k=10, where="place < 7", diversity=weight)
    assert found.matching.tolist() == [7] * 4
    for query in range(4):
        assert sorted(found.rows[query][:7].tolist()) == few
        assert (found.rows[query][7:] == -1).all()
        assert np.isneginf(found.scores[query][7:]).all()


def test_nothing_matches(world: Any, searcher: Searcher) -> None:
    found = ask(searcher, world.queries[:2], k=3, where="false", diversity=0.5, max_per={"franchise": 1})
    assert found.rows.tolist() == [[-1] * 3] * 2
    assert found.matching.tolist() == [0, 0]


def test_more_than_all_titles(world: Any, searcher: Searcher) -> None:
    found = ask(searcher, world.queries[:1], k=10**6, max_per={"year": 5000})
    assert sorted(found.rows[0].tolist()) == list(range(len(world.titles)))


def test_no_queries(world: Any, searcher: Searcher) -> None:
    found = ask(searcher, world.queries[:0], k=3, diversity=0.5, where="place < 100")
    assert found.rows.shape == (0, 3)


def test_the_account_names_the_choice(world: Any, searcher: Searcher) -> None:
    found = ask(searcher, world.queries[:5], k=3, diversity=0.5, where="place < 100")
    assert found.strategy.endswith("+variety")
    assert found.stages[0].name == "filter"
    assert found.stages[0].fetched == 100
    assert (found.stages[-1].name, found.stages[-1].queries, found.stages[-1].fetched) == ("variety", 5, 50)


# Once a fault: a GPU's limit on what one search finds ended the pool, and the list came up short.
def test_a_limit_of_the_search_is_no_limit_of_the_list(
    world: Any, make_index: Callable[..., VectorIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(world.titles, {"type": "flat"})
    whole = ask(Searcher(index, Titles(lambda: world.catalog)), world.queries[:3], k=60, max_per={"year": 1})
    monkeypatch.setattr(VectorIndex, "k_limit", property(lambda _: 64))
    limited = ask(Searcher(index, Titles(lambda: world.catalog)), world.queries[:3], k=60, max_per={"year": 1})
    np.testing.assert_array_equal(limited.returned, whole.returned)
    np.testing.assert_array_equal(limited.returned, 60)
    np.testing.assert_allclose(limited.scores, whole.scores, rtol=0, atol=1e-5)
    assert limited.strategy == "subset+variety"
