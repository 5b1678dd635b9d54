"""How many queries go to a GPU: sent in parts, each while the last is scored, from wherever they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semrec_faiss.index.fused.block_search import ALONE, LEFT
from semrec_faiss.index.fused.plan import Masking
from semrec_faiss.index.fused.queries.batches import VectorBatch
from semrec_faiss.index.fused.queries.feeds import feed_for
from semrec_faiss.index.fused.queries.sending import ManyThreads, copied
from semrec_faiss.index.fused.room import MOST_QUERIES
from semrec_faiss.index.queries import prepared_block
from tests.index.fused.recordings import recordings
from tests.index.fused.worlds import PLACE, SIZE, Truth, clustered, exclude, needs_kernels, searcher


@needs_kernels
@pytest.mark.parametrize(("masking", "beside_others"), [("none", False), ("own", False), ("none", True)])
def test_queries_that_are_sent_in_parts_are_answered_as_those_sent_together(
    masking: Masking, beside_others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is scored as it comes, into the buffers of its own queries; the last one ends within a tile."""
    for name in ("batches.COPIED_AT_ONCE", "feeds.SENT_APART", "sending.COPIED_AT_ONCE", "sending.SENT_IN_PART"):
        monkeypatch.setattr(f"semrec_faiss.index.fused.queries.{name}", 1000)
    fed: list[tuple[bool, bool]] = []

    def noted(*room: Any, alone: bool, whole: bool, once: bool) -> Any:
        fed.append((alone, whole))
        return feed_for(*room, alone=alone, whole=whole, once=once)

    monkeypatch.setattr("semrec_faiss.index.fused.block_search.feed_for", noted)
    rng = np.random.default_rng(4)
    titles = clustered(rng, 140 * SIZE, 40)
    with recordings():
        search = searcher(titles, beside_others=beside_others)
        for most in (MOST_QUERIES, 128):  # in blocks, too, of which the last one is shorter
            search._most = most
            for _ in range(1 if PLACE == "cpu" else 3):
                queries = rng.normal(size=(131 if PLACE == "cpu" else 1000, 40)).astype(np.float32)
                allowed = rng.random((len(queries), len(titles))) < (0.9 if masking == "own" else 1.1)
                excluded = exclude([np.flatnonzero(~row) for row in allowed]) if masking == "own" else None
                Truth.of(titles, queries, allowed).check(search.search(queries, 10, excluded=excluded), 10)
        recorded = {(key[1], key[4]) for key, kind in search.whole._graphs.items() if kind.search is not None}
        lanes = {(queries, lane) for queries, lane in recorded if lane not in (ALONE, LEFT)}
        assert lanes == {(64, ALONE + 1), (64, ALONE + 2)}
        assert (len(queries), ALONE) in recorded
        assert {(alone, whole) for alone, whole in fed if not alone} == {(False, beside_others)}
        assert {(alone, whole) for alone, whole in fed if alone} == {(True, False)}


def test_many_threads_that_were_kept_waiting_are_left_alone_for_longer_and_longer() -> None:
    now = [0.0]
    takes = [0.0]

    class Copied:
        nbytes = 4_000_000

        def copy_(self, given: Any) -> None:
            assert given is self
            now[0] += takes[0]

    threads, its = ManyThreads(lambda: now[0]), Copied()
    takes[0] = 0.06
    threads.copy(its, its)
    assert threads.are_at_hand, "they had to be started"
    for rest in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        takes[0] = 0.06
        threads.copy(its, its)
        now[0] += rest - 0.02
        assert not threads.are_at_hand
        now[0] += 0.03
        assert threads.are_at_hand
    takes[0] = 0.0039
    threads.copy(its, its)
    assert threads.are_at_hand
    takes[0] = 0.0041
    threads.copy(its, its)
    assert not threads.are_at_hand
    now[0] += 1.01
    assert threads.are_at_hand, "a copy that did not wait ends that"


@needs_kernels
@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_one_thread_copies_what_many_do(kind: type, at_hand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    threads = ManyThreads()
    threads._back_at = -np.inf if at_hand else np.inf
    monkeypatch.setattr("semrec_faiss.index.fused.queries.sending._many_threads", threads)
    given = torch.from_numpy(np.random.default_rng(1).normal(size=(2048, 384)).astype(kind))
    into = copied(given, torch.zeros(2048, 384))
    np.testing.assert_array_equal(into.numpy(), given.numpy().astype(np.float32))


@needs_kernels
@pytest.mark.parametrize(("whole", "parts"), [(False, [128, 128, 44]), (True, [300])])
def test_a_block_is_sent_whole_where_launching_its_parts_would_take_too_long(
    whole: bool, parts: list[int], small_parts: list[int]
) -> None:
    import torch

    queries = np.random.default_rng(1).normal(size=(300, 40)).astype(np.float32)
    with recordings():
        batch = VectorBatch(queries)
        feed = feed_for(batch, torch.device(PLACE), 300, alone=False, whole=whole, once=False)
        assert [part.stop - part.start for part in feed.put(batch)] == parts
        assert small_parts == [0, *np.cumsum(parts)[:-1]]
        np.testing.assert_array_equal(feed.queries.cpu().numpy(), queries)


@needs_kernels
def test_however_many_queries_lie_in_memory_they_are_sent(small_parts: list[int]) -> None:
    rng = np.random.default_rng(8)
    titles, queries = clustered(rng, 140 * SIZE, 40), rng.normal(size=(30, 40)).astype(np.float32)
    truth = Truth.of(titles, prepared_block(queries, 0, normalize=True))
    wide = np.zeros((30, 80), np.float32)
    wide[:, ::2] = queries
    only_read = queries.copy()
    only_read.setflags(write=False)
    with recordings():
        search = searcher(titles)
        for given in (
            queries[::-1].copy()[::-1],
            np.asfortranarray(queries),
            wide[:, ::2],
            only_read,
            queries.astype(">f4"),
        ):
            np.testing.assert_array_equal(given, queries)
            truth.check(search.search_given(given, 0, 10, normalize=True), 10)
