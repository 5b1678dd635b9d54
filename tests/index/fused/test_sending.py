"""How many queries go to a GPU: divided by their lengths there, and sent in parts, each while the last is scored."""

from __future__ import annotations

import numpy as np
import pytest

from semrec_faiss.index.fused.block_search import ALONE, LEFT
from semrec_faiss.index.fused.plan import Masking
from semrec_faiss.index.fused.room import MOST_QUERIES
from semrec_faiss.index.queries import prepared_block
from tests.index.fused.recordings import recordings
from tests.index.fused.worlds import PLACE, SIZE, Truth, clustered, exclude, needs_kernels, searcher


@needs_kernels
@pytest.mark.parametrize("masking", ["none", "own"])
def test_queries_that_are_sent_in_parts_are_answered_as_those_sent_together(
    masking: Masking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is scored as it comes, into the buffers of its own queries; the last one ends within a tile."""
    for name in ("batches.COPIED_AT_ONCE", "batches.SENT_APART", "sending.COPIED_AT_ONCE", "sending.SENT_IN_PART"):
        monkeypatch.setattr(f"semrec_faiss.index.fused.{name}", 1000)
    rng = np.random.default_rng(4)
    titles = clustered(rng, 140 * SIZE, 40)
    with recordings():
        search = searcher(titles)
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


@needs_kernels
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_queries_are_brought_to_unit_length_as_by_numpy_and_many_where_a_gpu_fetches_them(kind: type) -> None:
    import torch

    rng, index = np.random.default_rng(5), searcher(np.eye(200, 40, dtype=np.float32))
    for queries, locked in ((1, False), (100, False), (10_000, True), (500_000, False)):
        given = rng.normal(scale=9.0, size=(queries, 40)).astype(kind)
        found = prepared_block(given, 0, normalize=True, divided=index.divided)
        wanted = prepared_block(given, 0, normalize=True)
        np.testing.assert_array_equal(found.view(np.int32), wanted.view(np.int32))
        assert torch.from_numpy(found).is_pinned() == (locked and PLACE != "cpu")
        given.setflags(write=False)
        np.testing.assert_array_equal(prepared_block(given, 0, normalize=True, divided=index.divided), wanted)
