"""Chunks of which only the best piece is looked at: how far the others stay below is never told too large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.index.fused import plan as plans
from semrec_faiss.index.fused.plan import FusedPlan, plan_search, with_pieces
from tests.index.fused.worlds import PLACE, WORLDS, Truth, clustered, exclude, needs_kernels, searcher

TITLES, MANY, DIM, K = 1003, 8003, 40, 10
"""Of so many two of the best seldom lie in one chunk by chance."""


@pytest.fixture(params=[1, 4, 8])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Look at pieces of so many titles, however few titles and queries there are."""
    monkeypatch.setattr(plans, "TITLES_A_PAIR", 0)
    monkeypatch.setattr(plans, "_piece", lambda *_, **__: request.param)
    plan_search.cache_clear()
    return int(request.param)


@pytest.fixture(autouse=True)
def _plans_of_its_own() -> Any:
    yield
    plan_search.cache_clear()


@needs_kernels
@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("kind", ["clustered", "many copies", "whole numbers", "all zero"])
def test_the_answers_of_brute_force(kind: str) -> None:
    rng = np.random.default_rng(5)
    titles = WORLDS[kind](rng, TITLES, DIM).astype(np.float32)
    queries = rng.normal(size=(3, DIM)).astype(np.float32)
    found = searcher(titles).search(queries, K)
    Truth.of(titles, queries).check(found, K)


@needs_kernels
def test_several_of_the_best_in_one_chunk(piece: int) -> None:
    """All of that chunk is looked at, at once: nothing has to be searched again."""
    rng = np.random.default_rng(6)
    titles = rng.normal(size=(MANY, DIM)).astype(np.float32)
    titles /= np.linalg.norm(titles, axis=1, keepdims=True)
    plan = plan_search(MANY, DIM, 1, K)
    assert plan.piece == piece
    together = _rows_of_a_chunk(plan, 9)[:5]
    query = rng.normal(size=DIM)
    query /= np.linalg.norm(query)
    for place, row in enumerate(together):
        titles[row] = query + (0.1 + 0.02 * place) * titles[row]
    found = searcher(titles).search(query[None].astype(np.float32), K)
    Truth.of(titles, query[None]).check(found, K)
    assert set(together) <= set(found.rows[0])
    assert (found.repeated, found.scanned) == (0, 0)


@needs_kernels
@pytest.mark.usefixtures("piece")
def test_filters_and_lists() -> None:
    rng = np.random.default_rng(7)
    titles = clustered(rng, TITLES, DIM)
    queries = rng.normal(size=(2, DIM)).astype(np.float32)
    index = searcher(titles)
    for share in (0.5, 0.006):  # the second leaves fewer than are wanted
        mask = rng.random(TITLES) < share
        Truth.of(titles, queries, mask).check(index.search(queries, K, mask=mask), K)
    best = np.argsort(-(queries.astype(np.float64) @ titles.T), axis=1)[:, :7]
    allowed = np.ones((2, TITLES), dtype=bool)
    np.put_along_axis(allowed, best, values=False, axis=1)
    Truth.of(titles, queries, allowed).check(index.search(queries, K, excluded=exclude(list(best))), K)


@needs_kernels
@pytest.mark.parametrize(("size", "parts"), [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2)])
def test_what_is_told_of_a_chunk_holds(size: int, parts: int) -> None:
    from semrec_faiss.index.fused.one_pass import FusedPass
    from semrec_faiss.index.fused.titles.gpu_titles import load_torch
    from semrec_faiss.index.fused.titles.uploading import upload_titles

    torch = load_torch()
    rng = np.random.default_rng(8)
    for made in (rng.normal(size=(300, DIM)), np.eye(300, DIM), -np.abs(rng.normal(size=(300, DIM)))):
        titles = made.astype(np.float32)
        queries = np.abs(rng.normal(size=(5, DIM))).astype(np.float32)
        kept = upload_titles(titles, torch.device(PLACE), keep_originals=True)
        plan = replace(plan_search(300, DIM, 5, K), piece=0)
        plan = with_pieces(replace(plan, parts=parts, span=parts * plan.span), size)
        work = FusedPass(kept, plan, 5, K)
        work.run(torch.from_numpy(queries).to(PLACE))
        halves = work.rounded.float().cpu().numpy() @ kept.halves.float().cpu().numpy().T
        padded = np.full((5, 8 * 300), -np.inf, np.float32)
        padded[:, :300] = halves
        for chunk in range(plan.tiles(300) * plan.program_titles // (2 * plan.span)):
            scores = padded[:, _rows_of_a_chunk(plan, chunk)].reshape(5, -1, size)
            largest, maxima = scores.max(axis=2), work.maxima[:, chunk].float().cpu().numpy()
            np.testing.assert_allclose(maxima, largest.max(axis=1), rtol=2.0**-10, atol=1e-7)
            told = work._others[:, chunk].cpu().numpy().astype(np.int64) & 0xFFFF
            best = np.take_along_axis(largest, (told % 64)[:, None], axis=1)[:, 0]
            exists = np.isfinite(maxima)
            np.testing.assert_allclose(best[exists], maxima[exists], rtol=2.0**-10, atol=1e-7)
            np.put_along_axis(largest, (told % 64)[:, None], -np.inf, axis=1)
            others = np.where(told // 64 == 1023, -np.inf, maxima - (told // 64) / 1024)
            assert (largest.max(axis=1)[exists] <= others[exists] + np.abs(maxima[exists]) * 4.97e-4 + 1e-7).all()
            near = exists & np.isfinite(others) & (told // 64 < 1022)
            assert (others[near] - largest.max(axis=1)[near] <= 1 / 1024 + np.abs(maxima[near]) * 1e-3).all()


@pytest.mark.parametrize("queries", [1, 64, 257, 10_000])
@pytest.mark.parametrize("k", [1, 32, 33, 128, 129, 513, 2048])
def test_chunks_of_several_tiles_have_titles_of_each(k: int, queries: int) -> None:
    """Of smaller chunks `row_of` would name other titles than those whose scores they are the largest of."""
    for titles in (300_000, 500_000, 2_000_000, 40_000_000):
        plan = plan_search(titles, 256, queries, k)
        assert plan.parts == 1 or plan.tile_titles == 8 * plan.span // plan.parts
        assert plan.tile_titles % (8 * plan.span // plan.parts) == 0


@needs_kernels
def test_programs_that_multiply_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEW_QUERIES", "MANY_QUERIES", "MANY_TITLES"):
        monkeypatch.setattr(plans, name, 1)
    plan_search.cache_clear()
    rng = np.random.default_rng(9)
    titles = rng.normal(size=(900, DIM)).astype(np.float32)
    queries = rng.normal(size=(2, DIM)).astype(np.float32)
    plan = plan_search(900, DIM, 2, K)
    assert (plan.many, plan.piece, plan.parts) == (True, 0, 2)
    Truth.of(titles, queries).check(searcher(titles).search(queries, K), K)


def _rows_of_a_chunk(plan: FusedPlan, chunk: int) -> NDArray[np.int64]:
    i, j = np.ogrid[: plan.span, :2]
    return np.asarray((chunk // 4) * 8 * plan.span + 8 * i + 2 * (chunk % 4) + j, np.int64).ravel()
