"""Killed actors, workers, machines and builds: never a wrong answer, never half an index, and clear words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, make_data_folder, until

from semrec_faiss import DamagedIndexError, Filter, Recommender, StorageError, UnavailableError, UsageError
from semrec_faiss.cluster.connection import alive_nodes
from semrec_faiss.cluster.publish import building
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.publish.verifying import verify_shards
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.search.export import export_all_users
from tests.cluster import worlds
from tests.cluster.worlds import World, give_up


@pytest.fixture(scope="module")
def index(cluster: Any, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faults") / "index"
    build_shards(config_from_dict(world.config | {"output": str(out)}), 2)
    return out


def _same(sharded: Recommender, world: World) -> None:
    expected = Recommender.open(world.whole).similar("m00010", 20)
    found = sharded.similar("m00010", 20)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_killed_shard_comes_back_by_itself(index: Path, world: World) -> None:
    with ClusterRecommender.open(index, patience_s=HANG_SECONDS) as sharded:
        _same(sharded, world)
        killed = sharded.shards.opened()[1].pid
        os.kill(killed, signal.SIGKILL)
        _same(sharded, world)
        assert sharded.shards.opened()[1].pid != killed


def test_a_replica_answers_for_a_lost_one(index: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    with ClusterRecommender.open(index, replicas=2, patience_s=HANG_SECONDS) as sharded:
        _same(sharded, world)
        assert [state["answering"] for state in sharded.shards.states(HANG_SECONDS)] == [2, 2]
        for replicas in sharded.shards.replicas:
            ray.kill(replicas[0], no_restart=True)
        _same(sharded, world)
        until(lambda: [state["answering"] for state in sharded.shards.states(HANG_SECONDS)] == [1, 1])
        ray.kill(sharded.shards.replicas[1][1], no_restart=True)
        give_up(monkeypatch, 1)
        with pytest.raises(UnavailableError, match=r"shard 1 of 2 \(titles 150 to 300\) did not answer within 0.5 s"):
            sharded.similar("m00010")


def test_partial_answers_say_what_they_saw(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    with ClusterRecommender.open(index, patience_s=HANG_SECONDS, partial=True) as sharded:
        assert sharded.similar("m00010", 5).as_dict()["titles_seen"] == 1
        ray.kill(sharded.shards.replicas[1][0], no_restart=True)
        until(lambda: [state["answering"] for state in sharded.shards.states(HANG_SECONDS)] == [1, 0])
        give_up(monkeypatch, 1)
        answer = sharded.similar("m00010", 5)
        assert answer.as_dict()["titles_seen"] == pytest.approx(150 / 301, abs=1e-4)
        assert not answer.exact
        assert (answer.rows < 150).all()
        assert b'"titles_seen": 0.4983' in answer.as_json_bytes()
        assert sharded.similar("m00010", where="media_id = 'm00200'").notes == ()  # which the lost shard has
        with pytest.raises(UnavailableError):
            sharded.similar("m00200")
        with pytest.raises(UsageError, match="lists for everybody need all shards"):
            export_all_users(sharded, tmp_path / "lists.parquet")


def test_no_place_is_told_among_the_titles_of_some_shards(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a fault: those of a lost shard were left out, and the place told as one among all titles."""
    with ClusterRecommender.open(index, partial=True) as sharded:
        ask_each = sharded.shards.ask_each

        def without_the_second(method: str, arguments: Any) -> dict[int, Any]:
            found = ask_each(method, arguments)
            return {0: found[0]} if method == "before" else found

        assert sharded.explain("user_003", "m00010").of > 150
        monkeypatch.setattr(sharded.shards, "ask_each", without_the_second)
        with pytest.raises(UnavailableError, match="is lost"):
            sharded.explain("user_003", "m00010")


