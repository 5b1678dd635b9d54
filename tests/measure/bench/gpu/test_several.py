"""``semrec bench gpu --gpus 0,1``: users whose lists are asked for by rows, without what they have seen."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import REPO

from semrec_faiss.index.fused.running import FusedResult
from semrec_faiss.measure.bench.gpu import several
from semrec_faiss.measure.bench.gpu.one import GpuBench
from semrec_faiss.measure.bench.gpu.several_record import GpusResults
from semrec_faiss.measure.bench.gpu.vectors import clustered, seeing_users
from semrec_faiss.measure.instruments.timing import measure_steady
from tests.index.fused.worlds import PLACE, Truth, needs_kernels

TITLES, USERS, ASKED, K = 300, 20, 6, 5


class Fake:
    """Answers by brute force, in the place of one GPU and of several; notes which users it is asked for."""

    holds = True

    def __init__(self, vectors: Any, *_: Any, **__: Any) -> None:
        self.vectors = vectors
        self.asked: list[Any] = []

    def search(self, queries: Any, k: int) -> FusedResult:
        scores = queries @ self.vectors.T
        rows = np.argsort(-scores, axis=1)[:, :k]
        return FusedResult(rows, np.take_along_axis(scores, rows, axis=1))

    def hold_users(self, users: Any) -> Any:
        return users if self.holds else None

    def search_users(self, held: Any, rows: Any, k: int) -> FusedResult:
        self.asked.append(rows)
        return self.search(held.vectors[rows], k)


def catalogue(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a small one; one GPU, or the interpreter, stands for two, and FAISS is on none."""
    monkeypatch.setattr("semrec_faiss.index.fused.several.several_gpus.LEAST_A_REPLICA", 1)
    monkeypatch.setattr(several, "USERS", USERS)
    names = ("one_gpu", *several.LAYOUTS)
    monkeypatch.setattr(several, "_faiss_indexes", lambda vectors, _: dict.fromkeys(names, Fake(vectors)))
    bench = GpuBench(batches=(ASKED,), dim=32, k=K, seconds=0.0)
    return several._Catalogue(bench, TITLES, [str(PLACE or "cpu")] * 2)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("torch")
    for name in ("FusedSearcher", "SeveralGpus"):
        monkeypatch.setattr(several, name, Fake)
    monkeypatch.setattr(several, "measure_steady", partial(measure_steady, within_s=0.0))
    return catalogue


@needs_kernels
def test_lists_are_of_the_users_and_without_what_they_have_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run = catalogue(monkeypatch)
    users, rows = run._users, np.array([5, 0, 19, 7])
    allowed = np.ones((USERS, TITLES), np.bool_)
    allowed[np.arange(USERS).repeat(TITLES // 10), users.seen[1]] = False
    truth = Truth.of(run._made.cpu().numpy(), users.vectors[rows], allowed[rows])
    assert list(run._lists) == ["one_gpu", "shards", "replicas"]
    for search in run._lists.values():
        truth.check(search(rows), K)


def test_lists_are_of_other_users_each_time(faked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = faked(monkeypatch)
    row = run.batch(ASKED)
    assert row.same_answers and row.users is not None
    for times in (row.users.one_gpu, row.users.shards, row.users.replicas):
        assert len(times.times_ms) >= 3
    for one in run._fused.values():
        *timed, compared = one.asked
        assert len({rows.tobytes() for rows in timed}) == min(len(timed), several.MOST_ROUNDS) > 3
        assert len(compared) == ASKED
        for rows in timed:
            assert len(np.unique(rows)) == ASKED and set(rows) <= set(range(USERS))


def test_lists_that_differ_are_told(faked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = faked(monkeypatch)
    right = run._lists["replicas"]
    run._lists["replicas"] = lambda rows: right(rows[::-1])
    assert not run.batch(ASKED).same_answers


def test_users_that_cannot_be_held_have_no_times(faked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "holds", False)
    row = faked(monkeypatch).batch(ASKED)
    assert row.users is None and row.same_answers


@pytest.mark.parametrize(("titles", "each"), [(1500, 100), (300, 30)])
def test_users_have_seen_titles_of_the_whole_catalogue_none_twice(titles: int, each: int) -> None:
    torch = pytest.importorskip("torch")
    users = seeing_users(clustered(titles, 32, 1, torch.device("cpu")), 50, 2)
    offsets, rows = users.seen
    assert users.has_seen and users.count == 50 and users.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(users.vectors, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(offsets, np.arange(51) * each)
    assert (rows.dtype, offsets.dtype) == (np.int32, np.int64)
    seen = rows.reshape(50, each)
    assert (np.diff(seen, axis=1) > 0).all()
    assert (seen // (titles // each) == np.arange(each)).all(), "one of each part"
    assert seen.min() == 0 or seen.max() == titles - 1
    assert len(np.unique(seen, axis=0)) == 50


@pytest.mark.parametrize("name", sorted(path.name for path in (REPO / "results").glob("bench-gpu-*-x[24]*.json")))
def test_files_of_earlier_versions_are_read(name: str) -> None:
    text = (REPO / "results" / name).read_text(encoding="utf-8")
    assert all(row.fused.one_gpu.median_ms > 0 for row in GpusResults.model_validate_json(text).search)
