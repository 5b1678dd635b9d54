"""Type fused on several GPUs: the same answers as on one. The CPU, in the interpreter, or one GPU stands for two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.errors import DataError, DeviceError, UsageError
from semrec_faiss.index.fused.block_search import BlockSearch
from semrec_faiss.index.fused.queries.batches import VectorBatch
from semrec_faiss.index.fused.room import even_block
from semrec_faiss.index.fused.searcher import FREE_SHARE
from semrec_faiss.index.fused.several import several_gpus
from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
from semrec_faiss.index.fused.several.shards import merged
from tests.index.fused.worlds import PLACE, came_as_float16, clustered, exclude, needs_kernels, searcher


def _devices() -> list[str]:
    if PLACE != "cuda:0":
        return ["cpu", "cpu"]
    import torch

    return [f"cuda:{gpu}" for gpu in range(torch.cuda.device_count())] * (2 if torch.cuda.device_count() == 1 else 1)


@needs_kernels
@pytest.mark.parametrize("layout", ["shards", "replicas"])
def test_several_answer_as_one_does(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = _devices()
    monkeypatch.setattr("semrec_faiss.index.fused.several.several_gpus.LEAST_A_REPLICA", 1)
    rng = np.random.default_rng(31)
    titles = clustered(rng, 701, 32)
    titles[rng.choice(701, 60)] = titles[5]
    queries = np.concatenate((titles[5:6], rng.normal(size=(1, 32)))).astype(np.float32)
    mask, few = rng.random(701) < 0.4, np.zeros(701, np.bool_)
    few[[3, 5, 700]] = True
    seen = exclude([rng.choice(701, size=30, replace=False) for _ in queries])
    one, several = searcher(titles), SeveralGpus(titles, devices, layout=layout)
    assert len(several.searchers) == len(devices)
    for options in ({}, {"mask": mask}, {"excluded": seen}, {"mask": mask, "excluded": seen}, {"mask": few}):
        for _ in range(1 if PLACE == "cpu" else 3):
            found, expected = several.search(queries, 12, **options), one.search(queries, 12, **options)
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
    found, expected = (its.search_given(queries * 3.0, 0, 12, normalize=True) for its in (several, one))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
    with pytest.raises(DataError, match=r"queries\[41\] .*zeros"):
        several.search_given(queries * [[1.0], [0.0]], 40, 12, normalize=True)
    with pytest.raises(UsageError, match="k is 702"):
        several.search(queries, 702)


@needs_kernels
def test_blocks_of_shards_that_take_turns_answer_as_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some queries are not proven at once, in blocks of two lanes; some leave out titles; filtered ones take none."""
    rng = np.random.default_rng(5)
    titles = clustered(rng, 401, 32)
    titles[rng.choice(401, 60)] = titles[5]
    queries = titles[[5, 9, 5, 17, 200, 5, 300, 5]] + np.float32(1e-3)
    mask = rng.random(401) < 0.6
    seen = exclude([rng.choice(401, size=30, replace=False) for _ in queries])
    one, several = searcher(titles), SeveralGpus(titles, _devices()[:2], layout="shards")
    taken: list[int] = []
    first_pass = BlockSearch.first_pass

    def noted(*given: Any) -> Any:
        taken.append(given[-1])
        return first_pass(*given)

    monkeypatch.setattr(BlockSearch, "first_pass", noted)
    for name, value in (("LARGEST_TILE", 1), ("BLOCK_MS", 1e-9)):
        monkeypatch.setattr(f"semrec_faiss.index.fused.several.turns.{name}", value)
    for options in ({}, {"excluded": seen}, {"mask": mask}):
        expected = one.search(queries, 12, **options)
        taken.clear()
        found = several.search(queries, 12, **options)
        assert sorted(taken) == ([] if "mask" in options else [0] * len(queries) + [1] * len(queries))
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
        assert found.repeated <= expected.repeated > 0


@needs_kernels
@pytest.mark.parametrize(("near", "repeated"), [(12, 0), (5, 1)])
def test_a_shard_is_proven_by_what_others_found(near: int, repeated: int) -> None:
    """The second shard's titles are so alike that it cannot tell which are its best, which matters if any is wanted."""
    rng, devices = np.random.default_rng(7), _devices()[:2]
    query = np.eye(1, 64, dtype=np.float32)
    titles = 0.01 * rng.normal(size=(1400, 64))
    titles[:near, 0] += np.linspace(0.7, 0.9, near)
    titles[700:] = 0.3 * query + np.hstack((1e-6 * rng.normal(size=(700, 1)), 0.05 * rng.normal(size=(700, 63))))
    titles = titles.astype(np.float32)
    assert searcher(titles[700:]).search(query, 12).repeated == 1
    found = SeveralGpus(titles, devices, layout="shards").search(query, 12)
    expected = searcher(titles).search(query, 12)
    assert found.repeated == repeated
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))


