"""Type fused takes vectors of any dimension, though its float16 copies are wider: answers are those of brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semrec_faiss import Recommender
from semrec_faiss.config.index_types import FUSED_DIM_LIMIT, FusedIndex
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.cpu.exact import original_vectors
from semrec_faiss.index.fused.room import copy_width, title_bytes
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
from semrec_faiss.index.screening.spectrum import principal_directions
from tests.index.adversaries import check_rounded_once
from tests.index.fused.test_screened import texts
from tests.index.fused.worlds import (
    FREE,
    PLACE,
    SIZE,
    WORLDS,
    Truth,
    Users,
    bitmaps_lose,
    came_as_float16,
    clustered,
    exclude,
    needs_kernels,
    searcher,
)
from tests.index.memory.test_prediction import index_of, predict_memory

DIMS = (1, 3, 25, 50, 100, 300, 2500)
PLAN = "semrec_faiss.index.fused.plan"
TIMES = 1 if PLACE == "cpu" else 3
"""The second time a GPU records, the third it replays."""


def titles_of(kind: str, rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    made = np.asarray(rng.normal(size=(n, d)) if d < 5 else clustered(rng, n, d), np.float32)
    return came_as_float16(made) if kind == "float16" else made


def kept_as(kind: str, titles: NDArray[np.float32]) -> FusedSearcher:
    """Keep titles as ``kind`` says: float32 originals here or on the host, or what came as float16."""
    found = searcher(titles, originals="host" if kind == "host" else "gpu")
    assert (found.titles.factors is not None) == (kind == "float16" or titles.shape[1] == 1)
    return found


def check(index: Any, titles: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> None:
    """Hold a search of all titles, of some, and of some for each query against float64."""
    rng = np.random.default_rng(len(titles))
    mask = rng.random(len(titles)) < 0.4
    lists = [rng.choice(len(titles), size=rng.integers(60), replace=False) for _ in queries]
    own = np.ones((len(queries), len(titles)), np.bool_)
    for query, rows in enumerate(lists):
        own[query, rows] = False
    for allowed, options in (
        (np.ones_like(own), {}),
        (np.broadcast_to(mask, own.shape), {"mask": mask}),
        (own & mask, {"mask": mask, "excluded": exclude(lists)}),
    ):
        for _ in range(TIMES):
            found = index.search(queries, k, **options)
            Truth.of(titles, queries, allowed).check(found, k, tolerance=2e-7)
            if not options:
                check_rounded_once(titles, queries, found.rows, found.scores)


@needs_kernels
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", ["float32", "float16", "host"])
def test_the_answers_of_brute_force(kind: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    titles = titles_of(kind, rng, 260 * SIZE, dim)
    index = kept_as(kind, titles)
    assert (index.titles.dim, index.titles.vector_dim) == (copy_width(dim), dim)
    for count in (1, 3):
        check(index, titles, rng.normal(size=(count, dim)).astype(np.float32), 7)


@needs_kernels
@pytest.mark.usefixtures("coded")
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_through_codes(kind: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    titles = titles_of(kind, rng, 260 * SIZE, dim)
    index = kept_as(kind, titles)
    for count in (2, 6):  # read, and multiplied
        assert index.whole.reads_codes(count, 5)
        check(index, titles, rng.normal(size=(count, dim)).astype(np.float32), 5)


@needs_kernels
@pytest.mark.parametrize("dim", [8, 25, 100, 300])
@pytest.mark.parametrize("kind", ["float32", "float16", "host"])
def test_by_bounds(kind: str, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.searcher.SCREENED_TITLES", 1)
    rng = np.random.default_rng(dim)
    titles = texts(rng, 200 * SIZE, dim)
    titles = came_as_float16(titles) if kind == "float16" else titles
    directions = np.ascontiguousarray(principal_directions(titles)[0][: min(31, dim // 2)])
    index = searcher(titles, directions=directions, originals="host" if kind == "host" else "gpu")
    assert index.titles.screened
    assert (index.titles.factors is not None) == (kind == "float16")
    for count in (2, 33):  # whose coordinates are made one by one, or by a product
        check(index, titles, texts(rng, count, dim), 5)
    if index.titles.screened:  # else it has by itself
        index._take_copies()
    assert not index.titles.screened
    check(index, titles, texts(rng, 2, dim), 5)


@needs_kernels
@pytest.mark.usefixtures("coded")
def test_by_bounds_through_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.searcher.SCREENED_TITLES", 1)
    rng = np.random.default_rng(3)
    for kind in ("float32", "float16"):
        titles = texts(rng, 200 * SIZE, 100)
        titles = came_as_float16(titles) if kind == "float16" else titles
        index = searcher(titles, directions=np.ascontiguousarray(principal_directions(titles)[0][:31]))
        assert index.titles.codes is not None
        for count in (2, 6):
            check(index, titles, texts(rng, count, 100), 5)


@needs_kernels
@pytest.mark.parametrize("kind", ["float32", "float16", "host"])
def test_a_shelf(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
    bitmaps_lose(monkeypatch, FREE)
    rng = np.random.default_rng(6)
    titles = titles_of(kind, rng, 300 * SIZE, 50)
    index = kept_as(kind, titles)
    check(index, titles, titles[:2], 5)
    mask = rng.random(len(titles)) < 0.2
    shelf = index.filters.place(mask, 2).shelf
    assert shelf is not None
    np.testing.assert_array_equal(shelf.titles.exact_vectors(slice(0, mask.sum())).cpu().numpy(), titles[mask])


@needs_kernels
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_what_is_not_proven_is_compared_with_all_titles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.block_search.repeats", lambda _: False)
    titles = titles_of(kind, np.random.default_rng(1), 3, 25)[np.arange(300 * SIZE) % 3]
    found = kept_as(kind, titles).search(titles[:2], 5)
    assert found.scanned == 2, "nothing tells the copies apart"
    np.testing.assert_array_equal(found.rows, [[0, 3, 6, 9, 12], [1, 4, 7, 10, 13]])


@needs_kernels
@pytest.mark.parametrize("layout", ["shards", "replicas"])
@pytest.mark.parametrize("originals", ["gpu", "host"])
def test_several_gpus(layout: Any, originals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU, or the interpreter, stands for two."""
    monkeypatch.setattr("semrec_faiss.index.fused.several.several_gpus.LEAST_A_REPLICA", 1)
    assert PLACE is not None
    titles = titles_of("float32", np.random.default_rng(8), 301 * SIZE, 25)
    several = SeveralGpus(titles, [PLACE, PLACE], layout=layout, originals=originals)
    check(several, titles, titles[:3], 5)
    for name, value in (("LARGEST_TILE", 1), ("BLOCK_MS", 1e-9)):
        monkeypatch.setattr(f"semrec_faiss.index.fused.several.turns.{name}", value)
    check(several, titles, titles[:5], 5)


