"""An index from Python: numpy, pandas, polars and Arrow, on disk or for now."""

from __future__ import annotations

import gc
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import semrec_faiss
from semrec_faiss import DataError, Recommender, SemrecError, UsageError
from semrec_faiss.index.generations.held_files import HeldFiles

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

COUNT = 40
VECTORS = np.random.default_rng(3).normal(size=(COUNT, 6)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
IVF_PQ = {"type": "ivf_pq", "build": {"nlist": 2, "M": 2, "nbits": 4}}
SONGS = {"sku": [f"s{n:02d}" for n in range(COUNT)], "name": [f"Song {n}" for n in range(COUNT)]}


def nearest(query: np.ndarray, leave_out: set[int], k: int) -> list[str]:
    order = np.argsort(-(UNIT @ query), kind="stable")
    return [f"s{n:02d}" for n in order if n not in leave_out][:k]


@pytest.mark.parametrize(
    ("vectors", "metadata"),
    [
        (VECTORS, SONGS),
        (VECTORS.astype(np.float64), pd.DataFrame(SONGS)),
        (VECTORS, pd.DataFrame(SONGS).set_index("sku")),
        (VECTORS, pl.DataFrame(SONGS)),
        (pd.DataFrame(VECTORS, index=pd.Index(range(COUNT), name="sku")), SONGS),
        (pd.DataFrame(VECTORS), pa.table(SONGS)),
        (pd.DataFrame({"embedding": list(VECTORS)}), SONGS),
        (pd.DataFrame({"embedding": list(VECTORS)})["embedding"], pd.DataFrame(SONGS)),
        (pd.Series(list(VECTORS), index=[9] * COUNT).to_numpy(), SONGS),
        (pl.Series(VECTORS.tolist()), SONGS),
        (pl.Series(VECTORS), SONGS),
        (pa.array(VECTORS.tolist(), pa.list_(pa.float32())), SONGS),
        (None, {**SONGS, "embedding": pl.Series(VECTORS)}),
        (None, pl.DataFrame({**SONGS, "embedding": VECTORS})),
        (None, pd.DataFrame({**SONGS, "embedding": list(VECTORS)})),
        (VECTORS, [{"sku": sku, "name": name} for sku, name in zip(*SONGS.values(), strict=True)]),
    ],
    ids=[
        *(
            "dict",
            "pandas",
            "ids as index",
            "polars",
            "frame of numbers with an index",
            "frame of numbers",
            "frame of vectors",
            "pandas series",
            "array of arrays",
        ),
        *("polars series", "polars series of arrays", "arrow", "dict with a series", "polars with vectors"),
        *("pandas with vectors", "records"),
    ],
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


@pytest.mark.parametrize("columns", [{"media_id": "product_code"}, {}])
def test_items_are_found_under_the_name_that_the_titles_ids_have(columns: dict[str, str], tmp_path: Path) -> None:
    """As it is named, in the table or by the config's fields."""
    titles = {"product_code": SONGS["sku"], "name": SONGS["name"]}
    plays = {"user": ["u", "u"], "product_code": ["s01", "s02"]}
    config: dict[str, Any] = {} if columns else {"dataset": {"fields": {"media_id": "product_code"}}}
    recommender = Recommender.from_arrays(VECTORS, titles, interactions=plays, columns=columns, config=config)
    found = [title.media_id for title in recommender.recommend("u", 3)]
    assert found == nearest(UNIT[1] + UNIT[2], {1, 2}, 3)


def test_users_that_come_with_vectors_keep_them() -> None:
    users = {"u": VECTORS[5], "v": VECTORS[9]}
    plays = {"user": ["u", "stranger"], "item": ["s05", "s06"]}
    recommender = Recommender.from_arrays(VECTORS, SONGS, users=users, interactions=plays)
    assert [title.media_id for title in recommender.recommend("u", 4)] == nearest(UNIT[5], {5}, 4)
    assert [title.media_id for title in recommender.recommend("v", 4)] == nearest(UNIT[9], set(), 4)
    frame = pl.DataFrame({"user_id": ["u", "v"], "vector": VECTORS[[5, 9]]})
    again = Recommender.from_arrays(VECTORS, SONGS, users=frame)
    assert [title.media_id for title in again.recommend("v", 4)] == nearest(UNIT[9], set(), 4)


def files_written(work: Callable[[], object]) -> list[str]:
    """Return the paths that Python opens for writing, and the folders that it makes, while ``work`` runs."""
    told: list[str] = []

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.mkdir", "tempfile.mkdtemp", "tempfile.mkstemp", "shutil.copyfile") or (
            event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            told.append(str(arguments[0]))

    listening.append(listen)
    try:
        work()
    finally:
        listening.remove(listen)
    return told


listening: list[Callable[[str, tuple[Any, ...]], None]] = []
sys.addaudithook(lambda event, arguments: [listen(event, arguments) for listen in listening] and None)

PLAYS = {
    "user": ["eve", "eve", "adam"],
    "item": ["s01", "s02", "s03"],
    "when": [1_700_000_003, 1_700_000_001, 1_700_000_002],
}


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no anonymous memory on this system")
@pytest.mark.parametrize("config", ["flat", "ivf_pq", "hnsw"])
def test_an_index_for_now_is_in_memory_and_in_no_folder(config: str) -> None:
    table = {"index": {"type": config}} if config != "ivf_pq" else {"index": IVF_PQ}
    made: list[Recommender] = []
    told = files_written(lambda: made.append(Recommender.from_arrays(VECTORS, SONGS, interactions=PLAYS, config=table)))
    assert told and all(path.startswith("/proc/self/fd/") for path in told)
    held = made[0].saved.generation.file("index.faiss")
    assert str(held.readlink()) == "/memfd:index.faiss (deleted)"
    assert len(made[0].recommend("eve", 4)) == 4 and made[0].refresh() is False
    made.clear()
    gc.collect()
    assert not held.is_symlink() or "memfd" not in str(held.readlink())


def test_an_index_for_now_is_neither_updated_nor_pickled_and_may_be_forked() -> None:
    recommender = Recommender.from_arrays(VECTORS, SONGS)
    with pytest.raises(UsageError, match="in memory cannot be updated"):
        recommender.update(remove_titles="s01")
    with pytest.raises(UsageError, match="in memory cannot be pickled"):
        pickle.dumps(recommender)
    child = os.fork()
    if child == 0:
        found = [title.media_id for title in recommender.similar("Song 7", 5, where="title <> 'Song 8'")]
        os._exit(0 if found == nearest(UNIT[7], {7, 8}, 5) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_where_there_is_no_such_memory_a_folder_goes_with_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeldFiles, "can_create", staticmethod(lambda: False))
    recommender = Recommender.from_arrays(VECTORS)
    folder = recommender.saved.generation.folder.parent
    assert folder.is_dir() and recommender.similar("row_3", 1)[0].title.startswith("Vector ")
    with pytest.raises(UsageError, match="cannot be updated"):
        recommender.update(remove_titles="row_3")
    del recommender
    gc.collect()
    assert not folder.exists()


def test_a_build_writes_nothing_but_its_output(tmp_path: Path) -> None:
    told = files_written(
        lambda: semrec_faiss.build(VECTORS, SONGS, users={"eve": VECTORS[5]}, interactions=PLAYS, output=tmp_path / "i")
    )
    assert told and all(path.startswith((str(tmp_path), "/proc/self/fd")) for path in told)


def test_histories_of_strangers_alone_are_refused_by_what_is_wrong() -> None:
    with pytest.raises(DataError, match="names one of the users; users look like 'adam', 'eve', users' ids like 'u'"):
        Recommender.from_arrays(VECTORS, SONGS, users={"u": VECTORS[5]}, interactions=PLAYS)


def test_tables_in_files_are_taken_too(tmp_path: Path) -> None:
    pl.DataFrame(SONGS).write_csv(tmp_path / "songs.csv")
    both = {**SONGS, "one": list(VECTORS), "other": list(-VECTORS[::-1])}
    pd.DataFrame(both).to_parquet(tmp_path / "songs.parquet")
    expected = nearest(UNIT[7], {7}, 3)
    by_name = Recommender.from_arrays(VECTORS, tmp_path / "songs.csv")
    assert [title.media_id for title in by_name.similar("Song 7", 3)] == expected
    named = Recommender.from_arrays(metadata=tmp_path / "songs.parquet", columns={"vector": "one"})
    assert [title.media_id for title in named.similar("Song 7", 3)] == expected


@pytest.mark.parametrize(
    ("arguments", "says", "fix"),
    [
        ({"columns": {"titel": "name"}}, "'titel', which is not a part; did you mean 'title'", "parts are media_id"),
        (
            {"columns": {"sku": "media_id"}},
            "'sku', which is not a part, but 'media_id' is one",
            "the part first: columns={'media_id': 'sku'}",
        ),
        ({"metadata": {"a": ["x"] * COUNT}}, "no column can be guessed", '{"media_id": "COLUMN", "title": "COLUMN"}'),
        (
            {"metadata": {**SONGS, "genres": range(COUNT)}},
            "a list of texts is expected",
            'columns={"genres": "COLUMN"}',
        ),
        (
            {"columns": {"title": "nmae"}},
            "no column 'nmae' for title (did you mean 'name'",
            'columns={"title": "COLUMN"}',
        ),
        ({"columns": {"vector": "name"}}, "the vectors are given, and column 'name'", "one of the two"),
        ({"vectors": None}, "no column of lists or tensors", "give vectors=, a row for each title"),
        (
            {"metadata": {**SONGS, "Embedding": list(VECTORS)}},
            "vectors in the column 'Embedding', and vectors= is given",
            "leave out the column, or vectors=; under another name",
        ),
        (
            {"interactions": {"u": ["a"]}},
            "guessed for user; no column can be",
            'columns={"user": "COLUMN", "item": "COLUMN"}',
        ),
        ({"interactions": {"user": ["a"], "id": ["s01"]}}, "guessed for item; its", 'columns={"item": "COLUMN"}'),
        ({"interactions": {"user": ["a"], "item": ["s01"], "time": [5]}}, "looks like several", "give datetimes, or"),
        ({"interactions": {"user": pa.array([], "str"), "item": pa.array([], "str")}}, "has no rows", "leave the"),
        ({"interactions": {"user": ["a"], "item": ["s01"], "rating": [1]}}, "nobody likes", 'columns={"rating": "-"}'),
        (
            {"users": {"user": ["a", "b", "a"], "vector": VECTORS[:3]}},
            "[2], column user: 'a' is also at [0]",
            "mend",
        ),
    ],
)
def test_what_is_wrong_is_told_in_words_of_python(arguments: dict[str, Any], says: str, fix: str) -> None:
    with pytest.raises(SemrecError) as told:
        Recommender.from_arrays(**{"vectors": VECTORS, "metadata": SONGS, **arguments})
    assert says in told.value.message and fix in str(told.value.fix) and "--" not in str(told.value)


def test_a_field_of_numbers_is_no_vector() -> None:
    places = [[float(n), 0.5] for n in range(COUNT)]
    made = Recommender.from_arrays(VECTORS, {**SONGS, "place": places})
    assert made.similar("s03", k=1)[0].as_dict()["place"] == places[int(nearest(UNIT[3], {3}, 1)[0][1:])]


def test_what_nobody_likes_is_a_matter_of_the_configs_profile() -> None:
    plays = {"user": ["a", "a", "b"], "item": ["s01", "s02", "s03"], "rating": [1, 1, 1]}
    made = Recommender.from_arrays(
        VECTORS, SONGS, interactions=plays, config={"profile": {"weights": "liked", "liked": 1}}
    )
    assert [title.media_id for title in made.recommend("b", 2)] == nearest(UNIT[3], {3}, 2)


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
    with pytest.raises(DataError, match=r"the titles\[3\], column vector: is all zero"):
        Recommender.from_arrays(wrong)


def test_a_frame_of_titles_and_vectors_is_metadata() -> None:
    """Once a fault: given alone, it was told as an array of objects of a shape that nobody had made."""
    frame = pd.DataFrame(SONGS).assign(emb=list(VECTORS))
    with pytest.raises(UsageError, match=r"vectors is a frame whose column '.*' has type .*; numbers alone") as caught:
        Recommender.from_arrays(frame)
    assert str(caught.value.fix).startswith("give the frame as metadata=")
    assert len(Recommender.from_arrays(metadata=frame).similar("s01", 2)) == 2


def test_public_names_are_there() -> None:
    """Once dir() had none that was not used yet, so that notebooks completed nothing."""
    for name in semrec_faiss.__all__:
        assert getattr(semrec_faiss, name) is not None
    assert dir(semrec_faiss) == sorted(semrec_faiss.__all__)
    assert {"build", "Recommender", "DataError", "NotFoundError", "load_config"} <= set(semrec_faiss.__all__)
