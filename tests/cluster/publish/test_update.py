"""An index in shards that changes: after every change it answers as one built anew, and is whole or as before."""

from __future__ import annotations

import gc
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec, is_running, until

from semrec_faiss import DamagedIndexError, NotFoundError, Recommender, StorageError, UsageError
from semrec_faiss.cluster.publish import changing
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.publish.updating import compact_shards, update_shards
from semrec_faiss.cluster.publish.verifying import verify_shards
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import update_index
from tests.cluster import worlds
from tests.cluster.worlds import listed
from tests.index.update.living_worlds import Draws, Model, begun, write_folder
from tests.index.update.test_updating import FLAT, everything, step

PROFILE = {"weighting": "rating"}


def _built(model: Model, root: Path, shards: int = 3, **more: Any) -> Path:
    data = model.write(root / "data")
    config = {"dataset": str(data), "output": str(root / "index"), "device": "cpu", "index": FLAT} | more
    build_shards(config_from_dict(config), shards)
    return root / "index"


def _assert_as_rebuilt(sharded: Recommender, model: Model, draws: Draws, root: Path) -> None:
    rebuilt = Recommender.open(model.build(root, FLAT))
    ours, expected = everything(sharded, model, draws), everything(rebuilt, model, draws)
    for name in expected:
        assert ours[name] == expected[name], name


def test_random_updates_answer_as_a_rebuild_in_an_index_that_stays_open(cluster: Any, tmp_path: Path) -> None:
    model, draws = begun(5)
    index = _built(model, tmp_path / "first", 2)
    with ClusterRecommender.open(index) as sharded:
        for _ in range(2):
            step(model, draws, index, tmp_path / "change", partial(update_shards, asks=sharded.saved))
            assert sharded.refresh()
        assert not sharded.refresh()
        _assert_as_rebuilt(sharded, model, draws, tmp_path / "rebuilt")
        before = everything(sharded, model, draws)
        verified = verify_shards(index)
        assert verified.known_answers > 0
        kept = listed(index)
        assert compact_shards(index).manifest.segments is None
        assert [shard.first for shard in listed(index).shards] == [shard.first for shard in kept.shards]
        assert sharded.refresh()
        assert everything(sharded, model, draws) == before
        verify_shards(index)
        assert compact_shards(index).name == IndexDirectory(index).current().name, "nothing was left to be done"


def test_only_what_a_change_concerns_is_changed(cluster: Any, tmp_path: Path) -> None:
    model, draws = begun(6)
    index = _built(model, tmp_path / "first")
    ids = list(model.titles)
    before = listed(index)
    with ClusterRecommender.open(index) as sharded:
        was = [about.pid for about in sharded.shards.opened()]
        new = draws.titles(2)
        done = sharded.update(write_folder(tmp_path / "change", new), compact_at=None)
        model.put_titles(new)
        assert (done.titles.new, done.title_count) == (2, 62)
        after = listed(index)
        assert after.shards[:2] == before.shards[:2]
        assert after.shards[2].folder == "shards/gen-000002/00002"
        assert after.starts.tolist() == [0, 20, 40, 62]
        now = [about.pid for about in sharded.shards.opened()]
        assert now[:2] == was[:2], "the actors of shards that stay are kept"
        assert now[2] != was[2]
        _until_ended(was[2])

        done = sharded.update(remove_titles=[*ids[20:40], "m77777"], where=f"media_id = '{ids[0]}'", compact_at=None)
        model.remove([*ids[20:40], ids[0]], [])
        assert (done.titles.removed, done.titles.unknown, done.title_count) == (21, 1, 41)
        assert [shard.titles for shard in listed(index).shards] == [19, 22], "a shard without titles is no more"
        _assert_as_rebuilt(sharded, model, draws, tmp_path / "rebuilt")

        last = list(model.titles)[19:]
        sharded.update(remove_titles=last, compact_at=None)
        model.remove(last, [])
        changed = draws.titles(0, list(model.titles)[:3])
        changed = {media_id: (record | {"new": "field"}, vector) for media_id, (record, vector) in changed.items()}
        whole = model.build(tmp_path / "rebuilt", FLAT)
        done = sharded.update(write_folder(tmp_path / "change", changed), compact_at=None)
        assert done.titles.changed == 3
        update_index(whole, Change(tmp_path / "change"), compact_at=None)
        model.put_titles(changed)
        assert everything(sharded, model, draws) == everything(Recommender.open(whole), model, draws)
        assert sharded.similar(next(iter(model.titles)), 5, where="\"new\" = 'field'").matching == 3
        assert sharded.update(remove_titles=["m77777"]).bytes_written == 0
        with pytest.raises(UsageError, match="all 19 titles would be removed"):
            sharded.update(where="true")
        with pytest.raises(NotFoundError, match="'m77777'"):
            sharded.update(remove_titles=["m77777"], strict=True)
    assert IndexDirectory(index).rollback().manifest.count == 19
    verify_shards(index)
    kept = sorted(path.name for path in (index / "shards").iterdir())
    assert kept == ["gen-000003", "gen-000005"], "gen-000004 only left one of them out"


