"""How many queries go to a GPU: divided by their lengths there, and sent in parts, each while the last is scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semrec_faiss import Recommender
from semrec_faiss.errors import DataError
from semrec_faiss.index.fused.block_search import ALONE, LEFT
from semrec_faiss.index.fused.plan import Masking
from semrec_faiss.index.fused.queries.batches import VectorBatch
from semrec_faiss.index.fused.queries.feeds import feed_for
from semrec_faiss.index.fused.queries.sending import ManyThreads, Sending, copied
from semrec_faiss.index.fused.queries.unit_length import UnitLength
from semrec_faiss.index.fused.room import MOST_QUERIES
from semrec_faiss.index.queries import prepared_block
from tests.index.fused.recordings import recordings
from tests.index.fused.worlds import PLACE, SIZE, Truth, clustered, exclude, needs_kernels, searcher


@needs_kernels
@pytest.mark.parametrize("beside_others", [False, True])
@pytest.mark.parametrize("masking", ["none", "own"])
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


@needs_kernels
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_queries_are_brought_to_unit_length_as_by_numpy_and_many_where_a_gpu_fetches_them(kind: type) -> None:
    import torch

    rng, index = np.random.default_rng(5), searcher(np.eye(200, 40, dtype=np.float32))
    for queries, locked in ((1, False), (100, False), (10_000, True), (500_000, False)):
        given = rng.normal(scale=9.0, size=(queries, 40)).astype(kind)
        found = prepared_block(given, 0, normalize=True, by=index.arithmetic)
        wanted = prepared_block(given, 0, normalize=True)
        np.testing.assert_allclose(found, wanted, rtol=3e-7)
        assert torch.from_numpy(found).is_pinned() == (locked and PLACE != "cpu")
        given.setflags(write=False)
        np.testing.assert_array_equal(prepared_block(given, 0, normalize=True, by=index.arithmetic), found)


@needs_kernels
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("most", [MOST_QUERIES, 128])
def test_queries_that_are_prepared_where_they_are_sent_find_what_prepared_ones_do(
    kind: type, most: int, small_parts: list[int]
) -> None:
    """At once and in blocks, launched and recorded: in parts, one after the other."""
    rng = np.random.default_rng(6)
    titles = clustered(rng, 140 * SIZE, 40)
    with recordings():
        search = searcher(titles)
        search._most = most
        for _ in range(1 if PLACE == "cpu" else 3):
            queries = rng.normal(scale=3.0, size=(131 if PLACE == "cpu" else 1000, 40)).astype(kind)
            small_parts.clear()
            found = search.search_given(queries, 0, 10, normalize=True)
            assert len(small_parts) > 1 and (most == 128 or small_parts == sorted(set(small_parts)))
            prepared = search.search(prepared_block(queries, 0, normalize=True), 10)
            np.testing.assert_array_equal(found.rows, prepared.rows)
            np.testing.assert_allclose(found.scores, prepared.scores, atol=3e-7)
            Truth.of(titles, prepared_block(queries, 0, normalize=True)).check(found, 10)


@needs_kernels
@pytest.mark.parametrize("most", [MOST_QUERIES, 128])
def test_a_query_that_cannot_be_searched_for_is_named_though_others_are_under_way(
    most: int, small_parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is forgotten then: fewer queries, in the same buffers, are searched as ever."""
    by_host: list[int] = []

    def noted(given: Any, first: int, **options: Any) -> Any:
        by_host.append(first)
        return prepared_block(given, first, **options)

    monkeypatch.setattr("semrec_faiss.index.fused.searcher.prepared_block", noted)
    rng = np.random.default_rng(7)
    titles = clustered(rng, 140 * SIZE, 40)
    with recordings():
        search = searcher(titles)
        search._most = most
        queries = rng.normal(size=(100, 40)).astype(np.float32)  # two blocks of 64, one in each lane, or one
        for _ in range(1 if PLACE == "cpu" else 3):
            for value, told in ((np.nan, "NaN"), (np.inf, "infinite"), (0.0, "zero")):
                wrong = queries.copy()
                wrong[99] = value
                with pytest.raises(DataError, match=rf"queries\[10000099\] .*{told}"):
                    search.search_given(wrong, 10_000_000, 10, normalize=True)
                fewer = queries[:-1]
                found = search.search_given(fewer, 0, 10, normalize=True)
                assert by_host == [10_000_000]
                by_host.clear()
                Truth.of(titles, prepared_block(fewer, 0, normalize=True)).check(found, 10)
        assert len(small_parts) > 1


