"""A shard that is whole is taken by a build of the same, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_data_folder

from semrec_faiss.cluster.publish.building import _build_one
from semrec_faiss.cluster.publish.kept import digest_beside
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.config.schema import Config
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.index.build.source import TitleRange
from semrec_faiss.index.generations.directory import IndexDirectory


class Shard:
    """The titles 5 to 24 of a data folder, as a worker builds them."""

    def __init__(self, root: Path) -> None:
        make_data_folder(root / "data", titles=30, dim=4, users=3)
        catalog = Catalog.read(root / "data" / "media" / "metadata.jsonl", expect_count=30)
        self.fields = dict(catalog.fields)
        self.media, self.folder = root / "data" / "media", root / "index" / "shards" / "gen-000001" / "00001"
        self.range = (5, 25)
        self.settings = {
            "dataset": str(root / "data"),
            "output": str(self.folder),
            "index": {"type": "flat"},
            "device": "cpu",
        }

    def build(self) -> bool:
        """Build it, and tell whether it was taken as it was."""
        config: Config = config_from_dict(self.settings)
        ref, kept = _build_one(config, TitleRange(*self.range, self.fields), digest_beside(config.dataset))
        generation = IndexDirectory(self.folder).current()
        generation.check_all()
        assert (ref, generation.manifest.count) == (generation.ref, self.range[1] - self.range[0])
        assert generation.name == "gen-000001", "nothing of the one before is left"
        return kept

    def change_vector(self, row: int) -> None:
        vectors = np.load(self.media / "content_vectors.npy")
        vectors[row, 0] += 1
        np.save(self.media / "content_vectors.npy", vectors)

    def change_title(self) -> None:
        path = self.media / "metadata.jsonl"
        path.write_text(path.read_text("utf-8").replace("Film 1 ", "Another film ", 1), "utf-8")

    def change_settings(self) -> None:
        self.settings["index"] = {"type": "hnsw"}

    def change_range(self) -> None:
        self.range = (6, 25)

    def damage(self) -> None:
        path = self.folder / "gen-000001" / "index.faiss"
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    def lose_its_pointer(self) -> None:
        (self.folder / "CURRENT").unlink()

    def lose_its_record(self) -> None:
        self.folder.with_name("00001.json").write_text("{")


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path)


def test_a_whole_shard_is_taken_by_the_same_build(shard: Shard) -> None:
    assert not shard.build()
    made = (shard.folder / "gen-000001" / "MANIFEST.json").stat().st_ino
    assert shard.build()
    shard.change_vector(25)  # of another shard
    assert shard.build()
    assert (shard.folder / "gen-000001" / "MANIFEST.json").stat().st_ino == made


@pytest.mark.parametrize(
    "change",
    [
        lambda shard: shard.change_vector(24),
        Shard.change_title,
        Shard.change_settings,
        Shard.change_range,
        Shard.damage,
        Shard.lose_its_pointer,
        Shard.lose_its_record,
    ],
    ids=["vector", "title", "settings", "range", "damaged", "no pointer", "no record"],
)
def test_another_build_or_one_that_is_not_whole_is_begun_anew(shard: Shard, change: Callable[[Shard], None]) -> None:
    shard.build()
    change(shard)
    assert not shard.build()
    assert shard.build()