@needs_kernels
def test_a_shard_of_lengths_far_apart_is_compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its float16 scores prove nothing, however sure they look: short titles vanish in them."""
    rng = np.random.default_rng(3)
    titles = rng.normal(size=(300, 32)).astype(np.float32)
    titles[150:] *= np.float32(1e-22)
    titles[299] = 1.0
    titles[:150] *= -np.sign(titles[:150].sum(axis=1, keepdims=True))  # all others of the first query's are below 0
    queries = np.ones((6, 32), np.float32)
    for name, value in (("LARGEST_TILE", 1), ("BLOCK_MS", 1e-9)):
        monkeypatch.setattr(f"semrec_faiss.index.fused.several.turns.{name}", value)
    monkeypatch.setattr(BlockSearch, "first_pass", lambda *_: pytest.fail("it takes no turns"))
    several = SeveralGpus(titles, _devices()[:2], layout="shards")
    assert [one.titles.wide for one in several.searchers] == [False, True]
    expected = searcher(titles).search(queries, 5)
    for _ in range(1 if PLACE == "cpu" else 3):
        found = several.search(queries, 5)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
    assert several.searchers[1].whole.recording(VectorBatch(queries), 5) is None
    by_hand = titles.astype(np.float64).sum(axis=1)
    np.testing.assert_array_equal(found.rows[0], np.argsort(-by_hand, kind="stable")[:5])


@needs_kernels
def test_a_gpu_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = clustered(np.random.default_rng(1), 300, 32)
    devices = _devices()[:2]
    several = SeveralGpus(titles, devices, layout="shards")

    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure\nmore")

    monkeypatch.setattr(several.searchers[1]._all, "answer", failing)
    with pytest.raises(DeviceError, match=rf"{several.searchers[1].name[:3]}.* failed: CUDA error"):
        several.search(titles[:2], 3)


@needs_kernels
@pytest.mark.parametrize("layout", ["shards", "replicas"])
def test_a_gpu_whose_memory_does_not_suffice_is_named(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where smaller blocks would not help, as with the bitmap of a filter."""
    import torch

    titles = clustered(np.random.default_rng(1), 300, 32)
    several = SeveralGpus(titles, _devices()[:2], layout=layout)

    def full(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    for its in several.searchers:
        monkeypatch.setattr(its.filters._bitmaps, "send", full)
    with pytest.raises(DeviceError, match=rf"{several.searchers[0].name[:3]}.* failed: CUDA out of memory"):
        several.search(titles[:2], 3, mask=np.ones(300, np.bool_))


@needs_kernels
def test_blocks_that_there_is_no_memory_for_take_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    titles = clustered(np.random.default_rng(1), 300, 32)
    several = SeveralGpus(titles, _devices()[:2], layout="shards")
    first_pass, launched = BlockSearch.first_pass, iter(range(9))

    def full(*given: Any) -> Any:
        if next(launched) == 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return (yield from first_pass(*given))

    monkeypatch.setattr(BlockSearch, "first_pass", full)
    for name, value in (("LARGEST_TILE", 1), ("BLOCK_MS", 1e-9)):
        monkeypatch.setattr(f"semrec_faiss.index.fused.several.turns.{name}", value)
    found, expected = several.search(titles[:4], 3), searcher(titles).search(titles[:4], 3)
    assert next(launched) == 4
    assert all(lane < 1 for its in several.searchers for lane in its._workspace.lanes), "buffers of turns are let go"
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))


class _Recording:
    """A recording whose first pass proves nothing, on a GPU that fails then."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def found(self, count: int) -> tuple[Any, Any, Any]:
        if self.error is not None:
            raise self.error
        return np.zeros((count, 3), np.int64), np.zeros((count, 3), np.float32), np.full(count, np.inf, np.float32)

    def repeat(self, *_: Any) -> Any:
        import torch

        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        yield


@needs_kernels
def test_a_gpu_that_fails_as_it_replays_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no memory to search some of the queries again has them searched by themselves."""
    titles = clustered(np.random.default_rng(1), 300, 32)
    several = SeveralGpus(titles, _devices()[:2], layout="shards")
    monkeypatch.setattr(BlockSearch, "replay", lambda *_: None)
    held = [_Recording(None), _Recording(None)]
    for its, recording in zip(several.searchers, held, strict=True):
        monkeypatch.setattr(its._all, "recording", lambda *_, recording=recording: recording)
    found, expected = several.search(titles[:2], 3), searcher(titles).search(titles[:2], 3)
    np.testing.assert_array_equal(found.rows, expected.rows)
    held[1].error = RuntimeError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceError, match=rf"{several.searchers[1].name[:3]}.* failed: CUDA error"):
        several.search(titles[:2], 3)


