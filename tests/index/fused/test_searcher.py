"""Type fused against brute force in float64: on a GPU, and elsewhere in Triton's interpreter, at small sizes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import ConfigError, DeviceError, MissingPackageError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.fused.plan import Masking, plan_search, repeats
from semrec_faiss.index.fused.repeating import plan_repeat
from semrec_faiss.index.fused.room import block_queries, repeat_queries
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.vector_index import VectorIndex
from tests.index.fused.worlds import (
    PLACE,
    SIZE,
    WORLDS,
    Truth,
    clustered,
    exclude,
    needs_kernels,
    note_codes,
    on_gpu,
    searcher,
)

either_way = pytest.mark.usefixtures("read")


# --- exactness -------------------------------------------------------------------------------------------------------


@needs_kernels
@either_way
@pytest.mark.parametrize("kind", WORLDS)
def test_the_answers_of_brute_force(kind: str) -> None:
    rng = np.random.default_rng(3)
    titles = WORLDS[kind](rng, 401 * SIZE, 40).astype(np.float32)
    queries = rng.normal(size=(2 if PLACE == "cpu" else 9, 40)).astype(np.float32)
    found = searcher(titles).search(queries, 10)
    Truth.of(titles, queries).check(found, 10)
    if kind in ("clustered", "random"):
        assert (found.repeated, found.scanned) == (0, 0), "these are proven at once"
    if kind == "all the same":
        assert found.scanned == len(queries), "ties of all titles are never proven, so all are compared"


@needs_kernels
@pytest.mark.parametrize(
    ("read", "room", "masking"),
    [
        ("vectors", 1, "none"),
        ("vectors", 32, "shared"),
        ("vectors", 2, "own"),
        ("codes", 2, "none"),
        ("codes", 2, "own"),
    ],
    indirect=["read"],
)
@either_way
def test_what_a_first_pass_cannot_prove_a_second_one_does(
    masking: Masking, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Titles too near to one another for float16 to tell apart, in more chunks than a first pass keeps."""
    rng = np.random.default_rng(8)
    titles = clustered(rng, 1500, 32)
    centre = titles[0].copy()
    near = rng.choice(1500, size=50, replace=False)
    titles[near] = centre + 1e-5 * rng.normal(size=(50, 32))
    queries = np.concatenate((centre + 1e-3 * rng.normal(size=(3, 32)), -titles[1:4])).astype(np.float32)
    queries = queries[rng.permutation(6)]
    mask = rng.random(1500) < 0.9
    lists = [rng.choice(near, size=3, replace=False) for _ in queries]
    allowed = np.ones((6, 1500), np.bool_) & (mask | (masking == "none"))
    if masking == "own":
        for query, rows in enumerate(lists):
            allowed[query, rows] = False
    monkeypatch.setattr("semrec_faiss.index.fused.repeating.repeat_queries", lambda *_: room)
    index = searcher(titles)
    for _ in range(1 if PLACE == "cpu" else 3):  # launched, recorded and replayed where there is a GPU
        found = index.search(
            queries,
            4,
            mask=None if masking == "none" else mask,
            excluded=exclude(lists) if masking == "own" else None,
        )
        assert 3 <= found.repeated < 6
        assert found.scanned == 0
        Truth.of(titles, queries, allowed).check(found, 4)


@needs_kernels
@either_way
@pytest.mark.parametrize(
    ("n", "d", "queries", "k"),
    [
        (1, 32, 1, 1),
        (5, 32, 3, 5),
        (63, 48, 17, 5),
        (257, 384, 2, 256),
        (2300, 40, 1, 2048),
        (1100, 32, 1, 700),
        (129, 2048, 1, 7),
    ],
)
def test_sizes_that_are_multiples_of_nothing(n: int, d: int, queries: int, k: int) -> None:
    rng = np.random.default_rng(n)
    titles, asked = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(queries, d)).astype(np.float32)
    Truth.of(titles, asked).check(searcher(titles).search(asked, k), k)


@needs_kernels
@pytest.mark.slow
def test_a_tile_of_many_queries() -> None:
    rng = np.random.default_rng(7)
    titles, asked = rng.normal(size=(140, 40)).astype(np.float32), rng.normal(size=(65, 40)).astype(np.float32)
    Truth.of(titles, asked).check(searcher(titles).search(asked, 2), 2)