def test_what_a_partial_answer_did_not_see_is_seen_once_the_shard_is_back(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: values and genres read meanwhile were kept, and lacked those of the lost shard for ever."""
    made = make_data_folder(tmp_path / "data", titles=60)
    path = made.root / "media" / "metadata.jsonl"
    lines = [json.loads(line) | {"year": 1950 + at % 7} for at, line in enumerate(path.read_text("utf-8").splitlines())]
    lines[50]["genres"] = ["Opera"]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    config = world.config | {"dataset": str(made.root)}
    build_index(config_from_dict(config | {"output": str(tmp_path / "whole")}))
    build_shards(config_from_dict(config | {"output": str(tmp_path / "index")}), 2)
    whole = Recommender.open(tmp_path / "whole")
    with ClusterRecommender.open(tmp_path / "index", patience_s=HANG_SECONDS, partial=True) as sharded:
        stopped = sharded.shards.opened()[1].pid
        os.kill(stopped, signal.SIGSTOP)
        try:
            with monkeypatch.context() as patched:
                give_up(patched, 1)
                assert sharded.similar("m00010", 7, max_per={"year": 1}).titles_seen == 0.5
                with pytest.raises(UnavailableError, match="shard 1 of 2"):
                    sharded.similar("m00010", where=Filter(genres=("Opera",)))
                with pytest.raises(UsageError, match="nothing"):
                    sharded.similar("m00010", where=Filter(genres=("Opera",), any_of={"nothing": ("x",)}))
                assert sharded.titles.known_rows(["m00010"]).tolist() == [10]
                with pytest.raises(UnavailableError, match="shard 1 of 2"):
                    sharded.titles.media_id_of("m00050", "media_id")
        finally:
            os.kill(stopped, signal.SIGCONT)
        until(lambda: sharded.similar("m00010").titles_seen == 1)
        expected, found = (one.similar("m00010", 7, max_per={"year": 1}) for one in (whole, sharded))
        np.testing.assert_array_equal(found.rows, expected.rows)
        assert sharded.similar("m00010", where=Filter(genres=("Opera",))).rows.tolist() == [50]


def test_a_shard_that_comes_back_amidst_a_question_keeps_the_limits(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a fault: its titles came, with values that had been read without it, and were taken for titles of none."""
    with ClusterRecommender.open(index, patience_s=HANG_SECONDS, partial=True) as sharded:
        ask_all = sharded.shards.ask_all

        def without_the_second(method: str, *arguments: Any) -> dict[int, Any]:
            found = ask_all(method, *arguments)
            return {0: found[0]} if method == "group" else found

        with monkeypatch.context() as patched:
            patched.setattr(sharded.shards, "ask_all", without_the_second)
            answer = sharded.similar("m00010", 7, max_per={"year": 1})
        assert answer.titles_seen == pytest.approx(150 / 301)
        assert (answer.rows < 150).all()
        assert len({title["year"] for title in sharded.titles.records(answer.rows)}) == len(answer.rows) > 1
        assert sharded.similar("m00010", 7, max_per={"year": 1}).titles_seen == 1


def test_a_shard_that_is_not_as_it_was_listed_is_refused(cluster: Any, world: World, tmp_path: Path) -> None:
    config = config_from_dict(world.config | {"output": str(tmp_path / "index")})
    generation = build_shards(config, 2).generation
    shard = tmp_path / "index" / "shards" / generation.name / "00001"
    (shard / "gen-000001" / "MANIFEST.json").write_text("{}")
    with pytest.raises(DamagedIndexError, match=r"MANIFEST\.json has changed"):
        ClusterRecommender.open(tmp_path / "index")


def test_a_shard_whose_builder_is_killed_is_built_again(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_build_one", worlds.build_one_killed_once)
    build_shards(config_from_dict(world.config | {"output": str(tmp_path / "index")}), 2)
    assert (tmp_path / "killed-0").exists()
    with ClusterRecommender.open(tmp_path / "index") as sharded:
        _same(sharded, world)


def test_a_build_that_fails_leaves_the_index_before(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_from_dict(world.config | {"output": str(tmp_path / "index")})
    before = build_shards(config, 2).generation
    monkeypatch.setattr(building, "_build_one", worlds.build_one_without_space)
    with pytest.raises(StorageError, match="the disk is full"):
        build_shards(config, 2)
    assert IndexDirectory(tmp_path / "index").current().ref == before.ref
    assert [path.name for path in (tmp_path / "index" / "shards").iterdir()] == [before.name]


@pytest.mark.slow
def test_a_machine_that_is_lost_is_done_without(cluster: Any, index: Path, world: World) -> None:
    added = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.wait_for_nodes(HANG_SECONDS)
    try:
        with ClusterRecommender.open(index, replicas=2, patience_s=HANG_SECONDS) as sharded:
            nodes = {about.node for about in sharded.shards.opened()}
            assert nodes <= {node["NodeID"] for node in alive_nodes()}
            cluster.remove_node(added)
            for _ in range(5):
                _same(sharded, world)
    finally:
        if added in cluster.list_all_nodes():
            cluster.remove_node(added)


KILLED_BUILD = """
import sys, os, threading, time
from tests.cluster import worlds
from semrec_faiss.cluster.publish import building
from semrec_faiss.config.reading import config_from_dict
building._build_one = worlds.build_one_slowly
building.build_shards(config_from_dict(eval(sys.argv[1])), 2, address=sys.argv[2])
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_the_index_before_and_what_was_whole_for_the_next(
    cluster: Any, world: World, tmp_path: Path
) -> None:
    settings = world.config | {"output": str(tmp_path / "index")}
    before = build_shards(config_from_dict(settings), 2).generation
    driver = subprocess.Popen([sys.executable, "-c", KILLED_BUILD, repr(settings), cluster.address])
    fresh = tmp_path / "index" / "shards" / "gen-000002"
    until(lambda: (fresh / "slow-0").exists() or driver.poll() is not None)
    assert driver.poll() is None
    driver.kill()
    driver.wait(HANG_SECONDS)
    assert IndexDirectory(tmp_path / "index").current().ref == before.ref
    verify_shards(tmp_path / "index")
    whole = (fresh / "00000" / "CURRENT").stat().st_ino
    (fresh / "00002").mkdir()  # of a build in more shards
    after = build_shards(config_from_dict(settings), 2)
    assert (after.generation.name, after.kept) == ("gen-000002", 1)
    assert sorted(path.name for path in fresh.iterdir()) == ["00000", "00001"]
    assert (fresh / "00000" / "CURRENT").stat().st_ino == whole
    with ClusterRecommender.open(tmp_path / "index") as sharded:
        _same(sharded, world)