def _until_ended(pid: int) -> None:
    """Nobody asks the actor any more: Ray ends it."""
    until(lambda: gc.collect() >= 0 and not is_running(pid))


def test_users_made_of_their_histories_are_those_of_one_index(cluster: Any, tmp_path: Path) -> None:
    model, draws = begun(8)
    profile = {"profile": {"interests": 1, "liked": 3}}
    index = _built(model, tmp_path / "first", 2, **profile)
    whole = model.build(tmp_path / "whole", FLAT, profile["profile"])
    titles, users = list(model.titles), list(model.users)
    changed = draws.titles(0, titles[3:9]) | draws.titles(3)
    write_folder(tmp_path / "change", changed, {"new": draws.vector()}, draws.rows([*users[:4], "new"], titles[9:], 20))
    change = Change(tmp_path / "change", titles[20:24], users[-1:])
    with ClusterRecommender.open(index) as sharded:
        counted = update_shards(index, change, asks=sharded.saved, dry_run=True)
        assert counted.title_count == 59
        assert listed(index).count == 60
        found = update_shards(index, change, asks=sharded.saved, compact_at=None)
        expected = update_index(whole, change, compact_at=None)
        assert found.titles == expected.titles == counted.titles
        for name in ("users", "seen", "seen_known", "seen_ignored"):
            assert getattr(found, name) == getattr(expected, name), name
        assert sharded.refresh()
        told = {"user_id": [users[0]], "media_id": [titles[9]], "rating": [4.0], "timestamp": [2 * 10**9]}
        pq.write_table(pa.table(told), tmp_path / "since.parquet")
        for seen in (Change(seen=tmp_path / "since.parquet"),) * 2:  # the second time it is known
            again = update_shards(index, seen, compact_at=None)
            update_index(whole, seen, compact_at=None)
            assert again.generation == "gen-000003"
        assert (update_shards(index, seen).generation, again.bytes_written) == ("gen-000003", 0)
        assert sharded.refresh()
        one = Recommender.open(whole)
        np.testing.assert_array_equal(sharded.users.vectors[:], one.users.vectors[:])
        for wish in ({}, {"where": "year < 1990"}):
            ours, theirs = (each.recommend(one.users.ids, 9, **wish) for each in (sharded, one))
            np.testing.assert_array_equal(ours.rows, theirs.rows)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
        assert sharded.update(remove_titles=titles[30:36]).compacted
        assert IndexDirectory(index).current().manifest.segments is None
        update_index(whole, Change(remove_titles=titles[30:36]))
        ours, theirs = (each.recommend(users[:5], 9) for each in (sharded, Recommender.open(whole)))
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert IndexDirectory(index).current().manifest.count == 53
    taken_back = IndexDirectory(index).rollback().manifest  # the removal, not its being built anew
    assert (taken_back.count, taken_back.segments is None) == (59, False)
    with ClusterRecommender.open(index) as sharded:
        assert sharded.similar(titles[30], 1).returned == 1


