"""Vectors of texts by workers: those of one machine, whatever worker is killed, and the record of the model stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cluster_worlds
import numpy as np
from cluster_worlds import World

from semrec_faiss.cluster.workers.embedding import encoders_of
from semrec_faiss.data.text.embed import embed_folder


def test_workers_make_the_vectors_of_one_machine(cluster: Any, world: World, tmp_path: Path) -> None:
    made = []
    for name in ("one", "many"):
        folder = tmp_path / name / "media"
        folder.mkdir(parents=True)
        (folder / "metadata.jsonl").write_bytes((world.made.root / "media" / "metadata.jsonl").read_bytes())
    embed_folder(tmp_path / "one", model="fake", batch_size=4, load=cluster_worlds.load_fake)
    made.append(np.load(tmp_path / "one" / "media" / "content_vectors.npy"))
    dies = tmp_path / "dies"
    dies.touch()
    load = cluster_worlds.LoadMortal(str(dies), "Film 150 (1960)")
    with encoders_of("auto", workers=2, load=load) as everywhere:
        report = embed_folder(tmp_path / "many", model="fake", batch_size=4, block_rows=100, load=everywhere)
    assert report.device == "2 workers with a CPU each"
    assert report.titles == 301
    assert not dies.exists(), "a worker was killed meanwhile"
    made.append(np.load(tmp_path / "many" / "media" / "content_vectors.npy"))
    np.testing.assert_array_equal(made[1], made[0])
    kept = [json.loads((tmp_path / name / "media" / "content_vectors.json").read_text()) for name in ("one", "many")]
    assert kept[0] == kept[1]
