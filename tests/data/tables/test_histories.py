"""Interactions as tables: users' vectors by hand, units of time told apart, and what names nothing counted."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec

import semrec_faiss
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.check import check_data_folder
from semrec_faiss.data.folder.relation import ParquetRelation
from semrec_faiss.data.tables.arrow_relation import ArrowRelation
from semrec_faiss.data.tables.folder import import_folder
from semrec_faiss.data.tables.histories import HistoryWish, ImportedHistories
from semrec_faiss.data.tables.importing import TableWish
from semrec_faiss.data.tables.interactions import interactions as interactions_of
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DataError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import update_index
from semrec_faiss.search.recommender import Recommender

TITLES = np.array([[2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 5.0], [1, 1, 1, 1]], np.float32)
NOW = 1_600_000_000
ROWS: list[tuple[Any, ...]] = [
    ("ann", "a", 5.0, NOW),
    ("ann", "b", 3.0, NOW + 10),
    ("bob", "c", 5.0, NOW),
    ("bob", "gone", 5.0, NOW),
    ("cid", "gone", 4.0, NOW),
    ("dan", "d", 1.0, NOW),
    (None, "a", 5.0, NOW),
]


def titles(tmp_path: Path) -> Path:
    rows = pa.array(TITLES.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"sku": list("abcde"), "name": list("ABCDE"), "v": rows}), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def titles_alone(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"sku": list("abcde"), "name": list("ABCDE")}), tmp_path / "alone.parquet")
    return tmp_path / "alone.parquet"


def interactions(tmp_path: Path, times: Any = None, name: str = "i.parquet") -> Path:
    who, what, stars, when = zip(*ROWS, strict=True)
    when = pa.array(when) if times is None else times
    pq.write_table(pa.table({"customer": who, "sku": what, "rating": stars, "ts": when}), tmp_path / name)
    return tmp_path / name


def made(tmp_path: Path, source: Path, **wish: Any) -> ImportedHistories:
    found = import_folder(
        titles(tmp_path), tmp_path / "data", TableWish(), interactions=source, history=HistoryWish(**wish)
    ).histories
    assert found is not None
    return found


def test_users_are_means_of_what_they_liked_and_the_rest_is_counted(tmp_path: Path) -> None:
    found = made(tmp_path, interactions(tmp_path), profile=Profile())
    assert (found.users, found.interactions) == (4, 4)
    assert (found.unknown_items, found.unknown_rows, found.incomplete_rows) == (1, 2, 1)
    assert found.users_without_history == 2  # cid knows no title, dan's one star weighs nothing
    assert found.times is not None and (found.times.unit, found.times.first) == ("seconds", "2020-09-13")
    ids = json.loads((tmp_path / "data/users/user_ids.json").read_text())
    assert ids == ["ann", "bob", "cid", "dan"]
    seen = pq.read_table(tmp_path / "data/users/seen.parquet").to_pylist()
    assert {(row["user_id"], row["media_id"], row["rating"], row["timestamp"]) for row in seen} == {
        row for row in ROWS if row[0]
    }
    # Ratings 5 and 3 weigh (5 - 1) / 4 = 1 and (3 - 1) / 4 = 1/2 of unit vectors.
    ann, bob = np.array([2 / 3, 1 / 3, 0, 0]), np.array([0, 0, 1.0, 0])
    typical = (ann + bob) / 2
    vectors = np.load(tmp_path / "data/users/preference_vectors.npy")
    assert np.allclose(vectors, [ann, bob, typical, typical], atol=1e-6)


@pytest.mark.parametrize("titles", [5, 20_000])
def test_what_was_done_stays_in_its_order(tmp_path: Path, titles: int) -> None:
    """Once a fault: DuckDB's joins keep no order, so that of two ratings of a title the first one could count."""
    count, told = 30_000, "what they did"
    metadata = {"media_id": [f"t{one}" for one in range(titles)], "title": ["T"] * titles}
    pq.write_table(pa.table(metadata), tmp_path / "metadata.parquet")
    catalog, order = Catalog.read(tmp_path / "metadata.parquet"), np.arange(count)
    rows = pa.table({"user": [f"u{one % 7}" for one in order], "item": ["t3"] * count, "rating": order})
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=2_048)
    for source in (ParquetRelation(tmp_path / "rows.parquet"), ArrowRelation(told, rows)):
        for users, kept in ((None, order), (["u2", "u5"], order[np.isin(order % 7, (2, 5))])):
            with interactions_of(source, told, source.place, catalog, users, None) as found:
                found.write_seen(tmp_path / "seen.parquet")
                held = found.seen()
            assert held["rating"].to_pylist() == kept.tolist()
            assert pq.read_table(tmp_path / "seen.parquet").equals(held)