@needs_kernels
@pytest.mark.parametrize("locked", [False, True], ids=["copied", "locked"])
@pytest.mark.parametrize("halves", [False, True], ids=["float32", "float16"])
def test_users(halves: bool, locked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    titles = titles_of("float32", rng, 400 * SIZE, 25)
    vectors = titles[:9].astype(np.float16 if halves else np.float32).astype(np.float32)
    users, rows = Users(vectors, [rng.choice(len(titles), 30 * user, replace=False) for user in range(9)]), np.arange(9)
    if locked:
        monkeypatch.setattr("semrec_faiss.index.fused.searcher.fit", lambda *_: False)
        monkeypatch.setattr("semrec_faiss.index.fused.searcher.may_be_locked", lambda _: True)
    index = searcher(titles)
    held = index.hold_users(users)
    assert held is not None and held.is_locked is locked
    assert users.lists is not None
    allowed = np.ones((9, len(titles)), np.bool_)
    for user, seen in enumerate(users.lists):
        allowed[user, seen] = False
    for _ in range(TIMES):
        Truth.of(titles, vectors, allowed).check(index.search_users(held, rows, 7), 7)


@needs_kernels
@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("dim", [1, 7])
def test_whatever_the_titles(kind: str, dim: int) -> None:
    rng = np.random.default_rng(4)
    titles = WORLDS[kind](rng, 120 * SIZE, dim).astype(np.float32)
    queries = rng.normal(size=(2, dim)).astype(np.float32)
    Truth.of(titles, queries).check(searcher(titles).search(queries, 5), 5)


@needs_kernels
@settings(max_examples=8 if PLACE == "cpu" else 30, deadline=None)
@given(data=st.data())
def test_whatever_the_dimensions(data: st.DataObject) -> None:
    dim = data.draw(st.integers(1, 200) | st.integers(1, FUSED_DIM_LIMIT))
    titles_asked, queries_asked = data.draw(st.integers(1, 150 * SIZE)), data.draw(st.integers(1, 3))
    kind = data.draw(st.sampled_from(["float32", "float16", "host"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    titles = titles_of(kind, rng, titles_asked, dim)
    with mock.patch(f"{PLAN}.CODED_TITLES", data.draw(st.sampled_from([1, 500_000]))):
        index = kept_as(kind, titles)
        queries = rng.normal(size=(queries_asked, dim)).astype(np.float32)
        Truth.of(titles, queries).check(index.search(queries, min(5, titles_asked)), min(5, titles_asked))


@needs_kernels
def test_the_largest_dimension() -> None:
    rng = np.random.default_rng(2)
    titles, queries = clustered(rng, 70, FUSED_DIM_LIMIT), clustered(rng, 3, FUSED_DIM_LIMIT)
    index = searcher(titles)
    for count in (1, 3):
        found = index.search(queries[:count], 5)
        check_rounded_once(titles, queries[:count], found.rows, found.scores)
        assert found.repeated == 0


# --- memory ----------------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize(("dim", "width"), [(1, 32), (25, 32), (50, 56), (100, 104), (300, 304), (384, 384)])
def test_copies_alone_are_wider(dim: int, width: int) -> None:
    """Originals, whether here or where they lie on the host, and queries are as they are."""
    titles = titles_of("float32", np.random.default_rng(1), 99, max(dim, 2))[:, :dim].copy()
    assert copy_width(dim) == width
    if dim > 1:  # one component is float16 × a factor always
        kept = searcher(titles).titles
        assert kept.bytes == title_bytes(99, dim, "gpu") == 99 * (2 * width + 4 * dim)
        host = searcher(titles, originals="host").titles
        assert host.originals.data_ptr() == titles.ctypes.data, "no copy of those that may be locked where they lie"
    came = searcher(came_as_float16(titles)).titles
    assert came.bytes == title_bytes(99, dim, "halves") == 99 * (2 * width + 8)


@pytest.mark.parametrize("came", [False, True])
def test_memory_is_predicted_of_copies_as_wide_as_they_are(came: bool) -> None:
    from semrec_faiss.index.hardware.device import Device

    found = [
        predict_memory(index_of({"type": "fused"}), 1 << 21, dim, Device((0,)), batch=100, float16_titles=came)
        for dim in (25, 32)
    ]
    narrow, wide = (one.gpu for one in found)
    assert narrow is not None and wide is not None
    assert wide.vectors - narrow.vectors == (0 if came else 4 * 7 << 21), "originals have no more than there are"
    assert wide.scratch - narrow.scratch == 2 * 4 * 7 * 100, "queries as they are given, and to a recording"
    assert (found[0].dim, found[0].host.vectors) == (25, 4 * 25 << 21)


# --- in the house ----------------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("dim", [3, 25, 100])
def test_an_index_is_built_saved_opened_and_searched(dim: int, tmp_path: Path, make_folder: Any) -> None:
    made = make_folder(tmp_path / "data", titles=300, dim=dim, users=4)
    values = {"dataset": str(made.root), "output": str(tmp_path / "index"), "index": {"type": "fused"}}
    build_index(config_from_dict(values))
    on_cpu = Recommender.open(tmp_path / "index", ["device.kind=cpu"])
    fused = Recommender.open(tmp_path / "index", [] if PLACE == "cuda:0" else ["device.kind=cpu"])
    assert isinstance(fused.index.config, FusedIndex)
    assert (fused.index.dim, fused.index.config.build.directions) == (dim, 0), "none pay of so few"
    if PLACE == "cpu":
        fused.index.fused = searcher(original_vectors(fused.index.cpu_index))
    for ask in (
        lambda one: [one.similar("m00007", 10)],
        lambda one: [one.similar("m00007", 10, where="year > 1980")],
        lambda one: list(one.recommend(made.user_ids, 10)),
    ):
        for one, other in zip(ask(fused), ask(on_cpu), strict=True):
            assert (one.matching, one.returned, one.exact) == (other.matching, other.returned, "proven")
            np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-6)