def test_an_update_that_fails_or_is_killed_leaves_the_index_before(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = begun(9)
    index = _built(model, tmp_path / "first", 2)
    before, titles = IndexDirectory(index).current().ref, list(model.titles)
    change = Change(remove_titles=[titles[0], titles[-1]])
    with ClusterRecommender.open(index) as sharded:
        expected = sharded.similar(titles[3], 60).rows.tolist()
        with monkeypatch.context() as patched:
            patched.setattr(changing, "change_one", worlds.change_one_without_space)
            with pytest.raises(StorageError, match="the disk is full"):
                update_shards(index, change, asks=sharded.saved)
        assert IndexDirectory(index).current().ref == before
        assert [path.name for path in (index / "shards").iterdir()] == ["gen-000001"]
        assert not sharded.refresh()
        assert sharded.similar(titles[3], 60).rows.tolist() == expected
        with monkeypatch.context() as patched:
            patched.setattr(changing, "change_one", worlds.change_one_killed_once)
            assert update_shards(index, change, asks=sharded.saved, compact_at=None).titles.removed == 2
        assert len(list(index.rglob("killed-*"))) == 1
        assert sharded.refresh()
        assert sharded.index.count == 58
        verify_shards(index)


def test_commands_change_an_index_in_shards(cluster: Any, tmp_path: Path, semrec: Any) -> None:
    model, draws = begun(11)
    index = _built(model, tmp_path / "first", 2)
    change = write_folder(tmp_path / "change", draws.titles(2))
    told = semrec("update", index, change, "--json", "--ray", "auto").document
    assert (told["titles"]["new"], told["title_count"], told["generation"]) == (2, 62, "gen-000002")
    fresh = draws.rows(list(model.users), list(model.titles), 3)
    write_folder(tmp_path / "more", {}, seen=fresh)
    seen = semrec("append-seen", index, tmp_path / "more/users/seen.parquet", "--compact-at", "1", "--ray", "auto")
    assert f"seen: {len({row[:2] for row in fresh} - {row[:2] for row in model.seen})} added" in seen.out
    assert f"{index} is at gen-000004, in one piece: 62 titles" in semrec("compact", index, "--ray", "auto").out
    told = semrec("verify", index, "--json", "--ray", "auto").document
    assert (told["verified"], told["titles"], told["users"], told["known_answers"]) == (True, 62, 12, 6)
    assert semrec("info", index, "--json").document["shards"] == 2
    for command in (("verify", index), ("update", index, change), ("compact", index)):
        refused = semrec(*command)
        assert refused.code == 2
        assert "is in 2 shards" in refused.err
        assert "--ray" in refused.err


def test_an_index_is_followed_and_damage_is_found_where_it_lies(cluster: Any, tmp_path: Path) -> None:
    model, _ = begun(10)
    index = _built(model, tmp_path / "first", 2)
    titles = list(model.titles)
    with Recommender.open(f"ray://auto{index}", follow=True) as sharded:
        assert sharded.index.count == 60
        update_shards(index, Change(remove_titles=titles[:1]), compact_at=None)
        until(lambda: sharded.index.count < 60)
        assert sharded.index.count == 59
    copy = shutil.copytree(index, tmp_path / "copy")
    path = next(copy.glob("shards/gen-000001/00001/gen-*/items.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedIndexError, match=r"shard 1 of 2 \(titles 29 to 58\): .*items.parquet has changed"):
        verify_shards(copy)
    verify_shards(index)
    with pytest.raises(UsageError, match="is not in shards"):
        verify_shards(model.build(tmp_path / "whole", FLAT))


def test_a_shard_that_has_grown_far_beyond_the_others_is_told_and_divided_anew(
    cluster: Any, tmp_path: Path, semrec: Semrec
) -> None:
    model, draws = begun(9)
    index = _built(model, tmp_path / "first")
    assert listed(index).uneven is None
    new, gone = draws.titles(63), list(model.titles)[2:5]
    folder = write_folder(tmp_path / "change", new)
    (tmp_path / "gone").write_text("\n".join(gone))
    model.put_titles(new)
    model.remove(gone, [])
    result = semrec("update", index, folder, "--remove-titles", tmp_path / "gone", "--compact-at", "1", "--ray", "auto")
    told = "shard 2 of 3 has 83 of 120 titles, 2.1 times the mean, and every question waits for it"
    assert told in " ".join(result.err.split())
    assert semrec("info", index, "--json").document["uneven"] == f"{told}: `semrec compact` divides them anew"
    semrec("compact", index, "--ray", "auto")
    assert [shard.titles for shard in listed(index).shards] == [40, 40, 40]
    assert semrec("info", index, "--json").document["uneven"] is None
    with ClusterRecommender.open(index) as sharded:
        _assert_as_rebuilt(sharded, model, draws, tmp_path / "rebuilt")
    verify_shards(index)
    assert all(len(list((index / shard.folder).glob("gen-*"))) == 1 for shard in listed(index).shards)
    assert IndexDirectory(index).rollback().manifest.count == 120