@needs_kernels
@either_way
@pytest.mark.parametrize("share", [0.0, 0.004, 0.5, 0.97])
def test_masks_of_every_density(share: float) -> None:
    rng = np.random.default_rng(11)
    titles = clustered(rng, 500 * SIZE, 32)
    queries = titles[rng.integers(len(titles), size=2)]
    index = searcher(titles)
    mask = rng.random(len(titles)) < share
    lists = [rng.choice(len(titles), size=40, replace=False) for _ in queries]
    allowed = np.broadcast_to(mask, (2, len(titles))).copy()
    for _ in range(1 if PLACE == "cpu" else 3):  # the second time a GPU records, the third it replays
        Truth.of(titles, queries, allowed).check(index.search(queries, 12, mask=mask), 12)
    for query, rows in enumerate(lists):
        allowed[query, rows] = False
    for _ in range(1 if PLACE == "cpu" else 3):
        Truth.of(titles, queries, allowed).check(index.search(queries, 12, mask=mask, excluded=exclude(lists)), 12)


@needs_kernels
@either_way
def test_seen_titles_of_each_query_alone() -> None:
    rng = np.random.default_rng(4)
    titles = clustered(rng, 700 * SIZE, 32)
    queries = titles[rng.integers(len(titles), size=4)]
    best = np.argsort(-(queries.astype(np.float64) @ titles.astype(np.float64).T), axis=1)
    lists = [best[query, : 19 * query] for query in range(4)]  # from none to many, always the very best
    allowed = np.ones((4, len(titles)), np.bool_)
    for query, rows in enumerate(lists):
        allowed[query, rows] = False
    Truth.of(titles, queries, allowed).check(searcher(titles).search(queries, 10, excluded=exclude(lists)), 10)


