"""Type fused by bounds of a few principal directions: the same answers, proven, in a fraction of the dimensions."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.index.fused import searcher as searcher_module
from semrec_faiss.index.fused.plan import plan_search
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.screening.spectrum import principal_directions
from tests.index.fused.worlds import PLACE, SIZE, WORLDS, Truth, came_as_float16, exclude, needs_kernels, searcher

Kept: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.searcher.SCREENED_TITLES", 1)


@pytest.fixture(params=["float32", "float16"])
def kept(request: pytest.FixtureRequest) -> Kept:
    """How titles came: as float32, or as float16, which then lie beside the bounds as they came."""
    return (lambda titles: titles) if request.param == "float32" else came_as_float16


def texts(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    made = rng.normal(size=(n, d)) * np.exp(-np.arange(d) / 10)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


def screened(titles: NDArray[np.float32], kept: int) -> FusedSearcher:
    directions = np.ascontiguousarray(principal_directions(titles)[0][:kept])
    found = searcher(titles, directions=directions)
    assert found.titles.screened
    return found


@needs_kernels
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_answers_are_the_same_and_bounds_hold(queries: int, kept: Kept) -> None:
    rng = np.random.default_rng(queries)
    titles = kept(texts(rng, 700 * SIZE, 64))
    asked = np.concatenate((titles[:1], texts(rng, queries, 64)))[:queries]
    by_bounds, plain = screened(titles, 31), searcher(titles)
    assert by_bounds.titles.halves.shape == (700 * SIZE, 32)
    came = plain.titles.factors is not None
    originals = (2 * 64 + 8 if came else 4 * 64) * len(titles)
    assert by_bounds.titles.bytes == 2 * 32 * len(titles) + originals
    assert plain.titles.bytes == (0 if came else 2 * 64 * len(titles)) + originals
    np.testing.assert_array_equal(by_bounds.titles.exact_vectors(slice(3, 50)).cpu().numpy(), titles[3:50])
    found, expected = by_bounds.search(asked, 10), plain.search(asked, 10)
    Truth.of(titles, asked).check(found, 10)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.repeated <= queries // 4
    upper = bounds_of(by_bounds, asked)
    exact = asked.astype(np.float64) @ titles.astype(np.float64).T * by_bounds.titles.scale
    assert (exact <= upper + by_bounds.titles.error).all()


def bounds_of(made: FusedSearcher, asked: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the coordinates say, in float64: of queries the length of the rest, of titles that and their coordinates."""
    directions = made.titles.directions.cpu().numpy()
    along = asked.astype(np.float64) @ directions.T
    rest = np.sqrt(np.maximum((asked.astype(np.float64) ** 2).sum(axis=1) - (along**2).sum(axis=1), 0)) + 1e-6
    of_titles = made.titles.halves.cpu().numpy().astype(np.float64)
    return along @ of_titles[:, :31].T + rest[:, None] * of_titles[:, 31]


@needs_kernels
@pytest.mark.parametrize("world", WORLDS)
def test_whatever_the_titles(world: str) -> None:
    rng = np.random.default_rng(4)
    titles = np.ascontiguousarray(WORLDS[world](rng, 300 * SIZE, 40), dtype=np.float32)
    asked = np.concatenate((titles[:2], rng.normal(size=(2, 40)))).astype(np.float32)
    found = screened(titles, 15).search(asked, 10)
    Truth.of(titles, asked).check(found, 10)


