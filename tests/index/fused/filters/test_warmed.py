"""What `semrec warm` and `semrec serve` ask of type fused before anybody asks with a filter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.fused.filters.known_filters import KnownFilters
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.warming import warm
from tests.index.fused.worlds import needs_kernels, searcher


@needs_kernels
def test_the_first_filter_finds_a_shelf_made_and_searched(
    tmp_path: Path, make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, Any] = {
        "WARM_BATCHES": (1,),
        "WARM_BATCHES_GPU": (1, 2),
        "WARM_BATCHES_KERNELS": (1, 2),
        "TIMES_GPU": 2,
    }
    few["SHARES"] = (0.1, 0.001, 0.01)
    for name, value in few.items():
        monkeypatch.setattr(f"semrec_faiss.search.warming.{name}", value)
    made = make_folder(tmp_path / "data", titles=300, dim=32, users=4)
    config = {"dataset": str(made.root), "output": str(tmp_path / "index"), "index": {"type": "fused"}}
    build_index(config_from_dict({**config, "device": "cpu"}))
    cpu, ours = (Recommender.open(tmp_path / "index", ["device.kind=cpu"]) for _ in range(2))
    ours.index.fused = fused = searcher(ours.index.vectors(np.arange(300)))
    told = warm(ours)
    assert sum("filtered to" in one.what for one in told) == 3 * (2 * 2 + 1)
    assert sorted(shelf.size for shelf in fused.filters._shelves) == [6, 32], "one title to three share one; 30"
    assert all(shelf.search._graphs for shelf in fused.filters._shelves)
    shelves, placed = list(fused.filters._shelves), []
    place = KnownFilters.place

    def noted(self: KnownFilters, *given: Any, **options: Any) -> Any:
        placed.append(place(self, *given, **options))
        return placed[-1]

    monkeypatch.setattr(KnownFilters, "place", noted)
    monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_: 1e9)
    where = f"media_id IN {tuple(made.media_ids[:5])}"
    one, other = (recommender.similar(made.media_ids[7], 4, where=where) for recommender in (ours, cpu))
    assert placed[-1].shelf in shelves
    assert one.matching == other.matching == 5
    np.testing.assert_array_equal(one.rows, other.rows)