def test_what_was_done_last_counts_most(tmp_path: Path) -> None:
    made(tmp_path, interactions(tmp_path))
    ann = np.load(tmp_path / "data/users/preference_vectors.npy")[0]
    older = 0.5 ** (1 / 10)
    assert np.allclose(ann[:2], np.array([older, 0.5]) / (older + 0.5), atol=1e-6)


@pytest.mark.parametrize("asked", [None, Profile(), Profile(weights="liked", half_life=2.0)])
def test_users_come_before_the_titles_have_vectors(tmp_path: Path, asked: Profile | None) -> None:
    """A build makes their vectors, and the import has told how; so it is where somebody else has written the ids."""
    source = interactions(tmp_path)
    made(tmp_path, source, profile=asked)
    wish = TableWish(without_vectors=True), HistoryWish(profile=asked)
    later = import_folder(titles_alone(tmp_path), tmp_path / "later", wish[0], interactions=source, history=wish[1])
    assert later.histories is not None and later.histories.users == 4
    np.save(tmp_path / "later/media/content_vectors.npy", TITLES)
    report = check_data_folder(tmp_path / "later").users
    assert report is not None and (report.count, report.vectors, report.seen_total) == (4, None, 4)

    def vectors(folder: str) -> Any:
        build_index(config_from_dict({"dataset": str(tmp_path / folder), "output": str(tmp_path / f"of-{folder}")}))
        users = Recommender.open(tmp_path / f"of-{folder}").users
        assert users is not None and list(users.ids) == ["ann", "bob", "cid", "dan"]
        return users.vectors

    np.testing.assert_array_equal(vectors("later"), vectors("data"))
    if asked is None:
        (tmp_path / "later/users/profile.json").unlink()
        np.testing.assert_array_equal(vectors("later"), vectors("data"))


def test_users_of_whom_nothing_is_known_get_popular_titles(tmp_path: Path) -> None:
    made(tmp_path, interactions(tmp_path))
    build_index(config_from_dict({"dataset": str(tmp_path / "data"), "output": str(tmp_path / "index")}))
    recommender = Recommender.open(tmp_path / "index")
    ann, cid, dan = recommender.recommend(["ann", "cid", "dan"], 2)
    assert "d" not in [result.media_id for result in dan]
    assert cid.query == {"user_id": "cid", "popular": True} and len(cid) == 2
    assert ann.query["popular"] is False and ann[0].media_id == "e"


