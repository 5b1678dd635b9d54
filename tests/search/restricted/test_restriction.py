"""Masks and exclusions against Python sets."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semrec_faiss.index import exclusions
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.restricted.restriction import Restriction

TITLES = 30
ROWS = st.lists(st.integers(0, TITLES - 1), max_size=12)
LISTS = st.lists(ROWS, min_size=1, max_size=6)
MASK = st.none() | st.lists(st.booleans(), min_size=TITLES, max_size=TITLES).map(np.array)
EACH = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def candidates(queries: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, TITLES, size=(queries, 9))


@EACH
@given(LISTS, st.integers(0, 99))
def test_exclusions_hold_what_was_given(lists: list[list[int]], seed: int) -> None:
    made = Exclusions.of(lists)
    assert len(made) == len(lists)
    assert made.counts.tolist() == [len(set(rows)) for rows in lists]
    for query, rows in enumerate(lists):
        assert sorted(made.rows[made.offsets[query] : made.offsets[query + 1]].tolist()) == sorted(set(rows))
    asked = candidates(len(lists), seed)
    expected = [[int(row) in rows for row in line] for line, rows in zip(asked, lists, strict=True)]
    assert made.contain(asked, TITLES).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("few", [0, 9], ids=["by a table", "one by one"])
@EACH
@given(LISTS, st.randoms(use_true_random=False), st.integers(0, 99))
def test_exclusions_in_any_order(
    few: int, monkeypatch: pytest.MonkeyPatch, lists: list[list[int]], random: Random, seed: int
) -> None:
    monkeypatch.setattr(exclusions, "FEW_CANDIDATES", few)
    sets = [random.sample(sorted(set(rows)), len(set(rows))) for rows in lists]
    offsets = np.cumsum([0, *map(len, sets)])
    made = Exclusions(offsets, np.array([row for rows in sets for row in rows], np.int32))
    asked = candidates(len(lists), seed)
    expected = [[int(row) in rows for row in line] for line, rows in zip(asked, sets, strict=True)]
    assert made.contain(asked, TITLES).tolist() == expected


@EACH
@given(LISTS, st.data())
def test_some_queries_are_taken_in_the_order_asked(lists: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=9))
    taken = Exclusions.of(lists).take(np.array(chosen, dtype=np.int64))
    direct = Exclusions.of([lists[query] for query in chosen])
    assert taken.offsets.tolist() == direct.offsets.tolist()
    assert taken.rows.tolist() == direct.rows.tolist()


@EACH
@given(MASK, st.none() | LISTS, st.integers(0, 99), st.booleans())
def test_a_restriction_allows_what_mask_and_exclusions_allow(
    mask: np.ndarray | None, lists: list[list[int]] | None, seed: int, knows_rows: bool
) -> None:
    queries = 4 if lists is None else len(lists)
    rows = np.flatnonzero(mask) if knows_rows and mask is not None else None
    made = Restriction(TITLES, mask, None if lists is None else Exclusions.of(lists), rows)
    open_to = set(range(TITLES)) if mask is None else set(np.flatnonzero(mask).tolist())
    sets = [open_to - set(rows) for rows in lists or [[]] * queries]
    assert made.allowed == len(open_to)
    assert made.rows.tolist() == sorted(open_to)
    assert (made.allowed - made.excluded_counts(queries)).tolist() == [len(one) for one in sets]
    assert made.is_empty is (mask is None and not any(lists or []))
    assert made.excludes_one_at_most is (mask is None and all(len(set(rows)) <= 1 for rows in lists or []))
    asked = candidates(queries, seed)
    expected = [[int(row) in one for row in line] for line, one in zip(asked, sets, strict=True)]
    assert made.allows(asked).tolist() == expected
    order = np.random.default_rng(seed).permutation(queries)
    assert made.take(order).allows(asked[order]).tolist() == [expected[query] for query in order]


@pytest.mark.parametrize("scratch", [1, TITLES, 3 * TITLES, 1000 * TITLES])
def test_small_scratch_finds_the_same(monkeypatch: pytest.MonkeyPatch, scratch: int) -> None:
    rng = np.random.default_rng(1)
    lists = [rng.integers(0, TITLES, size=size).tolist() for size in (0, 1, 30, 5, 0, 12, 2)]
    asked = candidates(len(lists), 2)
    monkeypatch.setattr(exclusions, "SCRATCH_BYTES", scratch)
    expected = [[int(row) in rows for row in line] for line, rows in zip(asked, lists, strict=True)]
    assert Exclusions.of(lists).contain(asked, TITLES).tolist() == expected


def test_no_query_excludes_nothing() -> None:
    none = Exclusions.of([])
    assert (len(none), none.counts.tolist(), none.rows.tolist()) == (0, [], [])
    assert none.contain(np.empty((0, 5), np.int64), TITLES).shape == (0, 5)
    assert none.take(np.empty(0, np.int64)).offsets.tolist() == [0]
    assert Restriction(TITLES, None, none).is_empty


def test_the_same_rows_for_all() -> None:
    same = Exclusions.same_for_all(3, [4, 2, 4])
    assert same.offsets.tolist() == [0, 2, 4, 6]
    assert same.rows.tolist() == [2, 4] * 3


def test_thousands_of_rows_for_thousands_of_queries() -> None:
    titles, queries = 5000, 700
    rng = np.random.default_rng(3)
    sizes = rng.choice([0, 1, 50, 4990, titles], size=queries, p=[0.2, 0.3, 0.3, 0.1, 0.1])
    lists = [rng.permutation(titles)[:size] for size in sizes]
    table = np.zeros((queries, titles), np.bool_)
    for query, rows in enumerate(lists):
        table[query, rows] = True
    asked = rng.integers(0, titles, size=(queries, 40))
    made = Exclusions.of(lists)
    np.testing.assert_array_equal(made.contain(asked, titles), np.take_along_axis(table, asked, axis=1))
    mask = rng.random(titles) < 0.3
    np.testing.assert_array_equal(
        Restriction(titles, mask, made).excluded_counts(queries), (table & mask[None, :]).sum(axis=1)
    )


@pytest.mark.parametrize(
    ("lists", "one_each"),
    [([[4], [2]], [4, 2]), ([[], [2]], [-1, 2]), ([[4], []], [4, -1]), ([[], []], [-1, -1]), ([[7]], [7])],
)
def test_the_one_row_that_each_query_excludes(lists: list[list[int]], one_each: list[int]) -> None:
    restriction = Restriction(10, None, Exclusions.of(lists))
    assert restriction.excludes_one_at_most
    assert restriction.excluded_one(len(lists)).tolist() == one_each
    assert Restriction(10).excluded_one(len(lists)).tolist() == [-1] * len(lists)


def test_more_than_one_row_is_told_from_one() -> None:
    two = Exclusions.of([[1, 2], []])  # as many rows as queries
    assert not Restriction(10, None, two).excludes_one_at_most
    assert not Restriction(10, np.ones(10, np.bool_)).excludes_one_at_most
    assert Restriction(10).excludes_one_at_most


@EACH
@given(LISTS, st.data())
def test_what_either_excludes(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(ROWS, min_size=len(lists), max_size=len(lists)))
    some, others = Exclusions.of(lists), Exclusions.of(rows)
    joined = exclusions.either(some, others)
    assert joined is not None
    sets = [sorted({*one, *other}) for one, other in zip(lists, rows, strict=True)]
    assert np.split(joined.rows, joined.offsets[1:-1])[0].tolist() == sets[0]
    assert [joined.take(np.array([query])).rows.tolist() for query in range(len(lists))] == sets
    assert joined.counts.tolist() == [len(one) for one in sets]
    assert exclusions.either(some, None) is some and exclusions.either(None, others) is others
    assert exclusions.either(None, None) is None


def test_what_either_excludes_of_lists_in_another_order() -> None:
    seen = Exclusions(np.array([0, 3, 3]), np.array([9, 2, 5], np.int32))
    joined = seen.besides(Exclusions.same_for_all(2, [5, 4]))
    assert (joined.offsets.tolist(), joined.rows.tolist()) == ([0, 4, 6], [2, 4, 5, 9, 4, 5])
    nothing = Exclusions.of([]).besides(Exclusions.same_for_all(0, [5, 4]))
    assert (len(nothing), nothing.rows.tolist()) == (0, [])
