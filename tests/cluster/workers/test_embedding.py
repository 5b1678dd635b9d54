"""Vectors of texts by workers: those of one machine, whatever worker is killed; what is finished stays."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss import UnavailableError
from semrec_faiss.cluster.workers import blocks
from semrec_faiss.cluster.workers.embedding import ClusterEncoder, encoders_of
from semrec_faiss.data.text.embed import embed_folder
from tests.cluster import worlds
from tests.cluster.worlds import World


def test_workers_make_the_vectors_of_one_machine_and_go_on_later(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for name in ("one", "many"):
        folder = tmp_path / name / "media"
        folder.mkdir(parents=True)
        (folder / "metadata.jsonl").write_bytes((world.made.root / "media" / "metadata.jsonl").read_bytes())
    embed_folder(tmp_path / "one", model="fake", batch_size=4, load=worlds.load_fake)
    made.append(np.load(tmp_path / "one" / "media" / "content_vectors.npy"))
    many = partial(embed_folder, tmp_path / "many", model="fake", batch_size=4, block_rows=100)
    monkeypatch.setattr(blocks, "ATTEMPTS", 2)
    lost = pytest.raises(UnavailableError, match="2 workers were lost over the same block of work")
    with lost, encoders_of("auto", workers=2, load=worlds.LoadMortal("Film 230 (1970)")) as everywhere:
        many(load=everywhere)
    dies = tmp_path / "dies"
    dies.touch()
    with encoders_of("auto", workers=2, load=worlds.LoadMortal("Film 250 (1990)", str(dies))) as everywhere:
        report = many(load=everywhere)
    assert not dies.exists(), "a worker was killed meanwhile"
    assert (report.device, report.titles, report.resumed) == ("2 workers with a CPU each", 301, 200)
    made.append(np.load(tmp_path / "many" / "media" / "content_vectors.npy"))
    np.testing.assert_array_equal(made[1], made[0])
    kept = [json.loads((tmp_path / name / "media" / "content_vectors.json").read_text()) for name in ("one", "many")]
    assert kept[0] == kept[1]


def test_every_worker_has_as_many_texts() -> None:
    given: list[int] = []

    class Recorder:
        def done(self, blocks: Any) -> Any:
            given.extend(len(texts) for _, texts in blocks)
            return ((block, np.full((len(block[1]), 2), block[0])) for block in reversed(blocks))

    encoder = ClusterEncoder(Recorder(), 8, True, 512)
    found = encoder.encode([""] * 2048)
    assert given == [256] * 8
    assert found[:, 0].tolist() == np.repeat(np.arange(8) * 256, 256).tolist()