def _by_sorting(rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> tuple[Any, Any]:
    """A stable sort by score of what the shards, in the order of their titles, found."""
    all_rows, all_scores = np.concatenate(list(rows), axis=1), np.concatenate(list(scores), axis=1)
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(all_rows, order, 1), np.take_along_axis(all_scores, order, 1)


@pytest.mark.parametrize("shards", [2, 3, 8])
@pytest.mark.parametrize(("queries", "k"), [(1, 1), (5, 10), (2000, 7), (3, 2048)])
def test_merging_takes_the_best_and_ties_by_row(shards: int, queries: int, k: int) -> None:
    """With so few different scores nearly all are ties; some shards find fewer than k."""
    rng = np.random.default_rng(shards * queries + k)
    scores = -np.sort(-rng.integers(-3, 20, (shards, queries, k)).astype(np.float32), axis=2)
    rows = np.broadcast_to(np.arange(k), scores.shape).copy()
    missing = np.arange(k) >= rng.integers(0, k + 1, (shards, queries, 1))
    rows[missing], scores[missing] = -1, -np.inf
    starts = [5000 * shard for shard in range(shards)]
    placed = np.where(rows < 0, -1, rows + np.array(starts)[:, None, None])
    expected_rows, expected_scores = _by_sorting(placed, scores, k)
    last_first = (np.ascontiguousarray(part[::-1]) for part in (rows, scores))
    found_rows, found_scores = merged(*last_first, np.array(starts)[::-1, None, None])
    np.testing.assert_array_equal(found_rows, expected_rows)
    np.testing.assert_array_equal(found_scores, expected_scores)


@pytest.mark.parametrize(
    ("queries", "most", "block"),
    [(100, 128, 100), (300, 256, 256), (257, 256, 256), (10_000, 7680, 5120), (119_743, 16_384, 14_976)],
)
def test_blocks_of_a_batch_are_about_as_large(queries: int, most: int, block: int) -> None:
    assert even_block(queries, most) == block


@needs_kernels
@pytest.mark.parametrize("layout", ["shards", "replicas"])
def test_a_filter_is_shelved_on_every_gpu(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
    titles = clustered(np.random.default_rng(1), 300, 32)
    several, mask = SeveralGpus(titles, _devices()[:2], layout=layout), np.arange(300) % 7 == 0
    several.shelve(mask)
    searchers = several.searchers
    assert [shelf.size for its in searchers for shelf in its.filters._shelves] == [24 if layout == "shards" else 48] * 2
    found, expected = several.search(titles[:2], 3, mask=mask), searcher(titles).search(titles[:2], 3, mask=mask)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert [len(its.filters._known) for its in searchers] == [1, 1], "it is that filter which is searched"


@needs_kernels
def test_a_gpu_may_have_no_title_at_all() -> None:
    """Once they failed to be uploaded: of one title in two shards, the first has none."""
    assert PLACE is not None
    title = np.eye(1, 32, dtype=np.float32)
    found = SeveralGpus(title, [PLACE, PLACE], layout="shards").search(2 * title, 1)
    assert (found.rows.tolist(), found.scores.tolist()) == ([[0]], [[2.0]])


@needs_kernels
@pytest.mark.parametrize(
    ("came", "options", "layout"),
    [
        (False, ("float32", "auto"), "shards"),
        (False, ("float32", "gpu"), "shards"),
        (False, ("float32", "host"), "replicas"),
        (False, ("float16", "auto"), "replicas"),
        (True, ("float32", "auto"), "replicas"),
    ],
)
def test_whether_all_titles_fit_every_gpu_depends_on_what_proves_answers(
    came: bool, options: Any, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bytes a component of titles that came as float16, or whose originals are elsewhere, and else six."""
    import torch

    titles = clustered(np.random.default_rng(6), 1 << 15, 64)
    free = (2 * 2**30 + 3 * titles.size) / FREE_SHARE
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free), 1 << 40))
    titles = came_as_float16(titles.astype(np.float16)) if came else titles
    assert several_gpus._layout("auto", titles, ["cuda:0", "cuda:1"], *options) == layout
