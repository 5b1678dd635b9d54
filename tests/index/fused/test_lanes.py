"""Large batches in blocks of two lanes, and what these leave to be searched again at the end: the same answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.index.fused.block_search import ALONE
from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.index.fused.searcher import FusedSearcher
from tests.index.fused.worlds import PLACE, Users, clustered, exclude, needs_kernels, on_gpu, searcher

Searched = Callable[[FusedSearcher], FusedResult]

TIMES = 1 if PLACE == "cpu" else 3
"""The second time a GPU records, the third it replays."""


def _same(found: FusedResult, expected: FusedResult) -> None:
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))


def _in_lanes(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.blocks.LEAST_MS", 0.0)
    monkeypatch.setattr("semrec_faiss.index.fused.blocks.block_queries", lambda *_, **__: 2 * block)


def _asked(titles: NDArray[np.float32]) -> tuple[np.random.Generator, NDArray[np.float32], list[NDArray[np.int64]]]:
    """Return queries, and what each is to leave out."""
    rng = np.random.default_rng(6)
    queries = titles[[5, 9, 5, 17, 200, 5, 300]] + np.float32(1e-3)
    lists = [np.sort(rng.choice(401, size=30, replace=False)) for _ in queries]
    return rng, queries, lists


@pytest.fixture
def titles() -> NDArray[np.float32]:
    """Some of them are one title again and again, of which no float16 score tells the first ones by row."""
    rng = np.random.default_rng(5)
    made = clustered(rng, 401, 32)
    made[rng.choice(401, 60)] = made[5]
    return made


@needs_kernels
@pytest.mark.parametrize("kind", ["vectors", "lists", "filtered", "users"])
def test_blocks_in_lanes_answer_as_one_block_does(
    kind: str, titles: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last block is shorter than the others."""
    rng, queries, lists = _asked(titles)
    mask = rng.random(401) < 0.6
    one, lanes = searcher(titles), searcher(titles)
    held = {id(its): its.hold_users(Users(queries, lists)) for its in (one, lanes)}
    rows = rng.permutation(len(queries))
    asked: dict[str, Searched] = {
        "vectors": lambda its: its.search(queries, 12),
        "lists": lambda its: its.search(queries, 12, excluded=exclude(lists)),
        "filtered": lambda its: its.search(queries, 12, mask=mask),
        "users": lambda its: its.search_users(held[id(its)], rows, 12),
    }
    if kind == "users" and held[id(one)] is None:
        pytest.skip("users lie on no GPU here")
    expected = asked[kind](one)
    _in_lanes(monkeypatch, 2)
    passed: list[int] = []
    first_pass = lanes._all.first_pass

    def noted(batch: Any, *rest: Any) -> Any:
        passed.append(len(batch))
        return first_pass(batch, *rest)

    monkeypatch.setattr(lanes._all, "first_pass", noted)
    for _ in range(TIMES):
        passed.clear()
        found = asked[kind](lanes)
        assert passed == [2, 2, 2, 1]
        _same(found, expected)
        assert found.repeated == expected.repeated > 0
        assert found.scanned == expected.scanned


@needs_kernels
@pytest.mark.parametrize("kind", ["vectors", "lists"])
def test_blocks_behind_one_another_answer_as_one_block_does(
    kind: str, titles: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is launched, with the same buffers, before the host takes the answers of the one before it."""
    _, queries, lists = _asked(titles)
    options = {"excluded": exclude(lists)} if kind == "lists" else {}
    monkeypatch.setattr("semrec_faiss.index.fused.block_search.BlockSearch.repeats", lambda *_, **__: False)
    monkeypatch.setattr("semrec_faiss.index.fused.pass_buffers.WRITTEN_OUT_BYTES", 0)
    one, behind = searcher(titles), searcher(titles)
    expected = one.search(queries, 12, **options)
    _in_lanes(monkeypatch, 1)
    monkeypatch.setattr("semrec_faiss.index.fused.blocks.LONG_MS", 0.0)
    told: list[tuple[str, int, int, int]] = []
    first_pass = behind._all.first_pass

    def noted(batch: Any, shared: Any, into: Any, lane: int, room: int) -> Any:
        told.append(("launched", len(batch), lane, room))
        found = yield from first_pass(batch, shared, into, lane, room)
        told.append(("found", len(batch), lane, room))
        return found

    monkeypatch.setattr(behind._all, "first_pass", noted)
    for _ in range(TIMES):
        told.clear()
        _same(found := behind.search(queries, 12, **options), expected)
        whole, last = (2, ALONE, 0), (1, ALONE, 0)
        assert told == [
            *(("launched", *whole), ("launched", *whole)),
            *(("found", *whole), ("launched", *whole)),
            *(("found", *whole), ("launched", *last)),
            *(("found", *whole), ("found", *last)),
        ]
        assert (found.repeated, found.scanned) == (expected.repeated, expected.scanned)
        assert found.repeated > 0
    (direct,) = [kept for lane, kept in behind._workspace.lanes.items() if lane == ALONE]
    assert len(direct.work.rows) == 2


@on_gpu
@needs_kernels
def test_a_shorter_block_is_replayed_by_the_recording_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent in parts, of which a shorter block has fewer; other queries each time."""
    rng = np.random.default_rng(1)
    titles = clustered(rng, 5000, 384)
    one, lanes = searcher(titles), searcher(titles)
    batches = [clustered(rng, 11_000, 384) for _ in range(4)]
    expected = [one.search(queries, 10) for queries in batches]
    _in_lanes(monkeypatch, 3072)
    for queries, its in zip(batches, expected, strict=True):
        _same(lanes.search(queries, 10), its)
    kinds = lanes._all._graphs.values()
    assert sum(kind.search is not None and len(kind.search.feed.parts) > 1 for kind in kinds) == 2, "one a lane"
