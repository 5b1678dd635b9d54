"""An index from Python: numpy, pandas, polars and Arrow, on disk or for now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import semrec_faiss
from semrec_faiss import DataError, Recommender, UsageError

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

COUNT = 40
VECTORS = np.random.default_rng(3).normal(size=(COUNT, 6)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
SONGS = {"sku": [f"s{n:02d}" for n in range(COUNT)], "name": [f"Song {n}" for n in range(COUNT)]}


def nearest(query: np.ndarray, leave_out: set[int], k: int) -> list[str]:
    order = np.argsort(-(UNIT @ query), kind="stable")
    return [f"s{n:02d}" for n in order if n not in leave_out][:k]


@pytest.mark.parametrize(
    ("vectors", "metadata"),
    [
        (VECTORS, SONGS),
        (VECTORS.astype(np.float64), pd.DataFrame(SONGS)),
        (VECTORS, pl.DataFrame(SONGS)),
        (pd.DataFrame(VECTORS), pa.table(SONGS)),
        (None, pl.DataFrame({**SONGS, "embedding": VECTORS})),
        (None, pd.DataFrame({**SONGS, "embedding": list(VECTORS)})),
        (VECTORS, [{"sku": sku, "name": name} for sku, name in zip(*SONGS.values(), strict=True)]),
    ],
    ids=["dict", "pandas", "polars", "frame of numbers", "polars with vectors", "pandas with vectors", "records"],
)
def test_whatever_holds_the_titles_gives_the_same_answers(vectors: Any, metadata: Any) -> None:
    recommender = Recommender.from_arrays(vectors, metadata)
    found = [title.media_id for title in recommender.similar("Song 7", 5)]
    assert found == nearest(UNIT[7], {7}, 5)


def test_build_publishes_and_remembers_no_folder_that_is_gone(tmp_path: Path) -> None:
    plays = pd.DataFrame({"customer": ["u", "u", "v"], "item": ["s01", "s02", "nothing"]})
    built = semrec_faiss.build(
        VECTORS, SONGS, interactions=plays, columns={"user": "customer"}, config="ivf_flat", output=tmp_path / "i"
    )
    assert built.index.config.type == "ivf_flat" and built.saved.config.dataset.folder is None
    taste = UNIT[1] + UNIT[2]
    opened = Recommender.open(tmp_path / "i", ["index.search.nprobe=1000"])
    assert [title.media_id for title in opened.recommend("u", 3)] == nearest(taste, {1, 2}, 3)
    assert opened.recommend("v", 2).query["popular"] is True


def test_users_that_come_with_vectors_keep_them() -> None:
    users = {"u": VECTORS[5], "v": VECTORS[9]}
    plays = {"user": ["u", "stranger"], "item": ["s05", "s06"]}
    recommender = Recommender.from_arrays(VECTORS, SONGS, users=users, interactions=plays)
    assert [title.media_id for title in recommender.recommend("u", 4)] == nearest(UNIT[5], {5}, 4)
    assert [title.media_id for title in recommender.recommend("v", 4)] == nearest(UNIT[9], set(), 4)
    frame = pl.DataFrame({"user_id": ["u", "v"], "vector": VECTORS[[5, 9]]})
    again = Recommender.from_arrays(VECTORS, SONGS, users=frame)
    assert [title.media_id for title in again.recommend("v", 4)] == nearest(UNIT[9], set(), 4)


def test_an_index_for_now_goes_with_its_object() -> None:
    recommender = Recommender.from_arrays(VECTORS)
    folder = recommender.saved.generation.folder.parent
    assert folder.is_dir() and recommender.similar("row_3", 1)[0].title.startswith("Vector ")
    del recommender
    assert not folder.exists()


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(UsageError, match="there are 40 vectors, but 39 rows of metadata"):
        Recommender.from_arrays(VECTORS, pd.DataFrame(SONGS).head(39))
    with pytest.raises(UsageError, match="floats of shape"):
        Recommender.from_arrays(np.arange(6).reshape(2, 3))
    with pytest.raises(UsageError, match="a table is expected"):
        Recommender.from_arrays(VECTORS, 7)
    with pytest.raises(UsageError, match="config is int"):
        Recommender.from_arrays(VECTORS, config=7)
    wrong = VECTORS.copy()
    wrong[3] = 0
    with pytest.raises(DataError, match="the titles: row 4, column vector: is all zero"):
        Recommender.from_arrays(wrong)


def test_public_names_are_there() -> None:
    for name in semrec_faiss.__all__:
        assert getattr(semrec_faiss, name) is not None
    assert {"build", "Recommender", "DataError", "NotFoundError", "load_config"} <= set(semrec_faiss.__all__)
