"""What the READMEs show of a cluster is run, word for word."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from conftest import Semrec

from semrec_faiss.cluster.recommender import ClusterRecommender
from tests.test_readme import PAGES, ROOT, blocks

COMMANDS = [
    line
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if "--ray" in shlex.split(line, comments=True)
]


def test_every_command_that_a_cluster_does_is_run(cluster: Any, tmp_path: Path, semrec: Semrec) -> None:
    assert {shlex.split(command)[1] for command in COMMANDS} >= {"build", "recommend"}
    for name in ("data", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for command in COMMANDS:
        name, *words = shlex.split(command)
        done = semrec(*words, cwd=tmp_path)
        assert (name, done.code) == ("semrec", 0), (command, done.err)
    with ClusterRecommender.open(tmp_path / "shared/index") as sharded:
        expected = [title.media_id for title in sharded.recommend("user_001", 10).results]
    lists = tmp_path / "lists"
    told = json.loads((lists / "MANIFEST.json").read_text())["summary"]
    assert (told["users"], told["users_with_k"], told["repeats"], told["seen_leaks"]) == (200, 200, 0, 0)
    rows = [row for part in sorted(lists.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert [row["media_id"] for row in rows if row["user_id"] == "user_001"] == expected
