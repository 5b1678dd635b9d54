"""The head of a cluster is killed: who waits for it is told soon, nothing is half published, and a new head goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss import Recommender
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.workers import lists as all_lists
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.search.export import export_all_users
from tests.cluster.worlds import HEAD, World

DRIVER = """
import json, sys, traceback
from tests.cluster import worlds
from semrec_faiss import SemrecError
from semrec_faiss.cluster.publish import building
from semrec_faiss.cluster.workers import lists
from semrec_faiss.config.reading import config_from_dict
lists.BLOCK_USERS = 4
work, address, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
building._build_one, lists.ListMaker = worlds.build_one_slowly, worlds.SlowListMaker
try:
    if work == "lists":
        lists.recommend_all(*arguments, 5, address=address, workers=1)
    else:
        building.build_shards(config_from_dict(arguments), 2, address=address)
except SemrecError as error:
    print(type(error).__name__, error.message)
    sys.exit(error.exit_code)
"""


@contextmanager
def _a_head() -> Iterator[Any]:
    """A cluster of one machine beside the one of the other tests, which is not joined by this process."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        yield made
    finally:
        made.shutdown()


def _driver(work: str, address: str, arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, work, address, json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


def _until(is_so: Callable[[], bool], drivers: list[subprocess.Popen[str]]) -> None:
    def holds() -> bool:
        assert all(driver.poll() is None for driver in drivers), [driver.communicate() for driver in drivers]
        return is_so()

    until(holds)


def test_builds_and_lists_end_with_their_head_and_go_on_with_the_next(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.config | {"output": str(tmp_path / "index")}
    before = build_shards(config_from_dict(settings), 2).generation.ref
    lists = [str(world.whole), str(tmp_path / "lists")]
    with _a_head() as head:
        drivers = [_driver("build", head.address, settings), _driver("lists", head.address, lists)]
        fresh = tmp_path / "index" / "shards" / "gen-000002"
        parts = lambda: len(list(tmp_path.glob(".lists*/*.parquet")))  # noqa: E731
        _until(lambda: bool(list(fresh.rglob("slow-*"))) and parts() >= 2, drivers)
        for process in (one for kind in ("gcs_server", "raylet") for one in head.head_node.all_processes[kind]):
            os.kill(process.process.pid, signal.SIGKILL)
        for driver in drivers:
            out, said = driver.communicate(timeout=HANG_SECONDS)
            assert "UnavailableError the head of the cluster does not answer any more" in out, (out, said)
            assert driver.returncode == 6
    assert IndexDirectory(tmp_path / "index").current().ref == before
    assert not (tmp_path / "lists").exists()
    assert parts() >= 2
    built = build_shards(config_from_dict(settings), 2)  # by another head: of the cluster that this process belongs to
    assert built.generation.name == IndexDirectory(tmp_path / "index").current().name == "gen-000002"
    assert built.kept == 1, "the first shard was whole"
    monkeypatch.setattr(all_lists, "BLOCK_USERS", 4)
    summary = all_lists.recommend_all(*lists, 5, workers=1)
    assert summary.resumed_users >= 8
    assert (summary.users, summary.repeats) == (40, 0)
    export_all_users(Recommender.open(world.whole), tmp_path / "one.parquet", 5)
    rows = [row for part in sorted((tmp_path / "lists").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert rows == pq.read_table(tmp_path / "one.parquet").to_pylist()
