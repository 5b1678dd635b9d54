"""What a searcher prepares for a batch before it is searched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search import searcher as searching
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish


@pytest.mark.parametrize("fused", [False, True])
def test_a_filters_vectors_are_gathered_only_for_who_reads_them(
    fused: bool, world: Any, make_index: Callable[..., VectorIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Type fused has its own; the host's would be copied for nothing, as many as 64 MB of them."""
    one = Searcher(make_index(world.titles, {"type": "flat"}), Titles(lambda: world.catalog))
    one.index.fused = object() if fused else None
    handed: list[bool] = []
    answer = searching.restricted_top_k

    def noted(*given: Any, gathered: Any, **options: Any) -> Any:
        handed.append(gathered is not None)
        one.index.fused, its = None, one.index.fused  # FAISS answers
        found = answer(*given, gathered=gathered, **options)
        one.index.fused = its
        return found

    monkeypatch.setattr(searching, "restricted_top_k", noted)
    one.check(Wish.of(5, where="place < 100"))  # which is no question
    for strategy in ("auto", "auto", "subset", "subset"):
        one.run(world.queries[:1], Wish.of(5, where="place < 100", strategy=strategy))
    assert handed == [False, not fused, not fused, True], "from the second time on that a filter comes"