@pytest.mark.parametrize("from_memory", [False, True])
def test_what_was_done_with_titles_that_come_later_counts_then(from_memory: bool, tmp_path: Path) -> None:
    """Before, an import left such rows out, and those of titles that only the index that it was to update had."""
    index, change = tmp_path / "index", tmp_path / "change"
    if from_memory:
        rows = pq.read_table(interactions(tmp_path))
        semrec_faiss.build(metadata=pq.read_table(titles(tmp_path)), interactions=rows, output=index)
    else:
        made(tmp_path, interactions(tmp_path))
        build_index(config_from_dict({"dataset": str(tmp_path / "data"), "output": str(index)}))
    assert Recommender.open(index).recommend("cid", 1).query["popular"] is True
    vector = pa.array([[0, 0, 0, 1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"sku": ["gone"], "name": ["G"], "v": vector}), tmp_path / "g.parquet")
    who, what, stars, when = zip(("dan", "gone", 5.0, NOW + 9), ("eve", "a", 5.0, NOW), strict=True)
    done = pa.table({"customer": who, "sku": what, "rating": stars, "ts": when})
    pq.write_table(done, tmp_path / "more.parquet")
    found = import_folder(tmp_path / "g.parquet", change, TableWish(), interactions=tmp_path / "more.parquet").histories
    assert found is not None and (found.interactions, found.unknown_rows) == (1, 1)
    summary = update_index(index, Change(change))
    assert (summary.titles.new, summary.users.new, summary.seen) == (1, 1, 2)
    recommender = Recommender.open(index)
    lists = recommender.recommend(["bob", "cid", "dan", "eve"], 6)
    unseen = ["".join(sorted(one.media_id[0] for one in answer)) for answer in lists]
    assert unseen == ["abde", "abcde", "abce", "bcdeg"]
    assert "popular" not in lists[1].query and lists[1][0].media_id == "d", "as the one that cid likes"


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([NOW * 1000 + n for n in range(7)], "milliseconds"),
        ([NOW * 10**6 + n for n in range(7)], "microseconds"),
        ([NOW * 10**9 + n for n in range(7)], "nanoseconds"),
        ([float(NOW)] * 7, "seconds"),
        ([dt.date(2020, 9, 13)] * 7, "dates"),
        ([dt.datetime(2020, 9, 13, 12)] * 7, "dates"),
        (["2020-09-13T12:00:00+00:00"] * 7, "dates"),
        ([str(NOW)] * 7, "seconds"),
    ],
)
def test_units_of_time_are_told_apart_and_said(tmp_path: Path, times: list[Any], unit: str) -> None:
    found = made(tmp_path, interactions(tmp_path, pa.array(times)))
    assert found.times is not None and (found.times.unit, found.times.last) == (unit, "2020-09-13")
    kept = pq.read_table(tmp_path / "data/users/seen.parquet")["timestamp"].to_pylist()
    assert all(value // 86400 == NOW // 86400 for value in kept)


def test_times_of_two_units_or_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"i\.parquet: row 7 has the time 1600000000; as milliseconds since 1970 that is before 1973"
    ):
        made(tmp_path, interactions(tmp_path, pa.array([NOW * 1000] * 6 + [NOW])))
    with pytest.raises(DataError, match=r"i\.parquet: row 6 has no time, the first of 2 such rows"):
        made(tmp_path, interactions(tmp_path, pa.array([NOW] * 5 + [None] * 2)))
    with pytest.raises(DataError, match=r"i\.parquet: row 4 has the time 'soon'; every row"):
        made(tmp_path, interactions(tmp_path, pa.array([str(NOW)] * 3 + ["soon"] + [str(NOW)] * 3)))
    for odd in ("1.5", str(NOW), "infinity", "epoch"):  # seconds among dates were taken for such, and 1.5 for 2
        with pytest.raises(DataError, match=rf"row 2 has the time '?{odd}'?; .* or, in all rows, with its year first"):
            made(tmp_path, interactions(tmp_path, pa.array(["2020-01-31", odd, *["2020-01-31 12:00:00"] * 5])))
    with pytest.raises(DataError, match="outside 1970 to 2100"):
        made(tmp_path, interactions(tmp_path, pa.array([-5] * 7)))
    with pytest.raises(
        DataError, match=r"i\.parquet: row 1 has the time 1600000000000, the first of 7 .* outside .* as seconds, and"
    ):
        made(tmp_path, interactions(tmp_path, pa.array([NOW * 1000] * 7)), time_unit="s")
    for year in (1960, 2101):  # told of a file under a name that nobody gave
        with pytest.raises(
            DataError, match=rf"/i\.parquet: row 1 has the time '?{year}-.*; that is outside 1970 to 2100"
        ):
            made(tmp_path, interactions(tmp_path, pa.array([dt.date(year, 1, 1)] + [dt.date(2020, 1, 1)] * 6)))
    found = made(tmp_path, interactions(tmp_path, pa.array([NOW * 1000] * 6 + [NOW])), time_unit="ms")
    assert found.times is not None and found.times.first == "1970-01-19"


