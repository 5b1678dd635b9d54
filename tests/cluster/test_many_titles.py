"""Titles beyond what 32 bits number: histories, lists of shards, exclusions and answers name them rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import HANG_SECONDS

from semrec_faiss import Recommender
from semrec_faiss.arrays import row_type
from semrec_faiss.cluster.merging import merged
from semrec_faiss.cluster.shard import Allowed, ShardServer
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.data.seen_table import numbered
from semrec_faiss.data.users import History, grouped_history
from semrec_faiss.deadline import TooLateError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.generations.shards import Place, Shard, ShardList
from semrec_faiss.index.saved.users import write_seen
from tests.cluster.worlds import World

HALF = 5_000_000_000
TITLES = 2 * HALF + 301
"""In three shards, of which the last one is an index of 301 titles."""


def _history() -> History:
    rows = np.array([2 * HALF + 10, 3, 1 << 31, 2 * HALF + 10, HALF + 5])
    return grouped_history(np.array([1, 0, 1, 1, 0]), rows, None, None, 2, TITLES)


def test_histories_keep_rows_of_ten_billion_titles(tmp_path: Path) -> None:
    history = _history()
    assert history.offsets.tolist() == [0, 2, 4]
    assert history.rows.tolist() == [3, HALF + 5, 1 << 31, 2 * HALF + 10]
    write_seen(NewGeneration(tmp_path, "gen-000001", None), history)
    stored = pq.read_table(tmp_path / "seen.parquet").to_pydict()
    assert stored == {"user_row": [0, 0, 1, 1], "title_row": history.rows.tolist()}
    assert numbered(np.array(["a", "b"], object), np.array([4, HALF]))["number"].tolist() == [4, HALF]
    assert (row_type(1 << 31), row_type((1 << 31) + 1)) == (np.int32, np.int64)


def test_shards_answer_with_rows_of_ten_billion_titles(world: World) -> None:
    there = Place(node=None, generation=IndexDirectory(world.whole).current_ref())
    listed = ShardList(
        shards=tuple(
            Shard(folder=str(world.whole), first=first, titles=titles, places=(there,))
            for first, titles in ((0, HALF), (HALF, HALF), (2 * HALF, 301))
        )
    )
    shards = OpenShards(world.whole, ShardList.model_validate_json(listed.as_json()), [])
    history = _history()
    assert shards.count == TITLES
    assert shards.shards_of(history.rows).tolist() == [0, 1, 0, 2]
    own = Exclusions(history.offsets, history.rows).within(*shards.listed.starts[-2:].tolist())
    assert (own.offsets.tolist(), own.rows.tolist()) == ([0, 0, 1], [10])

    whole = Recommender.open(world.whole)
    server = ShardServer(str(world.whole), there.generation.model_dump(), 2 * HALF, ("device.kind=cpu",))
    queries = whole.index.vectors([10, 10])
    found = merged([server.top(queries, 4, Allowed(left_out=(7, 2 * HALF + 11)), own, "auto")], 4, 0.0)
    expected = [
        whole.search(queries[:1], 4, exclude="m00011").rows[0],
        whole.similar("m00010", 4, exclude="m00011").rows,
    ]
    np.testing.assert_array_equal(found.rows, np.stack(expected) + 2 * HALF)
    assert server.known_rows(["m00300", "nobody"]).tolist() == [2 * HALF + 300, -1]
    np.testing.assert_array_equal(server.vectors(np.array([2 * HALF + 5])), whole.index.vectors([5]))


def test_a_shard_filters_no_longer_than_anybody_waits(world: World) -> None:
    ref = IndexDirectory(world.whole).current_ref().model_dump()
    server = ShardServer(str(world.whole), ref, HALF, ("device.kind=cpu",))
    queries = Recommender.open(world.whole).index.vectors([10])
    late, patient = (Allowed(("title IS NOT NULL",), seconds=seconds) for seconds in (-1.0, HANG_SECONDS))
    for ask in (lambda allowed: server.top(queries, 4, allowed, None, "auto"), server.mask):
        with pytest.raises(TooLateError):
            ask(late)
    assert server.top(queries, 1, patient, None, "auto").rows.tolist() == [[HALF + 10]]
