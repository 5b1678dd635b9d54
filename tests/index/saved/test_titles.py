"""An index that an earlier version wrote has no records and no look-up, and answers as one that has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import NotFoundError
from semrec_faiss.index.build import run as build
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.saved import users as saved_users
from semrec_faiss.index.saved.titles import ITEMS_NAME
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.search.recommender import Recommender


def write_items_alone(new: NewGeneration, catalog: Any) -> None:
    catalog.write_parquet(new.folder / ITEMS_NAME)
    new.adopt(ITEMS_NAME)


def answers(path: Path) -> list[Any]:
    recommender = Recommender.open(path, "device.kind=cpu")
    found = [
        recommender.similar("m00007", 5, where="year > 1950"),
        recommender.similar("film 7", 3),
        *recommender.recommend(["user_002", "user_001"], 4),
    ]
    with pytest.raises(NotFoundError, match="'nobody'"):
        recommender.recommend(["user_001", "nobody"])
    documents = [answer.as_dict() for answer in found]
    for document in documents:
        del document["elapsed_ms"]
    return [documents, found[0].to_arrow().to_pylist(), [answer.as_json_bytes()[:20] for answer in found]]


def test_an_index_without_records_answers_as_one_with_them(
    tmp_path: Path, make_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "data", titles=60, dim=12, users=4, seed=1)
    for name in ("new", "old"):
        if name == "old":
            monkeypatch.setattr(build, "write_titles", write_items_alone)
            monkeypatch.setattr(saved_users, "write_texts", lambda *_: None)
        build.build_index(config_from_dict({"dataset": str(folder.root), "output": str(tmp_path / name)}))
    names = {path.name for path in (tmp_path / "old" / "gen-000001").iterdir()}
    assert not {"records.jsonl", "fields.json", "user_ids.lookup"} & names
    assert answers(tmp_path / "old") == answers(tmp_path / "new")
    assert verify(tmp_path / "old").name == "gen-000001"
