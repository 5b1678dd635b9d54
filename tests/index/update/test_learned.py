"""An index of learned vectors takes new titles by their texts, and new users by what they have seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.interactions.folder import learn_folder
from semrec_faiss.data.interactions.hybrid import LearnSettings
from semrec_faiss.errors import DataError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import compact_index, update_index
from tests.index.update.living_worlds import begun, write_folder, write_seen

TEXT_DIM = 12
Learned = tuple[Path, list[str], Any]
"""An index of learned vectors, the titles' ids, and their texts' vectors, None where it was learned without."""


@pytest.fixture(params=["texts", "no texts"])
def learned(request: pytest.FixtureRequest, tmp_path: Path, make_folder: Callable[..., Any]) -> Learned:
    made = make_folder(tmp_path / "texts", titles=60, dim=TEXT_DIM)
    vectors = tmp_path / "texts/media/content_vectors.npy"
    texts = np.load(vectors)
    if request.param == "no texts":
        vectors.unlink()
        texts = None
    random = np.random.default_rng(1)
    rows = [
        (f"u{user}", made.media_ids[row], float(random.integers(6, 11)) / 2, int(random.integers(1, 999)))
        for user in range(30)
        for row in random.choice(50, 9, replace=False)
    ]
    write_seen(tmp_path / "seen.parquet", rows)
    settings = LearnSettings(rank=8, directions=5)
    learn_folder(tmp_path / "texts", tmp_path / "learned", settings, interactions=tmp_path / "seen.parquet")
    paths = {"dataset": str(tmp_path / "learned"), "output": str(tmp_path / "index"), "device": "cpu"}
    build_index(config_from_dict(paths | {"index": {"type": "flat", "normalize": False}}))
    return tmp_path / "index", made.media_ids, texts


def test_new_titles_get_vectors_of_their_texts_and_new_users_of_what_they_have_seen(
    learned: Learned, tmp_path: Path
) -> None:
    index, ids, texts = learned
    before = Recommender.open(index)
    held = before.index.vectors(np.arange(60))
    transformation = before.saved.transformation
    assert transformation is not None
    other = np.random.default_rng(7).normal(size=(5, TEXT_DIM)).astype(np.float32)
    # Two new ones; the first, which people have seen, and the last, which nobody has, with other texts; one as it was.
    named = ["new a", "new b", ids[0], ids[59], ids[1]]
    if texts is not None:
        other[4] = texts[1]
    titles = {media_id: ({"title": f"Title {media_id}"}, other[at]) for at, media_id in enumerate(named)}
    for at, record in zip((0, 59, 1), before.titles.records([0, 59, 1]), strict=True):
        known = {name: value for name, value in record.items() if name != "media_id"}
        titles[ids[at]] = (known, titles[ids[at]][1])
    rows = [("eve", "new a", 5.0, 5), ("adam", ids[3], 5.0, 5)]
    folder = write_folder(tmp_path / "change", titles, None, rows, with_vectors=texts is not None)
    (folder / "users/user_ids.json").write_text(json.dumps(["eve", "adam", "nobody yet"]))
    summary = update_index(index, Change(folder), compact_at=None)
    changed = 0 if texts is None else 2
    assert (summary.titles.new, summary.titles.changed, summary.titles.unchanged) == (2, changed, 3 - changed)
    assert (summary.users.new, summary.seen) == (3, 2)
    recommender = Recommender.open(index)

    def vector(media_id: str) -> Any:
        row = recommender.catalog.all_media_ids().tolist().index(media_id)
        return recommender.index.vectors([row])[0]

    cold = transformation.title_vectors(np.empty((5, 0)) if texts is None else other)
    for at in (0, 1):
        np.testing.assert_allclose(vector(named[at]), cold[at], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(vector(ids[0])[:8], held[0, :8])
    np.testing.assert_array_equal(vector(ids[1]), held[1])
    if texts is not None:
        np.testing.assert_allclose(vector(ids[0])[8:], cold[2, 8:], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(vector(ids[59]), cold[3], rtol=1e-5, atol=1e-6)
    users = recommender.users
    made = {user_id: users.vectors[users.rows_of([user_id])][0] for user_id in ("eve", "adam")}
    np.testing.assert_allclose(made["eve"], vector("new a"), rtol=1e-5, atol=1e-6)  # a mean of one title
    np.testing.assert_allclose(made["adam"], held[3], rtol=1e-5, atol=1e-6)
    assert recommender.recommend("nobody yet", 3).query["popular"]
    assert "new a" not in {title.media_id for title in recommender.recommend("eve", 60)}
    verify(index)
    asked = [one.as_dict()["results"] for one in recommender.recommend(["eve", "adam", "u1"], 9)]
    compact_index(index)
    again = Recommender.open(index)
    assert [one.as_dict()["results"] for one in again.recommend(["eve", "adam", "u1"], 9)] == asked
    assert SavedIndex(index).transformation is not None


def test_vectors_of_neither_kind_and_users_that_nothing_makes_are_refused(learned: Learned, tmp_path: Path) -> None:
    index, _, _ = learned
    folder = write_folder(tmp_path / "change", {"new": ({"title": "New"}, np.ones(7, np.float32))})
    with pytest.raises(DataError, match="7 dimensions, but"):
        update_index(index, Change(folder))
    dim = SavedIndex(index).generation.manifest.dim
    finished = write_folder(folder, {"new": ({"title": "New"}, np.full(dim, 0.5, np.float32))})
    update_index(index, Change(finished), compact_at=None)
    assert (Recommender.open(index).index.vectors([60]) == 0.5).all()
    plain = begun(3)[0].build(tmp_path / "plain", {"type": "flat"})
    ids = write_folder(tmp_path / "change", {})
    (ids / "users").mkdir()
    (ids / "users/user_ids.json").write_text(json.dumps(["eve"]))
    with pytest.raises(DataError, match="users without vectors, and the index does not make them"):
        update_index(plain, Change(ids))
