"""Users on the GPU are searched as their vectors are, each without what it has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
from semrec_faiss.index.fused.titles import page_locked
from semrec_faiss.index.fused.titles.users import FREE_SHARE, fit, users_bytes
from tests.index.fused.worlds import PLACE, SIZE, Truth, Users, clustered, exclude, needs_kernels, searcher

TIMES = 1 if PLACE == "cpu" else 3
"""The second time a GPU records, the third it replays."""


def made(titles: NDArray[np.float32], *, halves: bool = False) -> Users:
    rng = np.random.default_rng(3)
    vectors = titles[rng.integers(len(titles), size=9)] + rng.normal(size=(9, titles.shape[1])) / 20
    vectors = vectors.astype(np.float16 if halves else np.float32).astype(np.float32)
    best = np.argsort(-(vectors @ titles.T), axis=1)
    lists = [np.sort(best[user, : (0, 1, 40, 700)[user % 4]]) for user in range(9)]  # the very best, more than a block
    return Users(vectors, lists)


def too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no users fit the GPU, so that they are page-locked on the host."""
    monkeypatch.setattr("semrec_faiss.index.fused.searcher.fit", lambda *_: False)
    monkeypatch.setattr("semrec_faiss.index.fused.searcher.may_be_locked", lambda _: True)
    monkeypatch.setattr("semrec_faiss.index.fused.several.several_gpus.may_be_locked", lambda _: True)


