"""What is open goes to the newest generation of its index between two questions, and to no other."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss import Recommender
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.manifest import MANIFEST_NAME
from semrec_faiss.index.memory.room import LackingRoom, lacking_room
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import update_index
from tests.index.update.living_worlds import DIM, begun

QUERY = np.ones(DIM, np.float32)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return begun(3)[0].build(tmp_path / "first", {"type": "flat"})


def count(recommender: Recommender) -> int:
    return recommender.search(QUERY, 100)[0].matching


def test_a_notebook_shows_what_is_open(index: Path) -> None:
    recommender = Recommender.open(index)
    manifest = recommender.saved.generation.manifest
    assert repr(recommender) == (
        f"<Recommender of {index / 'gen-000001'}: flat, {manifest.count} titles of {DIM} dimensions,"
        f" {manifest.users} users>"
    )
    one = np.ones((1, 2), np.float32)
    in_memory = repr(Recommender.from_arrays(one, {"media_id": ["a"], "title": ["A"]}))
    assert in_memory.endswith(": flat, 1 titles of 2 dimensions, 0 users>")


def test_users_are_read_when_an_index_is_opened_with_them(index: Path) -> None:
    assert "users" not in vars(Recommender.open(index).saved)
    users = Recommender.open(index, with_users=True).saved.users
    assert {"vectors", "seen"} <= vars(users).keys()
    path = IndexDirectory(index).current().folder / "users.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert count(Recommender.open(index)) == 60
    with pytest.raises(DamagedIndexError, match=r"users\.npy has changed since it was written"):
        Recommender.open(index, with_users=True)


def test_a_refresh_goes_to_what_is_in_use_and_what_is_pinned_stays(index: Path) -> None:
    recommender = Recommender.open(index)
    pinned = recommender.pinned()
    assert not recommender.refresh()
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    assert count(recommender) == 60
    assert recommender.refresh()
    assert (count(recommender), count(pinned)) == (59, 60)
    IndexDirectory(index).rollback()
    assert recommender.refresh()
    assert count(recommender) == 60


def test_an_update_through_a_recommender_is_answered_from_at_once(index: Path) -> None:
    recommender = Recommender.open(index)
    users = len(recommender.users.ids)
    summary = recommender.update(remove_titles="m00001", remove_users=["u1", "nobody"], compact_at=None)
    assert (summary.titles.removed, summary.users.removed, summary.users.unknown) == (1, 1, 1)
    assert (count(recommender), len(recommender.users.ids)) == (59, users - 1)
    assert recommender.update(where="media_id = 'm00002'", dry_run=True).titles.removed == 1
    assert count(recommender) == 59


def test_what_follows_its_index_answers_whole_from_one_generation_or_the_next(index: Path) -> None:
    with Recommender.open(index, follow=True) as followed:
        mixed: list[object] = []
        ending = threading.Event()

        def ask() -> None:
            while not ending.is_set():
                answer = followed.search(QUERY, 100)[0]
                ids = [one.media_id for one in answer]
                if (answer.matching, "m00001" in ids) not in {(60, True), (59, False)}:
                    mixed.append(answer)

        asking = threading.Thread(target=ask)
        asking.start()
        update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
        until(lambda: count(followed) == 59)
        ending.set()
        asking.join()
        assert not mixed
        assert count(pickle.loads(pickle.dumps(followed))) == 59
    update_index(index, Change(remove_titles=["m00002"]), compact_at=None)
    time.sleep(0.6)
    assert count(followed) == 59


def test_following_ends_with_what_follows(index: Path) -> None:
    gone = weakref.ref(Recommender.open(index, follow=True))
    gc.collect()
    until(lambda: gone() is None)


def test_a_generation_that_cannot_be_opened_is_warned_of_once_and_the_other_stays(index: Path) -> None:
    recommender = Recommender.open(index)
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    manifest = index / "gen-000002" / MANIFEST_NAME
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b"flat", b"flax"))
    with pytest.raises(DamagedIndexError):
        recommender.refresh()
    assert count(recommender) == 60
    manifest.write_bytes(whole)
    assert recommender.refresh()
    assert count(recommender) == 59


def test_where_both_do_not_fit_the_old_one_goes_first_and_this_is_said(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.open(index)
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    room = LackingRoom("GPU 0", 5_000_000_000, 2_000_000_000)
    monkeypatch.setattr("semrec_faiss.search.living.living_index.lacking_room", lambda *_: room)
    old = weakref.ref(recommender.index)
    running = [recommender.pinned()]
    was_there: list[bool] = []
    real = SavedIndex.load

    def load(self: SavedIndex, *arguments: Any) -> Any:
        was_there.append(old() is not None)
        return real(self, *arguments)

    monkeypatch.setattr(SavedIndex, "load", load)
    threading.Timer(0.5, running.clear).start()
    said = r"gen-000002 takes, beside gen-000001, 5.0 GB of GPU 0, and 2.0 GB are free: gen-000001 is let go first"
    with pytest.warns(RuntimeWarning, match=said):
        assert recommender.refresh()
    assert was_there == [False]
    assert count(recommender) == 59


def test_what_was_let_go_is_opened_again_where_the_newer_one_cannot_be(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.open(index)
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    path = index / "gen-000002/seg-000002.replaced.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    monkeypatch.setattr("semrec_faiss.search.living.living_index.lacking_room", lambda *_: LackingRoom("memory", 2, 1))
    with warnings.catch_warnings(), pytest.raises(DamagedIndexError):
        warnings.simplefilter("ignore")
        recommender.refresh()
    assert count(recommender) == 60


def test_room_is_predicted_for_what_both_do_not_share(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = SavedIndex(index)
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    newer = SavedIndex(index)
    assert lacking_room(newer, before) is None
    monkeypatch.setattr("semrec_faiss.index.memory.room.available_bytes", lambda: 1)
    lacking = lacking_room(newer, before)
    assert lacking is not None
    assert lacking.place == "memory"
    update_index(index, Change(remove_titles=["m00002"]), compact_at=0.0)  # another base: its vectors count too
    built = lacking_room(SavedIndex(index), before)
    assert built is not None
    assert built.needed_bytes - lacking.needed_bytes == 4 * DIM * 58


def _asked_in_a_child(recommender: Recommender, found: Any) -> None:
    before = count(recommender)
    update_index(recommender.saved.generation.folder.parent, Change(remove_titles=["m00001"]), compact_at=None)
    until(lambda: count(recommender) == 59)
    found.put((before, count(recommender)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_follows_too(index: Path) -> None:
    fork = multiprocessing.get_context("fork")
    found = fork.SimpleQueue()
    with Recommender.open(index, follow=True) as recommender:
        child = fork.Process(target=_asked_in_a_child, args=(recommender, found))
        child.start()
        child.join(HANG_SECONDS)
        assert child.exitcode == 0
        assert found.get() == (60, 59)
        until(lambda: count(recommender) == 59)