@needs_kernels
def test_queries_too_short_or_long_for_float32_squares_are_searched_all_the_same(small_parts: list[int]) -> None:
    rng = np.random.default_rng(7)
    titles, queries = clustered(rng, 140 * SIZE, 40), rng.normal(size=(131, 40))
    queries[::3] *= 1e-22
    queries[1::3] *= 1e25
    search = searcher(titles)
    for kind in (np.float32, np.float64):
        found = search.search_given(queries.astype(kind), 0, 10, normalize=True)
        Truth.of(titles, prepared_block(queries, 0, normalize=True)).check(found, 10)
    found = search.search_given(queries * 1e30, 0, 10, normalize=True)  # 1e55: no float32 holds that
    Truth.of(titles, prepared_block(queries, 0, normalize=True)).check(found, 10)
    assert len(small_parts) > 1


@needs_kernels
def test_queries_are_of_unit_length_to_the_last_bit_or_left_as_they_are() -> None:
    import torch

    rng = np.random.default_rng(5)
    given = rng.normal(scale=9.0, size=(50, 40)).astype(np.float32)
    given[::2] /= np.linalg.norm(given[::2], axis=1, keepdims=True)  # within a few parts in ten million
    there = torch.from_numpy(given.copy()).to(PLACE)
    unit = UnitLength(there.device, normalize=True)
    unit.launch(there)
    unit.fetch()
    found, wide = there.cpu().numpy(), given.astype(np.float64)
    unit.check()
    np.testing.assert_array_equal(found[::2], given[::2])
    np.testing.assert_array_equal(found[1::2], (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype("f4")[1::2])


@needs_kernels
def test_queries_that_are_not_normalised_keep_their_lengths(small_parts: list[int]) -> None:
    rng = np.random.default_rng(8)
    titles = clustered(rng, 140 * SIZE, 40)
    queries = rng.normal(scale=3.0, size=(131, 40))
    queries[7] = 0.0
    search = searcher(titles)
    found = search.search_given(queries, 0, 10, normalize=False)
    assert len(small_parts) > 1
    Truth.of(titles, queries.astype(np.float32)).check(found, 10)
    queries[9, 1] = np.nan
    with pytest.raises(DataError, match=r"queries\[49\] "):
        search.search_given(queries, 40, 10, normalize=False)


@pytest.mark.gpu
def test_many_vectors_of_any_length_find_what_each_finds_alone() -> None:
    rng = np.random.default_rng(9)
    titles = clustered(rng, 20_000, 384)
    asked = rng.normal(scale=5.0, size=(20_000, 384)).astype(np.float32)  # two blocks, the first of several parts
    flat, fused = (
        Recommender.from_arrays(titles, config={"index": {"type": kind}, "device": "gpu"}) for kind in ("flat", "fused")
    )
    answers = fused.search(asked)
    np.testing.assert_array_equal(
        answers.rows[::1000], np.concatenate([fused.search(one).rows for one in asked[::1000]])
    )
    np.testing.assert_allclose(answers.scores, flat.search(asked).scores, atol=1e-5)
    asked[17_003] = np.inf
    with pytest.raises(DataError, match=r"queries\[17003\] "):
        fused.search(asked)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Send few queries in parts, too; where each part that was sent begins."""
    begun: list[int] = []
    send = Sending.copy

    def noted(self: Sending, locked: Any, part: slice) -> None:
        begun.append(part.start)
        send(self, locked, part)

    monkeypatch.setattr(Sending, "copy", noted)
    names = ("batches.COPIED_AT_ONCE", "feeds.SENT_APART", "sending.COPIED_AT_ONCE", "sending.SENT_IN_PART")
    for name in (*names, "batches.SENT_IN_PART"):
        monkeypatch.setattr(f"semrec_faiss.index.fused.queries.{name}", 1000)
    return begun


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
    titles, queries = clustered(rng, 140 * SIZE, 40), rng.normal(size=(131, 40)).astype(np.float32)
    truth = Truth.of(titles, prepared_block(queries, 0, normalize=True))
    wide = np.zeros((131, 80), np.float32)
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
