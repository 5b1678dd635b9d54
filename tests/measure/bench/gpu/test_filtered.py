"""Filters by ``semrec bench gpu``: the kernels that it times alone are those of the search, and find what it finds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from semrec_faiss.index.fused.filters.shelves import Shelf, shelf_size
from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.plan import bitmap_words, takes_pieces
from semrec_faiss.measure.bench.gpu.filtered import Filtered
from semrec_faiss.measure.bench.gpu.peers import FusedPeer
from semrec_faiss.measure.bench.gpu.record import MaskedBatch
from semrec_faiss.measure.instruments.timing import measure_steady
from tests.index.fused.worlds import PLACE, Truth, clustered, needs_kernels, searcher

TITLES, K, SEED = 400, 1, 3


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> list[FusedPeer]:
    """Time by no GPU's clock, each piece of work once or a few times; small shelves; return the peers that are made."""
    made: list[FusedPeer] = []

    def ms(work: Callable[[], Any]) -> float:
        work()
        return 1.0

    def peer(*given: Any) -> FusedPeer:
        made.append(FusedPeer(*given))
        return made[-1]

    room = "semrec_faiss.measure.bench.gpu"
    for name, value in (("gpu_clock.gpu_ms", ms), ("filtered.gpu_ms", ms), ("filtered.FusedPeer", peer)):
        monkeypatch.setattr(f"{room}.{name}", value)
    monkeypatch.setattr(f"{room}.filtered.NEW_FILTERS", 2)
    monkeypatch.setattr(f"{room}.filtered.NEW_WARMUP", 1)
    monkeypatch.setattr(f"{room}.filtered.measure_steady", partial(measure_steady, within_s=0.0))
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
    return made


def worlds() -> tuple[Any, Any]:
    import torch

    rng = np.random.default_rng(2)
    titles, asked = clustered(rng, TITLES, 32), clustered(rng, 3, 32)
    return titles, torch.from_numpy(asked).to(PLACE)


def mask_of(share: float) -> Any:
    return (np.random.default_rng(SEED).random(32 * bitmap_words(TITLES)) < share)[:TITLES]


@needs_kernels
def test_kernels_of_a_shelf_are_planned_and_answer_as_the_search_does(
    peers: list[FusedPeer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few titles are allowed that pieces of chunks do not pay, though of as many as the shelf has they would."""
    share = 0.7
    mask = mask_of(share)
    allowed, size = int(mask.sum()), shelf_size(int(mask.sum()))
    assert [takes_pieces(count, K, coded=False, screened=False) for count in (allowed, size)] == [False, True]
    titles, queries = worlds()
    index = searcher(titles)
    row = Filtered(index, K, 0.0, SEED).batch(queries, share)
    assert row.filtered_kernels is not None and len(row.filtered_kernels.times_ms) == 3
    assert row.first_filtered_kernels is not None and len(row.first_filtered_kernels.times_ms) == 2

    plans: list[Any] = []
    score = FusedPass.score

    def noted(work: FusedPass, *given: Any) -> None:
        plans.append((work.titles, work.plan))
        score(work, *given)

    index.shelve(mask)
    monkeypatch.setattr(FusedPass, "score", noted)
    found = index.search(queries.cpu().numpy(), K, mask=mask)
    of_shelf = peers[-1]
    scores, rows = (part.cpu().numpy() for part in of_shelf.search())
    np.testing.assert_array_equal(rows, found.rows)
    np.testing.assert_array_equal(scores, found.scores)
    Truth.of(titles, queries.cpu().numpy(), mask).check(found, K)
    searched, plan = plans[0]
    assert searched is of_shelf._work.titles and searched.count == size
    assert plan == of_shelf._work.plan
    assert row.filtered_unproven == len(of_shelf.find_unproven()) == found.repeated


@needs_kernels
@pytest.mark.usefixtures("peers")
def test_a_first_use_finds_other_titles_and_leaves_the_filters_own(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    load = Shelf.load

    def noted(shelf: Shelf, bitmap: Any, allowed: int) -> None:
        load(shelf, bitmap, allowed)
        loads.append(shelf.titles.origins.cpu().numpy()[:allowed].copy())

    monkeypatch.setattr(Shelf, "load", noted)
    titles, queries = worlds()
    mask = mask_of(0.3)
    assert Filtered(searcher(titles), K, 0.0, SEED)._from_shelf(queries, mask).first is not None
    own, others, left = loads[0], loads[1:-1], loads[-1]
    np.testing.assert_array_equal(own, np.flatnonzero(mask))
    np.testing.assert_array_equal(left, own)
    assert len({rows.tobytes() for rows in (own, *others)}) == 4, "its own, a warm-up's, and two that are timed"
    assert {len(rows) for rows in others} == {len(own)}


@needs_kernels
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_titles_that_are_on_no_shelf_have_no_times_of_one(share: float, peers: list[FusedPeer]) -> None:
    titles, queries = worlds()
    found = Filtered(searcher(titles), K, 0.0, SEED)._from_shelf(queries, mask_of(share))
    assert (found.later, found.unproven, found.first) == (None, None, None)
    assert not peers


def test_a_row_of_an_earlier_version_has_none() -> None:
    row = {"titles": 9, "queries": 1, "share": 0.1, "unmasked_ms": 1.0, "masked_ms": 1.0, "ratio": 1.0, "unproven": 0}
    read = MaskedBatch.model_validate(row)
    assert (read.filtered_kernels, read.first_filtered_kernels) == (None, None)
    assert read.as_json() == row
