"""bench cluster: the shards answer as one process does, and everything that is measured is written."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import Semrec, run_python


def test_the_command_measures_shards_and_workers_beside_one_process(
    cluster: Any, tmp_path: Path, semrec: Semrec
) -> None:
    arguments = [
        "--ray",
        cluster.address,
        "--titles",
        "1000",
        "--users",
        "60",
        "--dim",
        "16",
        "--repeats",
        "2",
        "--out",
        tmp_path,
    ]
    result = semrec("bench", "cluster", *arguments)
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "bench-cluster-cpu.json").read_text())
    assert sum(shard["titles"] for shard in document["shards"]) == document["settings"]["titles"] == 1000
    assert [row["same_titles"] for row in document["searches"].values()] == [True, True, True]
    assert set(document["lists"]) == {"one_process", "1_worker", "2_workers", "2_workers_of_shards"}
    made = {(row["repeats"], row["titles_recommended"]) for row in document["lists"].values()}
    assert len(made) == 1  # every way makes the same lists
    assert document["worker_rss_bytes"] > 0
    assert "2 workers of shards" in result.out


@pytest.mark.slow
def test_a_cluster_that_is_made_here_has_the_gpus_that_are_asked_for() -> None:
    """Once a fault: its nodes had none, so that shards were measured on a CPU beside one process with GPUs."""
    program = """
        from semrec_faiss.cluster.bench.run import LOCAL, _joined
        with _joined(LOCAL, 2):
            import ray
            print(sorted(node["Resources"].get("GPU", 0.0) for node in ray.nodes()))
    """
    ended = run_python("-c", textwrap.dedent(program))
    assert ended.stdout.splitlines()[-1:] == ["[0.0, 2.0]"], ended.stderr
