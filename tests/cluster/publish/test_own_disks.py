"""Shards on machines' own disks: a second machine sees another disk where this one has the index, and is then lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, make_data_folder, until

from semrec_faiss import Recommender, UnavailableError
from semrec_faiss.cluster.connection import alive_nodes
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.publish.updating import compact_shards, update_shards
from semrec_faiss.cluster.publish.verifying import verify_shards
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.generations.shards import ShardList
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import update_index
from tests.cluster.worlds import World, give_up, listed

OTHER = "127.0.0.2"
START = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"


def _may_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _may_mount(), reason="no mounts of one's own here")


@contextmanager
def _a_machine_with_its_own(disk: Path, cluster: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A node with an address of its own and an empty disk at ``disk``."""
    options = f"--address {cluster.address} --node-ip-address {OTHER} --num-cpus 4 --object-store-memory 80000000"
    ray = f'"$0" -c "$1" start {options} --disable-usage-stats --block'
    script = f"mount -t tmpfs -o size=100m none '{disk}' && exec {ray}"

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", script, sys.executable, START],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    machine = started()

    def is_there() -> bool:
        nonlocal machine
        if machine.poll() is not None:  # Ray gives up after 30 s, which a busy machine may need
            machine = started()
        return OTHER in [node["NodeManagerAddress"] for node in alive_nodes()]

    try:
        until(is_there, lambda: f"`ray start` ended with {machine.poll()}")
        yield machine
    finally:
        _lose(machine)


def _lose(machine: subprocess.Popen[bytes]) -> None:
    if machine.poll() is None:
        os.killpg(machine.pid, signal.SIGKILL)
        machine.wait(HANG_SECONDS)


def _until_nodes_are(so: Any) -> None:
    until(lambda: so([node["NodeManagerAddress"] for node in alive_nodes()]))


def _same(sharded: Recommender, whole: Path) -> None:
    expected, found = (one.similar("m00010", 20) for one in (Recommender.open(whole), sharded))
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def _nodes(listed: ShardList) -> list[list[str | None]]:
    return [[place.node for place in shard.places] for shard in listed.shards]


def test_each_machine_serves_changes_and_proves_what_its_own_disk_holds(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    index, twice = disk / "index", disk / "twice"
    here = alive_nodes()[0]["NodeManagerAddress"]
    whole = tmp_path / "whole"
    with _a_machine_with_its_own(disk, cluster) as machine:
        build_shards(config_from_dict(world.config | {"output": str(index)}), 2)
        assert _nodes(listed(index)) == [[here], [OTHER]]
        assert [path.name for path in (index / "shards/gen-000001").iterdir()] == ["00000"], "the other lies there"
        verify_shards(index)
        with ClusterRecommender.open(index, patience_s=HANG_SECONDS) as sharded:
            _same(sharded, world.whole)
            more = make_data_folder(tmp_path / "more", titles=400, word="More", seed=3).root
            metadata = more / "media/metadata.jsonl"
            metadata.write_text(metadata.read_text(encoding="utf-8").replace('"m0', '"n0'), encoding="utf-8")
            with pytest.warns(RuntimeWarning, match="shard 1 of 2 has 549 of 696 titles, .*`semrec compact` divides"):
                assert sharded.update(more, where="year = 1950", compact_at=1.0).titles.removed == 5
            assert _nodes(listed(index)) == [[here], [OTHER]]
            shutil.copytree(world.whole, whole)
            update_index(whole, Change(more, where="year = 1950"), compact_at=None)
            _same(sharded, whole)
            assert compact_shards(index).manifest.segments is None
            assert [(shard.first, shard.titles) for shard in listed(index).shards] == [(0, 348), (348, 348)]
            assert _nodes(listed(index)) == [[here], [OTHER]]
            assert sharded.refresh()
            _same(sharded, whole)
            verify_shards(index)

            build_shards(config_from_dict(world.config | {"output": str(twice)}), 2, replicas=2)
            assert _nodes(listed(twice)) == [[here, OTHER], [OTHER, here]]
            verify_shards(twice)
            with ClusterRecommender.open(twice, replicas=2, patience_s=HANG_SECONDS) as both:
                _same(both, world.whole)
                _lose(machine)
                _until_nodes_are(lambda addresses: OTHER not in addresses)
                _same(both, world.whole)
                lost = rf"shard 1 of 2 \(titles \d+ to \d+, on {OTHER}\)"
                with monkeypatch.context() as patched:
                    give_up(patched, 1)
                    with pytest.raises(UnavailableError, match=f"{lost} did not answer within 0.5 s"):
                        sharded.similar("m00011")
                with pytest.raises(UnavailableError, match=f"{lost} lies on machines that the cluster does not have"):
                    ClusterRecommender.open(index)
                with pytest.raises(UnavailableError, match=lost):
                    verify_shards(index)
                with pytest.raises(UnavailableError, match=lost):
                    update_shards(index, Change(remove_titles=["m00001"]))
                with monkeypatch.context() as patched, ClusterRecommender.open(index, partial=True) as partial:
                    give_up(patched, 1)
                    answer = partial.similar("m00011", 5).as_dict()
                    assert answer["titles_seen"] == 0.5
                    with pytest.raises(UnavailableError):
                        partial.similar("n00390")
                with pytest.warns(RuntimeWarning, match=f"is changed without {OTHER}, which is away"):
                    assert both.update(remove_titles=["m00299"], compact_at=None).titles.removed == 1
                assert _nodes(listed(twice)) == [[here, OTHER], [here]], "what is away was not changed"
                assert both.index.count == 300
