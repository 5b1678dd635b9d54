"""Queries that are copied by threads beside: every part is the right one, whoever copies it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from semrec_faiss.index.fused import sending
from semrec_faiss.index.fused.batches import UserBatch, VectorBatch, staged_ahead
from semrec_faiss.index.fused.plan import LARGEST_TILE
from semrec_faiss.index.fused.sending import arriving, parts_of

torch = pytest.importorskip("torch")

HERE = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SENT_IN_PART", 4 * 8 * LARGEST_TILE)
    monkeypatch.setattr(sending, "COPIED_AT_ONCE", 0)


def _queries(count: int) -> Any:
    return np.random.default_rng(count).normal(size=(count, 8)).astype(np.float32)


@pytest.mark.parametrize("count", [1, LARGEST_TILE, 5 * LARGEST_TILE + 3])
@pytest.mark.parametrize("ahead", [True, False])
def test_all_parts_arrive(count: int, ahead: bool) -> None:
    queries = _queries(count)
    coming = arriving(queries, HERE, 0, ahead=ahead)
    assert coming is not None
    for part in (*parts_of(count, 8), slice(0, count), slice(count // 3, count // 2 + 1)):
        np.testing.assert_array_equal(coming.part(part).numpy(), queries[part])


def test_the_first_half_is_copied_here_when_it_is_asked_for() -> None:
    queries = _queries(4 * LARGEST_TILE)
    coming = arriving(queries, HERE, 0, ahead=False)
    assert coming is not None and coming._here == 2 * LARGEST_TILE and coming._copied == 0
    coming.part(slice(0, LARGEST_TILE))
    assert coming._copied == LARGEST_TILE
    ahead = arriving(queries, HERE, 0, ahead=True)
    assert ahead is not None and ahead._here == 0


@pytest.mark.parametrize("ahead", [True, False])
def test_what_no_thread_has_come_to_is_copied_where_it_is_waited_for(ahead: bool) -> None:
    busy, let_go = [threading.Event() for _ in range(sending.COPIERS)], threading.Event()
    for one in busy:
        sending._copiers().submit(lambda one=one: (one.set(), let_go.wait(30)))
    assert all(one.wait(30) for one in busy), "all threads have something else to do"
    try:
        queries = _queries(3 * LARGEST_TILE)
        coming = arriving(queries, HERE, 0, ahead=ahead)
        assert coming is not None
        for _ in range(2):
            for part in parts_of(len(queries), 8):
                np.testing.assert_array_equal(coming.part(part).numpy(), queries[part])
    finally:
        let_go.set()


def test_few_queries_are_sent_as_they_are() -> None:
    assert arriving(_queries(2), HERE, 64, ahead=False) is None
    assert arriving(_queries(3), HERE, 64, ahead=False) is not None


def test_blocks_are_brought_one_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, staged, parts = _queries(10), [], [slice(0, 4), slice(4, 7), slice(7, 10)]
    stage = VectorBatch.staged

    def noted(batch: VectorBatch, device: Any, *, ahead: bool) -> VectorBatch:
        staged.append(len(batch))
        return stage(batch, device, 0, ahead=ahead)

    monkeypatch.setattr(VectorBatch, "staged", noted)
    blocks = staged_ahead(VectorBatch(queries), parts, HERE)
    for part, known in zip(parts, [[3], [3, 3], [3, 3]], strict=True):
        block = next(blocks)
        assert isinstance(block, VectorBatch) and staged == known
        np.testing.assert_array_equal(block.vectors, queries[part])
        if block.arriving is not None:
            np.testing.assert_array_equal(block.arriving.part(slice(0, len(block))).numpy(), queries[part])
    assert next(blocks, None) is None


def test_users_are_on_the_gpu_already() -> None:
    users: Any = object()
    batch = UserBatch(users, np.arange(6), without_seen=False)
    assert [list(block.rows) for block in staged_ahead(batch, [slice(0, 4), slice(4, 6)], HERE)] == [
        [0, 1, 2, 3],
        [4, 5],
    ]