def test_csv_of_other_names_is_mapped_and_mistakes_are_told(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("wer,was,sterne\n01,a,5\n02,b,vier\n")
    with pytest.raises(UsageError, match="no column can be guessed for user; no column can be guessed for item"):
        made(tmp_path, tmp_path / "i.csv")
    wish = {"user": "wer", "item": "was", "rating": "sterne"}
    with pytest.raises(DataError, match=r"i\.csv: row 2 has the rating 'vier'; a number is expected"):
        made(tmp_path, tmp_path / "i.csv", columns=wish)
    (tmp_path / "i.csv").write_text("wer,was,sterne\n01,a,5\n02,b,1e300\n")
    with pytest.raises(DataError, match=r"i\.csv: row 2 has the rating 1e\+?300; a number that a float32 holds is"):
        made(tmp_path, tmp_path / "i.csv", columns=wish)
    assert made(tmp_path, tmp_path / "i.csv", columns=wish | {"rating": "-"}).users == 2
    assert json.loads((tmp_path / "data/users/user_ids.json").read_text()) == ["01", "02"]


def test_columns_are_guessed_whatever_stands_between_their_words_and_those_left_are_named(tmp_path: Path) -> None:
    names = ["User-ID", "Sku", "Time Stamp", "Book-Rating", *(f"more{one}" for one in range(6))]
    (tmp_path / "i.csv").write_text(",".join(names) + "\nu,a,1600000000,5,1,2,3,4,5,6\n")
    assert made(tmp_path, tmp_path / "i.csv").notes == (
        "user: column 'User-ID', by its name",
        "item: column 'Sku', by its name",
        "time: column 'Time Stamp', by its name",
        "columns that play no part: 'Book-Rating', 'more0', 'more1', 'more2', 'more3', …; --map PART=COLUMN gives one",
    )


def test_who_makes_users_of_ratings_is_told_what_these_are_taken_for(tmp_path: Path, semrec: Semrec) -> None:
    (tmp_path / "plays.csv").write_text("user,sku,rating\nu,a,1\nu,b,80\n")
    out = tmp_path / "data"
    asked = ("dataset", "import", titles(tmp_path), out, "--interactions", tmp_path / "plays.csv")
    told = "note: ratings go from 1 to 80, but weigh"
    assert told in semrec(*asked).err
    assert told not in semrec("build", "--dataset", out, "--output", tmp_path / "index").err, "it was told already"
    (out / "users/preference_vectors.npy").unlink()
    assert told in semrec("build", "--dataset", out, "--output", tmp_path / "index").err
    assert told not in semrec(*asked, "--overwrite", "--weights", "centred").err


@pytest.mark.parametrize("name", ["i.parquet", "i.csv", "i.jsonl"])
def test_items_are_found_under_the_name_that_the_titles_ids_have(tmp_path: Path, name: str) -> None:
    """Ids that look like numbers stay texts; of two columns that may be meant, this one is."""
    rows = pa.array(TITLES.tolist(), pa.list_(pa.float32()))
    ids = ["007", "b", "c", "d", "e"]
    pq.write_table(pa.table({"product_code": ids, "name": list("ABCDE"), "v": rows}), tmp_path / "t.parquet")
    done = pa.table({"user": ["u", "v"], "sku": ["x", "y"], "Product_Code": ["007", "c"]})
    if name.endswith("parquet"):
        pq.write_table(done, tmp_path / name)
    elif name.endswith("csv"):
        (tmp_path / name).write_text("user,sku,Product_Code\nu,x,007\nv,y,c\n")
    else:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in done.to_pylist()))
    wish = TableWish({"media_id": "product_code"})
    found = import_folder(tmp_path / "t.parquet", tmp_path / "data", wish, interactions=tmp_path / name).histories
    assert found is not None and (found.users, found.interactions, found.unknown_rows) == (2, 2, 0)
    assert "item: column 'Product_Code', by its name" in found.notes
    seen = pq.read_table(tmp_path / "data/users/seen.parquet").to_pylist()
    assert [(row["user_id"], row["media_id"]) for row in seen] == [("u", "007"), ("v", "c")]


