"""User ids and what users have seen are read exactly, or refused with positions, counts and examples."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.folder.database import session
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import read_history, read_seen, read_user_ids
from semrec_faiss.errors import DataError, NotFoundError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import verify

# Ids


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "user_ids.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_user_ids(path, **options)
    return caught.value.message


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("wrap", [lambda ids: ids, lambda ids: {"user_ids": ids, "made": "2026"}])
def test_a_list_or_an_object_is_read(tmp_path: Path, wrap: Any, start: bytes) -> None:
    path = written(tmp_path, start + json.dumps(wrap(["b", 7, "a 😀", -1])).encode())
    assert read_user_ids(path, expect_count=4) == ["b", "7", "a 😀", "-1"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('["a",\n "b"', ":2: not JSON: Expecting ',' delimiter at column 5"),
        ("", ":1: not JSON: Expecting value at column 1"),
        (b'["\xff"]', ": not JSON in UTF-8: 'utf-8' codec can't decode byte 0xff"),
        ("[" * 100_000, ": not JSON in UTF-8: maximum recursion depth"),
        ("[1" + "0" * 5000 + "]", ": not JSON in UTF-8: Exceeds the limit"),
        ('"a"', " holds no list of user ids"),
        ('{"ids": ["a"]}', " holds no list of user ids"),
        ('{"user_ids": {"a": 1}}', " holds no list of user ids"),
        ("[]", " holds an empty list of user ids"),
        ('["a", ""]', ": unusable user ids: 1\n[1]: '' is no id; a non-empty string or an integer"),
        ('[" "]', ": unusable user ids: 1\n[0]: ' ' is no id"),
        ('["a", null]', ": unusable user ids: 1\n[1]: None is no id"),
        ("[1, true]", ": unusable user ids: 1\n[1]: True is no id"),
        ("[1.5]", ": unusable user ids: 1\n[0]: 1.5 is no id"),
        ('[["a"]]', ": unusable user ids: 1\n[0]: ['a'] is no id"),
        ('["\\ud800"]', ": unusable user ids: 1\n[0]: '\\ud800' holds half of a surrogate pair"),
        ('["a", "b", "a"]', ": unusable user ids: 1\n[2]: 'a' is also at [0]"),
        ('["1", 1]', ": unusable user ids: 1\n[1]: 1 is also at [0]"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: str | bytes, problem: str) -> None:
    path = written(tmp_path, content)
    assert error_of(path).startswith(f"{path}{problem}")


def test_ten_mistakes_are_told_at_once(tmp_path: Path) -> None:
    lines = error_of(written(tmp_path, json.dumps(["a"] * 26))).splitlines()
    assert lines[0].endswith(": unusable user ids: 25")
    assert lines[1:11] == [f"[{position}]: 'a' is also at [0]" for position in range(1, 11)]
    assert lines[11:] == ["… and 15 more"]


def test_a_count_that_differs_names_both_files(tmp_path: Path) -> None:
    path = written(tmp_path, '["a", "b"]')
    vectors = tmp_path / "preference_vectors.npy"
    assert error_of(path, expect_count=1000) == f"{path} has 2 user ids, but there are 1,000 vectors in {vectors}"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert "cannot read the user ids" in error_of(tmp_path / "user_ids.json")
    assert "cannot read the user ids" in error_of(tmp_path)


# Seen titles


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = tmp_path_factory.mktemp("catalog") / "metadata.jsonl"
    # Rows run against the order of ids, so that one is not taken for the other.
    path.write_text("\n".join(json.dumps({"media_id": 20 - row, "title": f"Film {row}"}) for row in range(20)))
    return Catalog.read(path)


USERS = ["u2", "u10", "u1", "7"]


def write_seen(
    path: Path, pairs: Sequence[tuple[Any, Any]], *, columns: str = "user_id VARCHAR, media_id VARCHAR"
) -> Path:
    with session() as connection:
        connection.execute(f"CREATE TEMP TABLE seen ({columns})")
        if pairs:
            connection.executemany("INSERT INTO seen VALUES (?, ?)", list(pairs))
        connection.execute(f"COPY seen TO '{path}' (FORMAT parquet)")
    return path


def listed(offsets: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    return [rows[start:stop].tolist() for start, stop in pairwise(offsets)]


def test_seen_titles_are_grouped_by_user(tmp_path: Path, catalog: Catalog) -> None:
    pairs = [("u1", "20"), ("u2", "1"), ("u1", "3"), ("u2", "20"), ("u1", "20"), ("7", "11"), ("u2", "2"), ("u1", "20")]
    offsets, rows = read_seen(write_seen(tmp_path / "seen.parquet", pairs), USERS, catalog)
    assert (offsets.dtype, rows.dtype) == (np.int64, np.int32)
    assert offsets.tolist() == [0, 3, 3, 5, 6]
    assert rows.tolist() == [0, 18, 19, 0, 17, 9]


def test_integer_columns_match_string_ids(tmp_path: Path, catalog: Catalog) -> None:
    path = write_seen(tmp_path / "seen.parquet", [(7, 20), (7, 1)], columns="media BIGINT, media_id INTEGER")
    with pytest.raises(DataError, match=r"lacks the column user_id; it has media, media_id"):
        read_seen(path, USERS, catalog)
    path = write_seen(tmp_path / "seen.parquet", [(7, 20), (7, 1)], columns="user_id BIGINT, media_id INTEGER")
    assert listed(*read_seen(path, USERS, catalog)) == [[], [], [], [0, 19]]


def test_nobody_may_have_seen_anything(tmp_path: Path, catalog: Catalog) -> None:
    offsets, rows = read_seen(write_seen(tmp_path / "seen.parquet", []), USERS, catalog)
    assert offsets.tolist() == [0, 0, 0, 0, 0]
    assert (rows.tolist(), rows.dtype) == ([], np.int32)


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 19)), max_size=60))
def test_any_pairs_are_grouped(
    tmp_path_factory: pytest.TempPathFactory, catalog: Catalog, pairs: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("pairs [1]") / "seen.parquet"
    write_seen(path, [(USERS[user], str(20 - row)) for user, row in pairs])
    expected = [sorted({row for user, row in pairs if user == wanted}) for wanted in range(4)]
    assert listed(*read_seen(path, USERS, catalog)) == expected


def test_unknown_users_and_titles_are_counted_with_examples(tmp_path: Path, catalog: Catalog) -> None:
    pairs = [("u1", "20"), *[("nobody", "20")] * 3, *[("u1", f"x{n}") for n in range(9)], (None, "20"), ("u1", None)]
    path = write_seen(tmp_path / "seen.parquet", pairs)
    with pytest.raises(DataError) as caught:
        read_seen(path, USERS, catalog)
    assert caught.value.message == (
        f"{path}: rows whose user_id no user has: 3 (different ids: 1, such as 'nobody'); "
        f"rows without user_id: 1, {path}: row 14 first; "
        "rows whose media_id no title has: 9 (different ids: 9, such as 'x0', 'x1', 'x2', 'x3', 'x4'); "
        f"rows without media_id: 1, {path}: row 15 first"
    )
    ids = r"'(u1|u2|u10|7)'"
    assert re.search(
        rf"write ids as the users and titles have them, such as {ids} and '\d+', or remove these rows$",
        str(caught.value.fix),
    )
    with pytest.raises(DataError) as caught:  # once a fault: of users alone, a title's id was the example
        read_seen(write_seen(tmp_path / "seen.parquet", [("nobody", "20")]), USERS, catalog)
    assert re.search(rf"have them, such as {ids}, or remove these rows$", str(caught.value.fix))


def test_files_that_are_no_parquet_are_refused(tmp_path: Path, catalog: Catalog) -> None:
    whole = write_seen(tmp_path / "seen.parquet", [("u1", "20")]).read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[:-20])
    (tmp_path / "text.parquet").write_text("user_id,media_id\nu1,20\n")
    (tmp_path / "odd.parquet").write_bytes(whole[:40] + b"?" * (len(whole) - 44) + whole[-4:])
    for name, said in (
        ("short", "short.parquet is a Parquet file whose end is missing"),
        ("text", "text.parquet is not a Parquet file: it begins with b'user_id"),
        ("odd", "odd.parquet: cannot read what users have seen"),
    ):
        with pytest.raises(DataError, match=said) as refused:
            read_seen(tmp_path / f"{name}.parquet", USERS, catalog)
        assert refused.value.fix
    with pytest.raises(NotFoundError, match=r"there is no table .*missing.parquet"):
        read_seen(tmp_path / "missing.parquet", USERS, catalog)
    path = write_seen(tmp_path / "seen.parquet", [("u1", "20")], columns="person VARCHAR, movieId VARCHAR")
    with pytest.raises(DataError, match=r"(?s)it has person, movieId\n.*media_id, as by renaming movieId to media_id$"):
        read_seen(path, USERS, catalog)


# Ratings and times beside the seen titles


def write_history(path: Path, values: str, columns: str = "user_id, media_id, rating, timestamp") -> Path:
    with session() as connection:
        connection.execute(f"COPY (FROM (VALUES {values}) AS t({columns})) TO '{path}' (FORMAT parquet)")
    return path


def test_ratings_and_times_stay_with_their_titles_and_the_latest_of_repeats_counts(
    tmp_path: Path, catalog: Catalog
) -> None:
    values = "('u1', '20', 4.5, 30), ('u2', '1', 2, 7), ('u1', '3', NULL, 10), ('u1', '20', 1, 20), ('7', '11', 5, 1)"
    path = write_history(tmp_path / "seen.parquet", values)
    history = read_history(path, USERS, catalog)
    assert listed(history.offsets, history.rows) == [[19], [], [0, 17], [9]]
    assert history.ratings is not None
    assert history.timestamps is not None
    np.testing.assert_array_equal(history.ratings, np.array([2.0, 4.5, np.nan, 5.0], np.float32))
    assert history.timestamps.tolist() == [7, 30, 10, 1]
    assert listed(*read_seen(path, USERS, catalog)) == [[19], [], [0, 17], [9]]


def test_either_column_may_stand_alone_and_a_time_may_be_a_timestamp(tmp_path: Path, catalog: Catalog) -> None:
    path = write_history(
        tmp_path / "seen.parquet", "('u1', '20', TIMESTAMP '1970-01-02 00:00:05')", "user_id, media_id, timestamp"
    )
    history = read_history(path, USERS, catalog)
    assert history.ratings is None
    assert history.timestamps is not None
    assert history.timestamps.tolist() == [86405]
    path = write_history(tmp_path / "seen.parquet", "('u1', '20', 3)", "user_id, media_id, rating")
    history = read_history(path, USERS, catalog)
    assert history.timestamps is None
    assert history.ratings is not None
    assert history.ratings.tolist() == [3.0]


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT"])
def test_ratings_that_are_no_finite_number_are_none(tmp_path: Path, catalog: Catalog, kind: str) -> None:
    values = f"('u1', '20', 'inf'::{kind}), ('u1', '3', '-inf'::{kind})"
    path = write_history(tmp_path / "seen.parquet", values, "user_id, media_id, rating")
    history = read_history(path, ["u1"], catalog)
    assert (history.rows.tolist(), history.ratings) == ([0, 17], None)


def test_ratings_that_are_all_null_are_none(tmp_path: Path, catalog: Catalog) -> None:
    """Once a fault: of Arrow's null type they were refused as no numbers."""
    table = pa.table({"user_id": ["u1", "u1"], "media_id": ["20", "3"], "rating": pa.nulls(2), "timestamp": [7, 8]})
    pq.write_table(table, tmp_path / "seen.parquet")
    history = read_history(tmp_path / "seen.parquet", USERS, catalog)
    assert (history.rows.tolist(), history.ratings) == ([0, 17], None)
    assert history.timestamps is not None and sorted(history.timestamps.tolist()) == [7, 8]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ("('u1', '20', 'good', 1)", "the column rating has type VARCHAR; a number is expected"),
        ("('u1', '20', 3.5, 'now')", "the column timestamp has type VARCHAR; seconds since 1970"),
        ("('u1', '20', 3.5, 1), ('u1', '3', 3.5, NULL)", "row 2 has no timestamp; seconds"),
        ("('u9', '20', 3.5, 1)", "rows whose user_id no user has: 1"),
    ],
)
def test_ratings_that_cannot_be_used(tmp_path: Path, catalog: Catalog, values: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_history(write_history(tmp_path / "seen.parquet", values), USERS, catalog)


def test_an_index_carries_ratings_and_times(tmp_path: Path, make_folder: Any) -> None:
    made = make_folder(tmp_path / "data", titles=30, users=2)
    ids, users = made.media_ids, made.user_ids
    seen = tmp_path / "data/users/seen.parquet"
    write_history(
        seen,
        f"('{users[1]}', '{ids[7]}', 3.5, 99), ('{users[0]}', '{ids[9]}', NULL, 5), ('{users[1]}', '{ids[2]}', 1, 4)",
    )
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    saved = SavedIndex(tmp_path / "index").users
    assert saved is not None
    history = saved.history
    assert listed(history.offsets, history.rows) == [[9], [2, 7]]
    assert history.ratings is not None
    assert history.timestamps is not None
    np.testing.assert_array_equal(history.ratings, np.array([np.nan, 1.0, 3.5], np.float32))
    assert history.timestamps.tolist() == [5, 4, 99]
    assert listed(*saved.seen) == [[9], [2, 7]]
    verify(tmp_path / "index")


def write_times(path: Path, times: str, *, kind: str = "BIGINT") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with session() as connection:
        connection.execute(
            f"COPY (SELECT 'u1' AS user_id, '1' AS media_id, unnest([{times}])::{kind} AS timestamp)"
            f" TO '{path}' (FORMAT parquet)"
        )


@pytest.mark.parametrize(
    ("times", "kind", "told", "fix"),
    [
        (
            "1136073600000",
            "BIGINT",
            "timestamp 1136073600000; .*as milliseconds it would be 2006-01-01",
            "timestamp // 1000",
        ),
        ("1136073600000000", "BIGINT", "as microseconds it would be 2006-01-01", "timestamp // 1000000"),
        ("4102444800", "BIGINT", "after the year 2100", "whole seconds"),
        ("-1", "BIGINT", "row 1 has the timestamp -1; that is before 1970", "whole seconds"),
        ("1.0, 'nan'::DOUBLE", "DOUBLE", "row 2 has the timestamp nan;", "give them"),
        ("1.0, 'inf'::DOUBLE", "DOUBLE", "row 2 has the timestamp inf;", "give them"),
        ("TIMESTAMP '2200-01-01'", "TIMESTAMP", "after the year 2100", "whole seconds"),
    ],
)
def test_timestamps_outside_1970_to_2100_are_refused(
    tmp_path: Path, catalog: Catalog, times: str, kind: str, told: str, fix: str
) -> None:
    write_times(tmp_path / "seen.parquet", times, kind=kind)
    with pytest.raises(DataError, match=told) as error:
        read_history(tmp_path / "seen.parquet", ["u1"], catalog)
    assert fix in str(error.value.fix)


def test_the_first_second_and_the_last_one_are_read(tmp_path: Path, catalog: Catalog) -> None:
    write_times(tmp_path / "seen.parquet", "4102444799, 0")
    history = read_history(tmp_path / "seen.parquet", ["u1"], catalog)
    assert history.timestamps is not None
    assert history.timestamps.tolist() == [4102444799]


def test_seen_titles_in_a_folder_of_parts_are_read(tmp_path: Path, catalog: Catalog) -> None:
    parts = tmp_path / "seen.parquet"
    write_times(parts / "part-0[1].parquet", "5")
    write_times(parts / "deep" / "part-1.parquet", "9, 7")
    (parts / "_SUCCESS").touch()
    (parts / ".part-1.parquet.crc").touch()
    history = read_history(parts, ["u1"], catalog)
    assert history.timestamps is not None
    assert history.timestamps.tolist() == [9]
    write_times(parts / "deep" / "part-1.parquet", "9, -7")
    with pytest.raises(
        DataError, match=r"seen\.parquet/deep/part-1\.parquet: row 2 has the timestamp -7; that is before"
    ):
        read_history(parts, ["u1"], catalog)
    (parts / "notes.txt").touch()
    with pytest.raises(DataError, match=r"a folder with notes\.txt, which is not a Parquet part"):
        read_history(parts, ["u1"], catalog)


def test_a_folder_without_parts_is_refused(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "seen.parquet").mkdir()
    with pytest.raises(DataError, match=r"a folder without a \.parquet part"):
        read_history(tmp_path / "seen.parquet", ["u1"], catalog)