@needs_kernels
@pytest.mark.parametrize("locked", [False, True], ids=["copied", "locked"])
@pytest.mark.parametrize("halves", [False, True], ids=["float32", "float16"])
def test_users_are_answered_as_their_vectors_are(halves: bool, locked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = clustered(np.random.default_rng(1), 1500 * SIZE, 32)
    users = made(titles, halves=halves)
    index = searcher(titles)
    if locked:
        too_many(monkeypatch)
    held = index.hold_users(users)
    assert held is not None and held.is_locked is locked
    if PLACE == "cuda:0":
        assert held.vectors.is_pinned() is locked and held.vectors.is_cuda is not locked
    assert (held.vectors.element_size() == 2) is halves, "float16 where that loses nothing"
    assert users.lists is not None
    rows = np.array([3, 8, 2, 3, 0])
    allowed = np.ones((5, len(titles)), np.bool_)
    for query, user in enumerate(rows):
        allowed[query, users.lists[user]] = False
    for _ in range(TIMES):
        everything = index.search_users(held, rows, 7, without_seen=False)
        Truth.of(titles, users.vectors[rows]).check(everything, 7)
        unseen = index.search_users(held, rows, 7)
        Truth.of(titles, users.vectors[rows], allowed).check(unseen, 7)
    again = index.search(users.vectors[rows], 7, excluded=exclude([users.lists[user] for user in rows]))
    np.testing.assert_array_equal(unseen.rows, again.rows)
    np.testing.assert_array_equal(unseen.scores, again.scores)


@needs_kernels
@pytest.mark.parametrize("locked", [False, True], ids=["copied", "locked"])
@pytest.mark.parametrize("layout", ["shards", "replicas"])
def test_several_gpus_answer_users_as_one_does(layout: Any, locked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU, or the interpreter, stands for two of them."""
    monkeypatch.setattr("semrec_faiss.index.fused.several.several_gpus.LEAST_A_REPLICA", 1)
    titles = clustered(np.random.default_rng(8), 701 * SIZE, 32)
    users, rows = made(titles), np.array([3, 8, 2, 7, 0])
    one, several = searcher(titles), SeveralGpus(titles, [PLACE, PLACE], layout=layout)
    assert users.lists is not None
    seen = exclude([users.lists[user] for user in rows])
    mask = np.random.default_rng(9).random(len(titles)) < 0.4
    if locked:
        too_many(monkeypatch)
    held = several.hold_users(users)
    assert held is not None and [its.is_locked for its in held] == [locked] * 2
    for options in ({}, {"mask": mask}):
        for excluded in (None, seen):
            expected = one.search(users.vectors[rows], 7, excluded=excluded, **options)
            for _ in range(TIMES):
                found = several.search_users(held, rows, 7, without_seen=excluded is seen, **options)
                np.testing.assert_array_equal(found.rows, expected.rows)
                np.testing.assert_array_equal(found.scores, expected.scores)


@needs_kernels
def test_page_locked_users_who_have_seen_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA locks no memory of no bytes."""
    locked = page_locked._locked

    def as_cuda(vectors: Any) -> Any:
        assert np.asarray(vectors).nbytes
        return locked(vectors)

    monkeypatch.setattr(page_locked, "_locked", as_cuda)
    too_many(monkeypatch)
    titles = clustered(np.random.default_rng(4), 300, 32)
    users, index = Users(titles[:4] * np.float32(0.3), [np.empty(0, np.int64)] * 4), searcher(titles)
    held = index.hold_users(users)
    assert held is not None and held.is_locked and held.rows is not None and not len(held.rows)
    Truth.of(titles, users.vectors).check(index.search_users(held, np.arange(4), 3), 3)


@needs_kernels
def test_users_that_fit_nowhere_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = clustered(np.random.default_rng(4), 300, 32)
    too_many(monkeypatch)
    for place in ("searcher", "several.several_gpus"):
        monkeypatch.setattr(f"semrec_faiss.index.fused.{place}.may_be_locked", lambda _: False)
    assert searcher(titles).hold_users(made(titles)) is None
    assert SeveralGpus(titles, [PLACE, PLACE], layout="replicas").hold_users(made(titles)) is None


@needs_kernels
@pytest.mark.parametrize("shelved", [False, True])
def test_with_a_filter_too(shelved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_: 1e9 if shelved else 0.0
    )
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
    rng = np.random.default_rng(2)
    titles = clustered(rng, 1500 * SIZE, 32)
    users, index = made(titles), searcher(titles)
    held = index.hold_users(users)
    assert held is not None and users.lists is not None
    masks = [rng.random(len(titles)) < share for share in (0.3, 0.5)]
    for mask in [masks[0], *masks] * TIMES:  # one filter after another in the same recording
        allowed = np.broadcast_to(mask, (9, len(titles))).copy()
        for user, seen in enumerate(users.lists):
            allowed[user, seen] = False
        found = index.search_users(held, np.arange(9), 5, mask=mask)
        Truth.of(titles, users.vectors, allowed).check(found, 5)


@needs_kernels
def test_users_that_have_seen_nothing_known() -> None:
    titles = clustered(np.random.default_rng(4), 300, 32)
    users = Users(titles[:4] * np.float32(0.3), None)
    index = searcher(titles)
    held = index.hold_users(users)
    assert held is not None
    assert held.bytes == users_bytes(4, 32, 0)
    Truth.of(titles, users.vectors).check(index.search_users(held, np.arange(4), 3), 3)


@needs_kernels
def test_more_seen_titles_than_a_recording_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.queries.feeds.LEAST_LISTED", 50)
    monkeypatch.setattr("semrec_faiss.index.fused.queries.feeds.LISTED_EACH", 20)
    titles = clustered(np.random.default_rng(5), 800 * SIZE, 32)
    index, queries = searcher(titles), titles[:3]
    for length in [10, 10, 10, 60, 10, 60, 60, 60]:  # three fit a recording of 3 × 20, the long ones none
        lists = [np.arange(first, first + length) for first in range(3)]
        allowed = np.ones((3, len(titles)), np.bool_)
        for query, rows in enumerate(lists):
            allowed[query, rows] = False
        Truth.of(titles, queries, allowed).check(index.search(queries, 4, excluded=exclude(lists)), 4)


@pytest.mark.slow
def test_users_leave_room_for_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    users = Users(np.zeros((1000, 64), np.float32), [np.arange(5)] * 1000)
    needed = users_bytes(1000, 64, 5000)
    assert needed == 1000 * 64 * 4 + 1001 * 8 + 5000 * 4
    free: list[int] = [0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[0], 1 << 40))
    device: Any = torch.device("cuda:0")
    free[0] = int(needed / FREE_SHARE)
    assert fit(users, device)
    free[0] -= 4
    assert not fit(users, device)
