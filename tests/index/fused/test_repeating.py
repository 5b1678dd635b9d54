"""What a pass of type fused does not prove, searched again right behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.index.fused.one_pass import FusedPass
from semrec_faiss.index.fused.plan import bitmap_words, plan_search
from semrec_faiss.index.fused.repeating import RepeatAtOnce, at_once
from semrec_faiss.index.fused.titles.left_out import Lists, leave_out
from tests.index.fused.recordings import recordings
from tests.index.fused.worlds import PLACE, clustered, needs_kernels, searcher

K = 4
NEAR = (3, 8, 11)
"""Queries near to titles that float16 does not tell apart."""


def too_near(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    titles = clustered(rng, 1500, 32)
    centre = titles[0].copy()
    near = rng.choice(1500, size=50, replace=False)
    titles[near] = centre + 1e-5 * rng.normal(size=(50, 32))
    queries = -titles[rng.choice(1500, size=20)]
    queries[list(NEAR)] = centre + 1e-3 * rng.normal(size=(len(NEAR), 32))
    return titles, queries


def answers(work: FusedPass) -> tuple[NDArray[Any], ...]:
    import torch

    if PLACE != "cpu":
        torch.cuda.synchronize()  # few answers are written to the host by the kernels
    return tuple(part.cpu().numpy().copy() for part in (work.rows, work.scores, work.needed))


@needs_kernels
@pytest.mark.parametrize("room", [1, 2, 4])
@pytest.mark.parametrize("masking", ["none", "own"])
def test_what_is_searched_again_at_once_is_proven_and_all_else_stays(room: int, masking: str) -> None:
    import torch

    rng = np.random.default_rng(8)
    titles, given = too_near(rng)
    queries = torch.from_numpy(given).to(PLACE)
    its = searcher(titles).titles
    allowed, stride, left_out = None, 0, np.zeros((20, 1500), np.bool_)
    if masking == "own":
        stride = bitmap_words(1500)
        rows = np.array([rng.choice(1500, 40, replace=False) for _ in range(20)])
        np.put_along_axis(left_out, rows, values=True, axis=1)
        allowed = torch.empty((20, stride), dtype=torch.int32, device=PLACE)
        lists = (40 * torch.arange(21), torch.from_numpy(rows.astype(np.int32)).reshape(-1))
        everything = torch.full((stride,), -1, dtype=torch.int32, device=PLACE)
        leave_out(its, allowed, everything, Lists(*(one.to(PLACE) for one in lists)))
    work = FusedPass(its, plan_search(1500, 32, 300, K), 20, K)
    again = RepeatAtOnce(work, room)
    for _ in range(2):  # whatever a batch before has left there
        work.run(queries, allowed, stride)
        first_rows, first_scores, needed = answers(work)
        assert np.flatnonzero(needed != -np.inf).tolist() == list(NEAR)
        again.launch(allowed, stride)
        rows, scores, left = answers(work)
        listed = list(NEAR[:room])
        others = np.setdiff1d(np.arange(20), listed)
        assert np.isnan(left[listed]).all()
        np.testing.assert_array_equal(left[others], needed[others])
        np.testing.assert_array_equal(rows[others], first_rows[others])
        np.testing.assert_array_equal(scores[others], first_scores[others])
        exact = given.astype(np.float64) @ titles.astype(np.float64).T
        exact[left_out] = -np.inf
        best = -np.sort(-exact, axis=1)[:, :K]
        np.testing.assert_allclose(scores[listed], best[listed], rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(exact, rows, axis=1)[listed], best[listed], rtol=0, atol=1e-9)


@needs_kernels
def test_of_more_queries_than_are_looked_at_together_none_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("semrec_faiss.index.fused.repeating.LISTED_AT_ONCE", 4)
    titles, given = too_near(np.random.default_rng(8))
    work = FusedPass(searcher(titles).titles, plan_search(1500, 32, 300, K), 20, K)
    again = RepeatAtOnce(work, 4)
    work.run(torch.from_numpy(given).to(PLACE))
    again.launch(None, 0)
    assert np.flatnonzero(np.isnan(answers(work)[2])).tolist() == list(NEAR)


def test_how_many_have_room_to_be_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.repeating.FEWEST_REPEATED", 16)
    plan = plan_search(62_423, 384, 1000, 10)
    assert [at_once(plan, 62_423, queries) for queries in (1, 256, 257, 1000, 10_000, 16_384)] == [0, 0, 16, 16, 64, 64]
    coded = plan_search(62_423, 384, 1000, 10, coded=True)
    assert [at_once(coded, 62_423, queries) for queries in (256, 257, 1000, 10_000)] == [0, 64, 128, 2048]
    assert at_once(plan_search(4_000_000, 384, 1000, 10, coded=True), 4_000_000, 1000) == 64, "within 32 MiB"
    many = replace(plan, keep=1000)
    assert at_once(many, 100_000_000, 10_000) < 64, "of so many titles the maxima of fewer queries fit"


@needs_kernels
@pytest.mark.parametrize("room", [2, 64])
def test_recordings_search_again_what_they_do_not_prove(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many answers, the same ones, and as many of them searched again, as where the host has them searched again."""
    monkeypatch.setattr("semrec_faiss.index.fused.repeating.QUERIES_A_REPEAT", 16)
    monkeypatch.setattr("semrec_faiss.index.fused.repeating.FEWEST_REPEATED", room)
    rng = np.random.default_rng(8)
    titles, given = too_near(rng)
    queries = given if PLACE == "cpu" else np.concatenate((given, -titles[rng.choice(1500, size=500)]))
    launched = searcher(titles).search(queries, K)
    assert launched.repeated >= len(NEAR)
    with recordings():
        index = searcher(titles)
        for _ in range(1 if PLACE == "cpu" else 4):
            found = index.search(queries, K)
            assert (found.repeated, found.scanned) == (launched.repeated, 0)
            np.testing.assert_array_equal(found.rows, launched.rows)
            np.testing.assert_array_equal(found.scores.view(np.int32), launched.scores.view(np.int32))
        (kind,) = [kind.search for kind in index.whole._graphs.values() if kind.search is not None]
        recorded = at_once(kind.work.plan, len(titles), len(kind.feed.queries))
        assert recorded in (room, 4 * room)
        assert kind.repeated == min(recorded, launched.repeated)