@needs_kernels
@settings(max_examples=6 if PLACE == "cpu" else 100, deadline=None)
@given(data=st.data())
def test_whatever_the_sizes(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 300 * SIZE))
    d = data.draw(st.sampled_from([32, 40, 64, 120, 136]))
    queries = data.draw(st.integers(1, 2 if PLACE == "cpu" else 20))
    k = data.draw(st.integers(1, min(n, 40)))
    coded_titles = data.draw(st.sampled_from([1, 500_000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    titles = rng.normal(size=(n, d)).astype(np.float32)
    titles[rng.random(n) < data.draw(st.sampled_from([0.0, 0.5]))] = titles[0]
    asked = rng.normal(size=(queries, d)).astype(np.float32)
    mask = None if data.draw(st.booleans()) else rng.random(n) < data.draw(st.floats(0, 1))
    allowed = None if mask is None else np.broadcast_to(mask, (queries, n))
    with mock.patch("semrec_faiss.index.fused.plan.CODED_TITLES", coded_titles):
        index = searcher(titles)
    Truth.of(titles, asked, allowed).check(index.search(asked, k, mask=mask), k)


@needs_kernels
def test_float16_rescoring_rounds_and_proves_nothing() -> None:
    rng = np.random.default_rng(8)
    titles = clustered(rng, 800, 64)
    half, full = searcher(titles, rescore="float16"), searcher(titles)
    assert (half.proves, full.proves) == (False, True)
    assert half.titles.bytes == 800 * 64 * 2
    assert full.titles.bytes == 800 * 64 * 6
    queries = titles[:3]
    rounded, exact = half.search(queries, 5), full.search(queries, 5)
    Truth.of(titles, queries).check(rounded, 5, tolerance=1e-3)
    assert not np.array_equal(rounded.scores, exact.scores)
    assert (rounded.repeated, rounded.scanned) == (0, 0)


@needs_kernels
def test_the_bound_holds_for_every_score() -> None:
    """The proof rests on it: no float16 score is further from the true one than the bound says."""
    from semrec_faiss.index.fused.one_pass import FusedPass
    from semrec_faiss.index.fused.titles.gpu_titles import load_torch
    from semrec_faiss.index.fused.titles.uploading import upload_titles

    torch = load_torch()
    rng = np.random.default_rng(6)
    for scale in (1.0, 1e-4, 300.0):
        titles = (rng.normal(size=(512, 64)) * scale).astype(np.float32)
        queries = (rng.normal(size=(4, 64)) / scale).astype(np.float32)
        kept = upload_titles(titles, torch.device(PLACE), keep_originals=True)
        work = FusedPass(kept, plan_search(512, 64, 4, 10), 4, 10)
        work.run(torch.from_numpy(queries).to(PLACE))
        bounds = work.bounds.cpu().numpy()
        halves = work.rounded.float().cpu().numpy().astype(np.float64) @ kept.halves.float().cpu().numpy().T
        true = (queries.astype(np.float64) @ titles.T) * kept.scale / (bounds[:, 1] * bounds[:, 2])[:, None]
        errors = np.abs(halves - true).max(axis=1)
        assert (errors <= bounds[:, 0]).all()
        assert errors.max() > 0.02 * bounds[:, 0].max(), "a bound that is never near the errors proves too little"


def _chunk_members(span: int, chunks: int) -> NDArray[np.int64]:
    """The rows of each chunk as the kernels' own words define them: (chunks, 2 × span)."""
    chunk, i, j = np.ogrid[:chunks, :span, :2]
    rows = (chunk // 4) * 8 * span + 8 * i + 2 * (chunk % 4) + j
    return np.asarray(rows, np.int64).reshape(chunks, 2 * span)


@needs_kernels
def test_the_maxima_of_codes_bound_every_score_of_their_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof rests on it; and a bound that lies far above proves too little."""
    from semrec_faiss.index.fused.one_pass import FusedPass
    from semrec_faiss.index.fused.titles.gpu_titles import load_torch
    from semrec_faiss.index.fused.titles.uploading import upload_titles

    monkeypatch.setattr("semrec_faiss.index.fused.plan.CODED_TITLES", 1)
    torch = load_torch()
    rng = np.random.default_rng(6)
    spikes = np.where(rng.random((256, 40)) < 0.02, 30.0, 1.0)
    for scale, shape in ((1e-4, 1.0), (300.0, 1.0), (1.0, spikes)):
        titles = (rng.normal(size=(256, 40)) * scale * shape).astype(np.float32)
        queries = (rng.normal(size=(9, 40)) / scale).astype(np.float32)
        kept = upload_titles(titles, torch.device(PLACE), keep_originals=True)
        for count in (9, 3):  # queries of one row of codes each, and of two
            plan = plan_search(256, 40, count, 10, coded=True)
            assert plan.planes == (1 if count == 9 else 2)
            work = FusedPass(kept, plan, count, 10)
            work.run(torch.from_numpy(queries[:count]).to(PLACE))
            bounds = work.bounds.cpu().numpy()
            true = (queries[:count].astype(np.float64) @ titles.T) * kept.scale
            true /= (bounds[:, 1] * bounds[:, 2])[:, None]
            best = true[:, _chunk_members(plan.span, plan.chunks(256))].max(axis=2)
            maxima = work.maxima.float().cpu().numpy()
            rounded = np.abs(maxima) * 2.0**-11
            assert (best <= maxima + rounded + bounds[:, :1]).all()
            left_out = work.code_factors[:, 2:].cpu().numpy() + float(kept.codes.rests.max())
            assert (maxima - best <= 2 * left_out + rounded + bounds[:, :1]).all()
            assert left_out.max() < (0.02 if np.ndim(shape) == 0 else 0.2)
            assert plan.planes == 1 or work.code_factors[:, 2].max() < 1e-4


@pytest.fixture
def too_near(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    """Titles read through codes that do not tell them apart, in more chunks than even a second pass keeps."""
    monkeypatch.setattr("semrec_faiss.index.fused.plan.CODED_TITLES", 1)
    monkeypatch.setattr("semrec_faiss.index.fused.repeating.MOST_KEPT", 96)
    rng = np.random.default_rng(12)
    titles = clustered(rng, 2700, 32)
    near = rng.permutation(2700)[:2400]
    titles[near] = titles[0] + 3e-3 * rng.normal(size=(2400, 32))
    titles[0] = titles[near[0]]
    return titles


@needs_kernels
def test_what_codes_cannot_tell_apart_their_vectors_do(too_near: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(13)
    index = searcher(too_near)
    queries = too_near[:2].copy()
    mask = rng.random(2700) < 0.95
    lists = [rng.choice(2700, 20), np.empty(0, np.int64)]
    allowed = np.broadcast_to(mask, (2, 2700)).copy()
    for query, rows in enumerate(lists):
        allowed[query, rows] = False
    found = index.search(queries, 10, mask=mask, excluded=exclude(lists))
    Truth.of(too_near, queries, allowed).check(found, 10)
    assert found.repeated >= 1
    assert found.scanned == 0


@needs_kernels
def test_codes_that_tell_too_little_are_read_no_more(
    too_near: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.titles.codes.CODED_TRIED", 2)
    index, queries = searcher(too_near), too_near[:1]
    planned = note_codes(monkeypatch, index)
    for expected in ([True, False], [True, False], [False]):  # what codes leave is searched without them
        planned.clear()
        Truth.of(too_near, queries).check(index.search(queries, 10), 10)
        assert planned == expected


@needs_kernels
def test_codes_are_kept_of_many_titles_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = np.random.default_rng(3).normal(size=(500, 40)).astype(np.float32)
    assert searcher(titles).titles.codes is None
    monkeypatch.setattr("semrec_faiss.index.fused.plan.CODED_TITLES", 500)
    kept = searcher(titles).titles
    assert kept.bytes == 500 * (40 * 6 + 48 + 4)  # a row of codes begins at a multiple of 16 bytes
    assert searcher(titles[:-1]).titles.codes is None
    assert searcher(titles, rescore="float16").titles.codes is None


@needs_kernels
def test_a_large_batch_is_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    titles = clustered(rng, 500, 32)
    queries = titles[rng.integers(500, size=8)]
    lists = [rng.choice(500, size=3, replace=False) for _ in queries]
    allowed = np.ones((8, 500), np.bool_)
    for query, rows in enumerate(lists):
        allowed[query, rows] = False
    monkeypatch.setattr("semrec_faiss.index.fused.blocks.block_queries", lambda *_, **__: 3)
    Truth.of(titles, queries, allowed).check(searcher(titles).search(queries, 4, excluded=exclude(lists)), 4)


@needs_kernels
def test_out_of_memory_halves_the_block_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    titles = clustered(np.random.default_rng(9), 100, 32)
    index = searcher(titles)
    tried: list[int] = []

    def with_memory_for_3(search: Any) -> Any:
        def searched(queries: Any, *rest: Any, **options: Any) -> Any:
            tried.append(len(queries))
            if len(queries) > 3:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
            return search(queries, *rest, **options)

        return searched

    for name in ("answer", "first_pass"):
        monkeypatch.setattr(index._all, name, with_memory_for_3(getattr(index._all, name)))
    with pytest.warns(RuntimeWarning, match="memory on .* ran out at a block of 16 queries") as warned:
        found = index.search(titles[:16], 5)
        index.search(titles[:4], 5)
    Truth.of(titles, titles[:16]).check(found, 5)
    assert sum("ran out" in str(one.message) for one in warned) == 1
    assert tried[:3] == [16, 4, 1], "half of it, in two lanes; half of one of these, in two lanes"
    assert max(tried[2:]) == 1

    def with_none(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(index._all, "answer", with_none)
    with pytest.raises(DeviceError, match="does not suffice for a single query"):
        index.search(titles[:1], 5)


@needs_kernels
def test_a_single_query_has_the_memory_that_buffers_of_others_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it failed for ever, however much of the memory was ours."""
    import torch

    titles = clustered(np.random.default_rng(9), 100, 32)
    index = searcher(titles)
    index.search(titles[:16], 5)
    answer = index._all.answer

    def short_of_memory(*rest: Any, **options: Any) -> Any:
        if index._workspace.lanes or index._all._graphs:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return answer(*rest, **options)

    monkeypatch.setattr(index._all, "answer", short_of_memory)
    assert index._workspace.lanes
    Truth.of(titles, titles[:1]).check(index.search(titles[:1], 5), 5)


def test_blocks_keep_within_their_memory() -> None:
    assert block_queries(100_000_000, 384, 10) >= 1000, "in one block"
    for titles in (1, 62_423, 1_000_000, 4_000_000, 100_000_000):
        for masking in get_args(Masking):
            queries = block_queries(titles, 384, 10, masking)
            plan = plan_search(titles, 384, queries, 10)
            held = 2 * plan.chunks(titles) + 6 * 384 + (titles // 8 if masking == "own" else 0)
            assert 1 <= queries <= 16_384
            assert queries * held <= max(1 << 30, 0.085 * 2 * 384 * titles)
            again = plan_repeat(plan, titles)
            room = repeat_queries(again, titles)
            assert 1 <= room <= 1024
            assert room & (room - 1) == 0
            assert room == 1 or room * (2 * again.chunks(titles) + again.capacity * 4 * again.span) <= 1 << 27
    assert repeats(10)
    assert not repeats(300)


# --- what is refused -------------------------------------------------------------------------------------------------


@needs_kernels
def test_what_it_cannot_do_is_refused() -> None:
    titles = np.eye(300, 40, dtype=np.float32)
    index = searcher(titles)
    for k in (0, 301, 10**9):
        with pytest.raises(UsageError, match=f"k is {k}; type fused returns 1 to 300 titles"):
            index.search(titles[:2], k)
    with pytest.raises(UsageError, match="fused takes up to 4096 dimensions; the vectors have 4097") as caught:
        searcher(np.ones((4, 4097)))
    assert caught.value.fix == "take type flat"


def test_more_dimensions_than_it_takes_are_refused_when_building(make_index: Callable[..., VectorIndex]) -> None:
    with pytest.raises(ConfigError, match="fused takes up to 4096 dimensions; the vectors have 4097") as caught:
        make_index(np.ones((50, 4097)), {"type": "fused"})
    assert caught.value.fix == "take type flat"


def test_settings_that_do_not_go_with_it_are_refused() -> None:
    fused = {"index": {"type": "fused"}}
    with pytest.raises(ConfigError, match=r"set index\.search\.rescore: float16"):
        config_from_dict({**fused, "device": {"kind": "gpu", "float16": True}})
    with pytest.raises(ConfigError, match=r"rescore"):
        config_from_dict({"index": {"type": "fused", "search": {"rescore": "int8"}}})


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match="needs torch and triton") as caught:
        FusedSearcher(np.ones((4, 32), np.float32), "cuda:0")
    assert "pip install 'semrec-faiss[gpu]'" in str(caught.value.fix)


def test_on_a_cpu_it_is_flat(make_index: Callable[..., VectorIndex], clusters: Any, truth: Any) -> None:
    titles = clusters(500, 32)
    index = make_index(titles, {"type": "fused"})
    assert (index.exact, index.fused, index.k_limit) == (True, None, None)
    best, _ = truth(titles, titles[:20], 300)
    np.testing.assert_allclose(index.search(titles[:20], 300).scores, best, rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="only type fused on a GPU"):
        index.search_allowed(titles[:2], 3)


# --- in the house ----------------------------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path, make_folder: Any) -> tuple[Any, Path]:
    """A fused index of 3,000 titles and 40 users, on disk."""
    made = make_folder(tmp_path / "data", titles=3000, dim=32, users=40)
    values = {"dataset": str(made.root), "output": str(tmp_path / "index"), "index": {"type": "fused"}}
    build_index(config_from_dict(values))
    return made, tmp_path / "index"


@on_gpu
@needs_kernels
def test_a_recommender_on_a_gpu_answers_as_on_a_cpu(built: Any) -> None:
    made, path = built
    gpu, cpu = Recommender.open(path), Recommender.open(path, ["device.kind=cpu"])
    assert gpu.index.fused is not None
    assert cpu.index.fused is None
    for where in (None, "year BETWEEN 1960 AND 1969", "'Drama' IN genres AND runtime < 90"):
        for ask in (
            lambda r, w=where: [r.similar("m00007", 10, where=w)],
            lambda r, w=where: list(r.recommend(made.user_ids, 10, where=w)),
            lambda r, w=where: list(r.recommend(made.user_ids, 5, where=w, diversity=0.4, max_per={"year": 1})),
        ):
            for one, other in zip(ask(gpu), ask(cpu), strict=True):
                assert (one.matching, one.returned) == (other.matching, other.returned)
                np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-5)
    answer = gpu.recommend(made.user_ids[0], 10, where="year > 1980")
    assert (answer.exact, answer.strategy) == ("proven", "masked")
    assert answer.as_dict()["exact"] == "proven"
    with pytest.raises(UsageError, match="k is 2049"):
        gpu.similar("m00007", 2049)


@on_gpu
@needs_kernels
def test_float16_rescoring_is_not_called_exact(built: Any) -> None:
    _, path = built
    half = Recommender.open(path, ["index.search.rescore=float16"])
    assert half.similar("m00007", 10).exact is False


@on_gpu
@needs_kernels
def test_a_hundred_million_titles() -> None:
    """Positions past 2³¹ in the vectors and in the codes, masks and the last row included."""
    count, dim = 100_000_000, 32
    rng = np.random.default_rng(5)
    titles = np.tile(1e-3 * rng.normal(size=(10**6, dim)).astype(np.float32), (count // 10**6, 1))
    planted = np.unique(np.concatenate(([0, count - 1], rng.integers(count, size=400))))
    titles[planted] = rng.normal(size=(len(planted), dim))
    queries = rng.normal(size=(3, dim)).astype(np.float32)
    index = searcher(titles)
    assert index.titles.codes is not None
    mask = np.ones(count, np.bool_)
    mask[planted[::2]] = False
    many = np.repeat(queries, 60, axis=0)  # more than go through the codes
    for asked, kept in ((queries, None), (queries, mask), (many, None), (many, mask)):
        may = np.arange(len(planted)) if kept is None else np.flatnonzero(kept[planted])
        found = index.search(asked, 10, mask=kept)
        scores = asked.astype(np.float64) @ titles[planted[may]].T
        order = np.argsort(-scores, axis=1)[:, :10]
        np.testing.assert_array_equal(found.rows, planted[may[order]])
        np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, axis=1), rtol=1e-5)
        assert (found.repeated, found.scanned) == (0, 0)


@on_gpu
@needs_kernels
def test_it_agrees_with_faiss(make_index: Callable[..., VectorIndex], clusters: Any) -> None:
    titles = clusters(20_000, 384, clusters=100, seed=2)
    queries = titles[::13][:1200]
    device = Device(gpus=(0,), temp_memory_mb=256)
    fused, flat = (make_index(titles, {"type": kind}, device) for kind in ("fused", "flat"))
    for count in (1, 16, 17, 100, 1200):
        for k in (1, 10, 100, 256, 2048):
            one, other = fused.search(queries[:count], k), flat.search(queries[:count], k)
            np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=2e-6)
            assert (one.rows == other.rows).mean() > 0.99, "only near-ties may change places"
            assert one.exact == "proven"


@on_gpu
@needs_kernels
def test_many_threads_search_at_once(clusters: Any) -> None:
    titles = clusters(5000, 64, clusters=50, seed=1)
    index = searcher(titles)
    expected = {count: index.search(titles[:count], 5).rows for count in (1, 3, 40, 700)}
    wrong: list[int] = []

    def ask(count: int) -> None:
        for _ in range(20):
            if not np.array_equal(index.search(titles[:count], 5).rows, expected[count]):
                wrong.append(count)

    threads = [threading.Thread(target=ask, args=(count,)) for count in expected for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@on_gpu
@needs_kernels
def test_memory_besides_the_vectors_is_bounded(clusters: Any) -> None:
    import torch

    titles = clusters(60_000, 384, clusters=200, seed=5)
    queries = np.tile(titles, (2, 1))
    index = searcher(titles)
    torch.cuda.reset_peak_memory_stats()
    index.search(queries, 10, mask=np.arange(len(titles)) % 2 == 0)
    assert torch.cuda.max_memory_allocated() - index.titles.bytes < 1 << 30


@needs_kernels
def test_lengths_too_far_apart_to_prove_anything_are_compared_in_full() -> None:
    """Once a fault: what vanished when it was scaled had been called proven."""
    rng = np.random.default_rng(2)
    unit = rng.normal(size=(64, 32))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    query = rng.normal(size=(1, 32)).astype(np.float32)
    titles = (unit * 1e-24).astype(np.float32)
    titles[0] = -query[0] * 1e20
    index = searcher(titles)
    found = index.search(query, 10)
    assert index.titles.wide
    assert found.scanned == 1
    true = titles.astype(np.float64) @ query[0].astype(np.float64)
    np.testing.assert_array_equal(found.rows[0], np.argsort(-true, kind="stable")[:10])
