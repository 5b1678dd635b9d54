"""An index as an earlier version left it: without the files that came later, and without what its manifest lacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Semrec

from semrec_faiss import Recommender
from semrec_faiss.errors import UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index
from tests.index.update.living_worlds import DIM, begun

FIRST = ("index.faiss", "items.parquet", "users.npy", "users.parquet", "seen.parquet")
"""The files of the first format: no records, no look-ups, no columns."""

NO_COLUMNS = ("columns.arrow",)


def as_left(index: Path, names: tuple[str, ...]) -> None:
    """Publish the index with these files alone, as a version did that wrote no others."""
    directory = IndexDirectory(index)
    with directory.writing(), directory.new_generation() as new:
        before = directory.current()
        for name in names:
            new.link(before, name)
        later = {"generation": new.name, "files": new.files, "previous": new.previous, "semrec_version": "0.1.0"}
        directory.publish(new, before.manifest.model_copy(update=later | {"ignored_history": None, "embedding": None}))


def asked(index: Path) -> list[Any]:
    recommender = Recommender.open(index)
    queries = np.random.default_rng(1).normal(size=(4, DIM))
    answers = [
        *recommender.search(queries, 9),
        *recommender.search(queries, 9, where="year < 1985"),
        *recommender.recommend(["u1", "u2"], 9),
        recommender.similar("m00003", 5),
    ]
    return [(one.matching, [title.as_dict() for title in one]) for one in answers]


def test_an_index_without_later_files_opens_and_is_updated_once_it_was_built_again(
    tmp_path: Path, semrec: Semrec
) -> None:
    model, _ = begun(3)
    index = model.build(tmp_path / "first", {"type": "flat"})
    expected = asked(index)
    told = json.loads(semrec("info", index, "--json").out)["fields"]
    as_left(index, FIRST)
    verify(index)
    assert json.loads(semrec("info", index, "--json").out)["fields"] == told  # once null
    assert asked(index) == expected
    with pytest.raises(UsageError, match="was built by an earlier version of semrec and cannot be updated as it is"):
        update_index(index, Change(remove_titles=["m00001"]))
    model.build(tmp_path / "first", {"type": "flat"})
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    assert Recommender.open(index).index.count == 59


def test_an_index_without_columns_is_updated_and_compacted(tmp_path: Path) -> None:
    model, _ = begun(3)
    index = model.build(tmp_path / "first", {"type": "flat"})
    files = IndexDirectory(index).current().manifest.files
    as_left(index, tuple(name for name in files if name not in NO_COLUMNS))
    update_index(index, Change(remove_titles=["m00001"]), compact_at=None)
    model.remove(["m00001"], [])
    expected = asked(model.build(tmp_path / "rebuilt", {"type": "flat"}))
    assert asked(index) == expected
    compact_index(index)
    assert asked(index) == expected
    verify(index)
