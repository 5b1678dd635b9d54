"""Many ids looked up at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semrec_faiss.index.saved import known_ids
from semrec_faiss.index.saved.known_ids import KnownIds

IDS = st.lists(st.text(max_size=3), unique=True, max_size=60)


@given(IDS, st.lists(st.text(max_size=3), max_size=30))
def test_every_id_has_its_row_and_others_have_none(ids: list[str], others: list[str]) -> None:
    asked = [*others, *reversed(ids), *ids[:3]]
    rows = KnownIds(ids).rows_of(asked)
    assert rows.dtype == "int64"
    assert rows.tolist() == [ids.index(one) if one in ids else -1 for one in asked]


@pytest.mark.parametrize("equal", [lambda text: 7, lambda text: -2, len, lambda text: 2**63 - 1])
def test_ids_whose_hashes_are_equal_are_told_apart(equal: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_ids, "_hash", equal)
    ids = ["c", "a", "bb", "", "ddd"]
    known = KnownIds(ids)
    assert known.rows_of(["a", "bb", "ddd", "", "c", "e", "ee", "eeee"]).tolist() == [1, 2, 4, 3, 0, -1, -1, -1]
    assert known.rows_of(["e"]).tolist() == [-1]
    assert known.rows_of([]).tolist() == []


def test_a_hundred_thousand_ids() -> None:
    ids = [f"user {number}" for number in range(100_000)]
    known = KnownIds(ids)
    assert known.rows_of(ids).tolist() == list(range(100_000))
    assert known.rows_of([f"user {number}" for number in range(100_000, 100_100)]).tolist() == [-1] * 100