def test_a_name_that_any_table_has_for_its_rows_is_no_item(tmp_path: Path) -> None:
    """Titles whose ids are called id: the ids of rows of interactions would silently be taken for some of them."""
    rows = pa.array(TITLES.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": range(5), "name": list("ABCDE"), "v": rows}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"id": [0, 1], "user": ["u", "v"], "what": [3, 4]}), tmp_path / "i.parquet")
    with pytest.raises(UsageError, match="no column can be guessed for item"):
        import_folder(tmp_path / "t.parquet", tmp_path / "data", TableWish(), interactions=tmp_path / "i.parquet")


def test_users_and_items_cannot_be_mapped_to_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no column '-' for item"):
        made(tmp_path, interactions(tmp_path), columns={"item": "-"})


def test_a_table_that_names_no_title_is_refused(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("user,item\nu,x\n")
    with pytest.raises(DataError, match="no row names a title; items look like 'x', titles' ids like 'a'") as caught:
        made(tmp_path, tmp_path / "i.csv")
    assert str(caught.value.fix).startswith("write ids as the titles have them, or map the column that holds these: ")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("users", "items", "part"), [([1, 2], ["01", "02"], "user"), (["01", "02"], [1, 2], "item")])
def test_ids_that_have_lost_their_zeros_are_to_be_read_as_texts(users: list[Any], items: list[Any], part: str) -> None:
    vectors = np.eye(2, dtype=np.float32)
    with pytest.raises(
        DataError, match=rf"{part}s look like '1', '2', .*ids like '01', '02'\nread .*in pandas: dtype=str$"
    ):
        Recommender.from_arrays(
            vectors,
            {"media_id": ["01", "02"], "title": ["A", "B"]},
            users={"01": vectors[0], "02": vectors[1]},
            interactions={"user": users, "item": items},
        )


def test_ids_that_became_floats_are_to_be_written_as_whole_numbers(tmp_path: Path, semrec: Semrec) -> None:
    (tmp_path / "t.csv").write_text("sku,name,vector\n10,A,1 2\n11,B,2 1\n")
    (tmp_path / "i.csv").write_text("user,sku\nu,10.0\nu,11.0\nu,\n")  # as pandas writes a column that lacks a value
    refused = semrec("dataset", "import", tmp_path / "t.csv", tmp_path / "d", "--interactions", tmp_path / "i.csv")
    assert "items look like '10.0', '11.0', titles' ids like '10', '11'\n" in refused.err
    assert (
        "fix: write these ids, which became floats, as whole numbers where the table is made; in pandas" in refused.err
    )


def test_users_come_with_vectors_of_their_own_from_the_command_line(tmp_path: Path, semrec: Semrec) -> None:
    """Ids keep their leading zeros; what others did is counted, and makes no users."""
    (tmp_path / "u.csv").write_text('customer,vector\n007,"[0, 0, 0, 1]"\nann,"[1, 0.5, 0, 0]"\n', encoding="utf-8")
    source, out = titles(tmp_path), tmp_path / "data"
    asked = ["dataset", "import", source, out, "--users", tmp_path / "u.csv", "--interactions", interactions(tmp_path)]
    told = semrec(*asked, "--json").document
    assert (told["users"], told["histories"]["interactions"], told["histories"]["incomplete_rows"]) == (2, 2, 5)
    told = semrec(*asked, "--overwrite").err
    assert "note: rows without a user or an item, or of users without a vector, which were left out: 5\n" in told
    build_index(config_from_dict({"dataset": str(out), "output": str(tmp_path / "index"), "device": "cpu"}))
    recommender = Recommender.open(tmp_path / "index")
    assert [one.media_id for one in recommender.recommend("007", 2)] == ["d", "e"]
    assert [one.media_id for one in recommender.recommend("ann", 2)] == ["e", "c"]  # has seen a and b
    wrong = tmp_path / "w.parquet"
    pq.write_table(pa.table({"user_id": ["x"], "vector": pa.array([[1.0, 2.0]], pa.list_(pa.float32()))}), wrong)
    for more, what in (
        (["--users", wrong], "the users' vectors have 2 dimensions, the titles' have 4"),
        (["--users", wrong, "--half-life", "3"], "--half-life makes users' vectors of what they did"),
        (["--users", tmp_path / "none.csv"], "there is no table"),
    ):
        asked = ["dataset", "import", source, tmp_path / "other", *more]
        refused = semrec(*asked)
        assert refused.code > 1 and what in refused.err, refused.err
        assert not (tmp_path / "other").exists()
