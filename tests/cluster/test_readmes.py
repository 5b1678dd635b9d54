"""What the READMEs show of a cluster is run, word for word."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from semrec_faiss.cluster.recommender import ClusterRecommender
from tests.test_readme import PAGES, ROOT, blocks

COMMANDS = [
    line
    for page in PAGES
    for block in blocks(page, "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if "--ray" in shlex.split(line, comments=True)
]


def test_every_command_that_a_cluster_does_is_run(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {shlex.split(command)[1] for command in COMMANDS} >= {"build", "recommend"}
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.chdir(tmp_path)
    for name in ("data", "configs"):
        Path(name).symlink_to(ROOT / name)
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] == "semrec"
        done = subprocess.run(
            [sys.executable, "-m", "semrec_faiss", *words[1:]],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    with ClusterRecommender.open("shared/index") as sharded:
        expected = [title.media_id for title in sharded.recommend("user_001", 10).results]
    told = json.loads(Path("lists/MANIFEST.json").read_text())["summary"]
    assert (told["users"], told["users_with_k"], told["repeats"], told["seen_leaks"]) == (200, 200, 0, 0)
    rows = [row for part in sorted(Path("lists").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert [row["media_id"] for row in rows if row["user_id"] == "user_001"] == expected