@needs_kernels
def test_filters_and_exclusions(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
    rng = np.random.default_rng(2)
    titles = kept(texts(rng, 500 * SIZE, 64))
    asked = texts(rng, 4, 64)
    made = screened(titles, 31)
    mask = rng.random(len(titles)) < 0.3
    lists = [np.flatnonzero(mask)[:5], np.array([7]), np.empty(0, np.int64), np.arange(20)]
    allowed = np.tile(mask, (4, 1))
    for query, rows in enumerate(lists):
        allowed[query, rows] = False
    for lost, shelved in ((0.0, False), (1e9, True)):
        monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_, ms=lost: ms)
        for _ in range(1 if PLACE == "cpu" else 3):
            Truth.of(titles, asked, np.tile(mask, (4, 1))).check(made.search(asked, 10, mask=mask), 10)
        shelf = made.filters.place(mask, 4).shelf
        assert (shelf is not None) == shelved
        if shelf is not None:
            its = slice(0, int(mask.sum()))
            np.testing.assert_array_equal(shelf.titles.exact_vectors(its).cpu().numpy(), titles[mask])
            assert shelf.titles.bytes == shelf.size * (2 * 32 + 4), "bounds and rows: the originals stay where they are"
            assert made.titles.gathered_bytes(10) == 10 * (2 * 32 + 4)
        found = made.search(asked, 10, mask=mask, excluded=exclude(lists))
        Truth.of(titles, asked, allowed).check(found, 10)


