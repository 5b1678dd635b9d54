"""Shelves: which titles are on one, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semrec_faiss.index.fused.batch import Workspace
from semrec_faiss.index.fused.filters.bitmaps import Bitmaps
from semrec_faiss.index.fused.filters.shelves import (
    LEAST_SHELVED,
    Shelf,
    list_rows,
    listing_programs,
    shelf_bytes,
    shelf_size,
)
from semrec_faiss.index.fused.plan import plan_search
from semrec_faiss.index.screening.spectrum import principal_directions
from tests.index.fused.worlds import PLACE, clustered, needs_kernels, searcher


@needs_kernels
@pytest.mark.parametrize("titles", [300, 255 * 32, 256 * 32, 3 * 256 * 32 + 33])
@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_the_rows_of_a_filter_are_listed_on_the_gpu(titles: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.COUNTED_AT_ONCE", 2)
    mask = np.random.default_rng(titles).random(titles) < share
    mask[[7, titles - 1]] = True
    allowed, bitmap, _ = Bitmaps(titles, torch.device(str(PLACE))).send(mask)
    assert allowed == mask.sum()
    rows = torch.full((allowed + 5,), -7, dtype=torch.int32, device=PLACE)
    list_rows(bitmap, torch.empty(listing_programs(titles), dtype=torch.int32, device=PLACE), rows)
    np.testing.assert_array_equal(rows.cpu().numpy(), [*np.flatnonzero(mask), *[-7] * 5])


@needs_kernels
@pytest.mark.usefixtures("read")
def test_what_is_on_a_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    """One filter's titles after another's, launched, recorded and replayed, and the last title where none is."""
    launched: list[str] = []

    def noted(launches: Callable[[], None], _: Any) -> Any:
        launched.append("recorded")
        launches()
        return SimpleNamespace(replay=lambda: (launched.append("replayed"), launches()))

    whole = searcher(clustered(np.random.default_rng(3), 600, 32)).titles
    shelf, bitmaps = Shelf(whole, 96, Workspace()), Bitmaps(600, whole.halves.device)
    if PLACE == "cpu":
        monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.recorded", noted)
        monkeypatch.setattr(shelf, "_device", SimpleNamespace(type="cuda"))
    for count in (90, 1, 96, 50):
        mask = np.zeros(600, np.bool_)
        mask[np.random.default_rng(count).choice(600, count, replace=False)] = True
        shelf.load(bitmaps.send(mask)[1], count)
        assert shelf.search.filled == count
        rows = np.concatenate((np.flatnonzero(mask), np.full(96 - count, 599)))
        np.testing.assert_array_equal(shelf.titles.origins.cpu().numpy(), rows)
        pairs = [(whole.halves, shelf.titles.halves)]
        if whole.codes is not None and shelf.titles.codes is not None:
            pairs += zip(whole.codes.tables, shelf.titles.codes.tables, strict=True)
        assert len(pairs) == (1 if whole.codes is None else 4)
        for its, mine in pairs:
            np.testing.assert_array_equal(mine.cpu().numpy(), its.cpu().numpy()[rows])
    assert launched == (["recorded", "replayed", "replayed"] if PLACE == "cpu" else [])


@needs_kernels
@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("kept", ["rounded", "halves", "bounds", "float16"])
def test_a_shelf_takes_as_much_memory_as_predicted(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.searcher.SCREENED_TITLES", 1)
    titles = clustered(np.random.default_rng(3), 600, 40)
    if kept == "halves":
        titles = titles.astype(np.float16).astype(np.float32)
    directions = np.ascontiguousarray(principal_directions(titles)[0][:15]) if kept == "bounds" else None
    whole = searcher(titles, directions=directions, rescore="float16" if kept == "float16" else "float32").titles
    assert (whole.factors is not None, whole.screened, whole.proves) == (
        kept == "halves",
        kept == "bounds",
        kept != "float16",
    )
    shelf = Shelf(whole, 96, Workspace())
    held = sum(int(part.nbytes) for part in (shelf._bitmap, shelf._counts))
    assert shelf_bytes(whole, 96) == shelf.bytes == shelf.titles.bytes + held
    each = {"rounded": 2 * 40, "halves": 2 * 40 + 8, "bounds": 2 * 16, "float16": 2 * 40}[kept]
    coded = whole.codes is not None and whole.codes.width + 4
    assert shelf.titles.bytes == 96 * (each + coded + 4)


def test_sizes_of_shelves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third larger than asked at most, of many titles an eighth."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", LEAST_SHELVED)
    sizes = [shelf_size(allowed) for allowed in (1, 6144, 6145, 8193, 12_288, 12_289, 131_072, 131_073, 800_000, 10**6)]
    assert sizes == [6144, 6144, 8192, 12_288, 12_288, 16_384, 131_072, 147_456, 851_968, 1 << 20]


@needs_kernels
def test_a_few_titles_of_a_shelf_need_no_second_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many of the best lie together that whole chunks are rescored, though the shelf has room for thousands."""
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", LEAST_SHELVED)
    rng = np.random.default_rng(5)
    titles = rng.standard_normal((8_000, 32), dtype=np.float32)
    queries = rng.standard_normal((8, 32), dtype=np.float32)
    mask = np.zeros(8_000, np.bool_)
    mask[rng.choice(8_000, 300, replace=False)] = True
    search = searcher(titles)
    search.shelve(mask)
    shelf = search.filters.place(mask, 8).shelf
    assert shelf is not None
    assert (shelf.size, shelf.search.filled) == (LEAST_SHELVED, 300)
    found = search.search(queries, 10, mask=mask)
    scores = queries.astype(np.float64) @ titles.T.astype(np.float64)
    scores[:, ~mask] = -np.inf
    np.testing.assert_array_equal(found.rows, np.argsort(-scores, axis=1)[:, :10])
    assert found.repeated == 0
    full = plan_search(LEAST_SHELVED, 32, 8, 10)
    assert full.piece == 1  # by which more than one chunk had two of the best
    assert plan_search(LEAST_SHELVED, 32, 8, 10, pieces=False).piece == 0
