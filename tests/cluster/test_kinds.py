"""Other kinds of index in shards: approximate types that look everywhere, learned vectors by their blocks, texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_data_folder

from semrec_faiss import Recommender
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.interactions.folder import learn_folder
from semrec_faiss.data.interactions.hybrid import LearnSettings
from semrec_faiss.data.text.embed import embed_folder
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search import text as text_module
from tests.cluster import worlds
from tests.cluster.worlds import World

EVERY_LIST = {"type": "ivf_flat", "build": {"nlist": 4}, "search": {"nprobe": 4}}


def test_type_fused_answers_as_in_one_piece_bit_for_bit(cluster: Any, world: World, tmp_path: Path) -> None:
    made = make_data_folder(tmp_path / "data", titles=120, dim=32, users=9)
    config = world.config | {"dataset": str(made.root), "index": {"type": "fused"}}
    build_index(config_from_dict(config | {"output": str(tmp_path / "whole")}))
    build_shards(config_from_dict(config | {"output": str(tmp_path / "index")}), 2)
    whole = Recommender.open(tmp_path / "whole")
    with ClusterRecommender.open(tmp_path / "index") as sharded:
        for wish in ({}, {"where": "year < 1980"}, {"include_seen": True}):
            expected, found = (one.recommend(made.user_ids, 10, **wish) for one in (whole, sharded))
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.filterwarnings("ignore:.*few to train")
@pytest.mark.parametrize("settings", [EVERY_LIST, {"type": "fused"}], ids=lambda one: one["type"])
def test_types_that_compare_every_title_answer_as_flat(
    cluster: Any, world: World, tmp_path: Path, settings: dict[str, Any]
) -> None:
    made = make_data_folder(tmp_path / "data", titles=120, dim=32, users=9)
    config = world.config | {"dataset": str(made.root)}
    build_index(config_from_dict(config | {"output": str(tmp_path / "whole")}))
    build_shards(config_from_dict(config | {"index": settings, "output": str(tmp_path / "index")}), 2)
    whole = Recommender.open(tmp_path / "whole")
    with ClusterRecommender.open(tmp_path / "index") as sharded:
        for wish in ({}, {"where": "year < 1980"}):
            expected, found = (one.recommend(made.user_ids, 10, **wish) for one in (whole, sharded))
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_learned_vectors_and_texts_are_asked_as_in_one_piece(
    cluster: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "texts" / "media"
    folder.mkdir(parents=True)
    (folder / "metadata.jsonl").write_bytes((world.made.root / "media" / "metadata.jsonl").read_bytes())
    embed_folder(tmp_path / "texts", model="somebody/fake", batch_size=4, load=worlds.load_fake)
    monkeypatch.setattr(text_module, "load_encoder", lambda *_, **__: worlds.FakeEncoder(4))
    learn_folder(world.made.root, tmp_path / "learned", LearnSettings(rank=6, directions=4))
    for name, questions in (
        ("learned", [lambda one, by=by: one.similar("m00010", 9, by=by) for by in ("people", "text", "whole")]),
        ("texts", [lambda one: one.search_text("a film of trains", 9, where="year > 1960")]),
    ):
        own = {"normalize": name == "texts", "type": "flat"}
        config = world.config | {"dataset": str(tmp_path / name), "index": own}
        build_index(config_from_dict(config | {"output": str(tmp_path / f"{name}-whole")}))
        build_shards(config_from_dict(config | {"output": str(tmp_path / f"{name}-shards")}), 2)
        whole = Recommender.open(tmp_path / f"{name}-whole")
        with ClusterRecommender.open(tmp_path / f"{name}-shards") as sharded:
            for question in questions:
                expected, found = question(whole), question(sharded)
                np.testing.assert_array_equal(found.rows, expected.rows)
                np.testing.assert_array_equal(found.scores, expected.scores)