@needs_kernels
@pytest.mark.parametrize("queries", [2, 6])
@pytest.mark.parametrize("cut", [None, 15])
def test_through_codes(cut: int | None, queries: int, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all the directions that bounds have, or of fewer: a chunk's maximum is at least what a title's score is.

    Two queries read the codes, six multiply them.
    """
    for name, value in {"CODED_TITLES": 1, "MULTIPLIED_TITLES": 1, "MULTIPLIED_SCORES": 1, "TITLES_A_PAIR": 0}.items():
        monkeypatch.setattr(f"semrec_faiss.index.fused.plan.{name}", value)
    monkeypatch.setattr("semrec_faiss.index.fused.plan.MANY_QUERIES", 4)
    plan_search.cache_clear()
    monkeypatch.setattr("semrec_faiss.index.fused.titles.uploading.choose_cut", lambda *_: cut)
    rng = np.random.default_rng(2)
    titles = kept(texts(rng, 600 * SIZE, 64))
    asked = texts(rng, queries, 64)
    made = screened(titles, 31)
    assert made.titles.codes is not None
    assert made.titles.codes.width == (16 if cut else 32)
    Truth.of(titles, asked).check(made.search(asked, 10), 10)
    work = next(iter(made._workspace.lanes.values())).work
    chunk = np.arange(len(titles))
    span = work.plan.span  # chunks as kernels.scoring has them
    chunk = chunk // (8 * span) * 4 + chunk % 8 // 2
    scores = work.scaled[:queries].cpu().numpy().astype(np.float64) @ titles.T * made.titles.scale
    maxima = work.maxima[:queries].float().cpu().numpy()[:, chunk]
    plan_search.cache_clear()
    assert (work.plan.piece > 0, work.plan.planes) == ((True, 1) if queries == 6 else (False, 2))
    assert (scores <= maxima + np.abs(maxima) * 4.97e-4 + work.bounds[:queries, :1].cpu().numpy()).all()


def test_codes_are_of_as_few_directions_as_leave_few_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    from semrec_faiss.index.fused.titles import codes

    monkeypatch.setattr(codes, "COUNTED_TITLES", 3000)
    monkeypatch.setattr(codes, "CUT_WIDTHS", 16)
    rng = np.random.default_rng(7)
    titles, queries = texts(rng, 3000, 48), texts(rng, 20, 48)
    eleventh = np.sort(queries[:, :47] @ titles[:, :47].T, axis=1)[:, -11]
    left = []
    for cut in (15, 31):
        tails = [np.linalg.norm(some[:, cut:], axis=1) for some in (queries, titles)]
        bounds = queries[:, :cut] @ titles[:, :cut].T + tails[0][:, None] * tails[1] + codes.CODES_LOOSE
        left.append((bounds >= eleventh[:, None]).sum(axis=1).mean())
    assert left[0] > 1.5 * left[1] > 0
    for most, expected in ((1.3 * left[0], 15), (1.2 * left[1], 31), (0.5 * left[1], None)):
        monkeypatch.setattr(codes, "CUT_LEFT", most)
        assert codes.choose_cut(torch, torch.from_numpy(titles).half(), torch.from_numpy(queries)) == expected


@pytest.mark.parametrize("count", [64, 65, 20_000_000, 100_000_000, 2**31 - 1])
def test_probes_are_among_the_titles(count: int) -> None:
    torch = pytest.importorskip("torch")

    from semrec_faiss.index.fused.titles.uploading import probed_rows

    rows = probed_rows(torch, count).tolist()
    assert (rows[0], rows[-1]) == (0, count - 1)
    assert sorted(set(rows)) == rows


@needs_kernels
def test_many_results() -> None:
    rng = np.random.default_rng(5)
    titles = texts(rng, 600, 64)
    Truth.of(titles, titles[:2]).check(screened(titles, 31).search(titles[:2], 200), 200)


@needs_kernels
def test_queries_that_bounds_do_not_help_are_searched_by_copies(kept: Kept) -> None:
    rng = np.random.default_rng(6)
    titles = kept(np.asarray(rng.normal(size=(700 * SIZE, 32)), dtype=np.float32))
    made = screened(titles, 3)
    asked = np.asarray(rng.normal(size=(20, 32)), dtype=np.float32)
    for _ in range(2):
        Truth.of(titles, asked).check(made.search(asked, 10), 10)
        assert not made.titles.screened
    plain = searcher(titles).titles
    assert made.titles.bytes == plain.bytes
    assert (made.titles.scale, made.titles.norm, made.titles.error) == (plain.scale, plain.norm, plain.error)


@needs_kernels
@pytest.mark.parametrize(
    ("room", "screened_by", "coded"), [(1 << 40, True, True), (60_000 + 2_000, True, False), (20_000, False, True)]
)
def test_bounds_and_codes_are_put_beside_float16_where_there_is_room(
    room: int, screened_by: bool, coded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 bytes a title for bounds, 32 + 4 for codes of them; those of copies alone are not asked whether they fit."""
    from semrec_faiss.index.fused.titles import uploading

    left = [room]

    def has_room(_: Any, __: Any, needed: int) -> bool:
        fits = needed <= left[0]
        left[0] -= needed if fits else 0
        return fits

    monkeypatch.setattr("semrec_faiss.index.fused.plan.CODED_TITLES", 1)
    monkeypatch.setattr(uploading, "_has_room", has_room)
    titles = came_as_float16(texts(np.random.default_rng(2), 900, 64))
    made = searcher(titles, directions=np.ascontiguousarray(principal_directions(titles)[0][:31]))
    assert (made.titles.screened, made.titles.codes is not None) == (screened_by, coded)
    assert made.proves
    Truth.of(titles, titles[:3]).check(made.search(titles[:3], 10), 10)


@needs_kernels
@pytest.mark.parametrize("suffices", [True, False])
def test_copies_find_the_memory_of_shelves_free(suffices: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
    monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_: 1e9)
    rng = np.random.default_rng(6)
    titles = np.asarray(rng.normal(size=(700 * SIZE, 32)), dtype=np.float32)
    made, mask = screened(titles, 3), np.arange(len(titles)) % 9 == 0
    asked = np.asarray(rng.normal(size=(20, 32)), dtype=np.float32)
    Truth.of(titles, titles[:2], np.tile(mask, (2, 1))).check(made.search(titles[:2], 10, mask=mask), 10)
    (shelf,) = made.filters._shelves
    buffers = made._workspace.lanes[0].work
    held = [weakref.ref(one) for one in (shelf, shelf.titles, buffers)]
    del shelf, buffers
    copied = searcher_module.with_copies

    def short_of_memory(given: Any) -> Any:
        if not suffices or any(one() is not None for one in held) or made._workspace.lanes:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return copied(given)

    monkeypatch.setattr(searcher_module, "with_copies", short_of_memory)
    for _ in range(2):
        Truth.of(titles, asked).check(made.search(asked, 10), 10)
        assert made.titles.screened != suffices
    Truth.of(titles, titles[:2], np.tile(mask, (2, 1))).check(made.search(titles[:2], 10, mask=mask), 10)
