"""Metadata comes back as it was written, from JSON lines and from Parquet, and foreign SQL sees nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.table import inspect_parquet
from semrec_faiss.errors import DataError, NotFoundError, StorageError
from tests.data.titles.made_titles import Entry, catalog_of, titled, write_lines

FILMS: list[Entry] = [
    {"media_id": "ml_1", "title": "Toy Story (1995)", "year": 1995, "genres": ["Animation", "Comedy"], "rating": 3.9},
    {"media_id": "ml_2", "title": 'He said "No, no"\nand left', "year": None, "genres": [], "rating": 4},
    {"media_id": "ml_3", "title": "Le Fabuleux Destin d'Amélie 😀", "seen": True, "tags": ["a", None]},
    {"media_id": "ml_4", "title": "Toy Story (1995)", "year": 1995, "genres": None, "extra": {"a": [1, {"b": None}]}},
]
FILM_FIELDS = {
    "media_id": "VARCHAR",
    "title": "VARCHAR",
    "year": "BIGINT",
    "genres": "VARCHAR[]",
    "rating": "DOUBLE",
    "seen": "BOOLEAN",
    "tags": "VARCHAR[]",
    "extra": "JSON",
}


def expected_record(entry: Entry, fields: Sequence[str]) -> Entry:
    return dict.fromkeys(fields) | entry


def test_records_are_what_was_written(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, FILMS)
    assert catalog.count == 4
    assert catalog.fields == FILM_FIELDS
    assert list(catalog.fields) == list(FILM_FIELDS)
    for rows in ([0, 1, 2, 3], [3, 1], [2, 2, 0, 2], [], np.array([1, 0], dtype=np.int32)):
        found = catalog.records(rows)
        assert found == [expected_record(FILMS[row], list(FILM_FIELDS)) for row in rows]
        assert all(list(record)[:4] == ["media_id", "title", "year", "genres"] for record in found)
        assert catalog.media_ids(rows) == [FILMS[row]["media_id"] for row in rows]
    first, second = catalog.records([0, 0])
    first["genres"].append("changed")
    assert second["genres"] == ["Animation", "Comedy"], "records are not shared"


def test_records_have_no_year_and_genres_where_no_title_has_them(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, titled("Heat"))
    assert list(catalog.fields) == ["media_id", "title"]
    assert catalog.records([0]) == [{"media_id": "m0", "title": "Heat"}]


@pytest.mark.parametrize("row", [-1, 4])
def test_rows_outside_are_refused(tmp_path: Path, row: int) -> None:
    catalog = catalog_of(tmp_path, FILMS)
    with pytest.raises(DataError, match=f"row {row} is outside the titles, which have rows 0 to 3"):
        catalog.records([0, row])
    with pytest.raises(DataError, match=f"row {row} "):
        catalog.media_ids([row])


def test_ids_lead_to_rows(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, FILMS)
    assert [catalog.row_of(f"ml_{n}") for n in (3, 1)] == [2, 0]
    rows = catalog.rows_of(iter(["ml_4", "ml_1", "ml_4"]))
    assert rows.tolist() == [3, 0, 3]
    assert rows.dtype == np.int64
    assert catalog.rows_of([]).tolist() == []
    assert catalog.all_media_ids().tolist() == ["ml_1", "ml_2", "ml_3", "ml_4"]
    with pytest.raises(NotFoundError, match="media_id 'nope' is not among the 4 titles") as caught:
        catalog.row_of("nope")
    assert "'ml_1', 'ml_2', 'ml_3'" in (caught.value.fix or "")
    with pytest.raises(NotFoundError, match=r"2 media_ids, such as 'x', 'y', are not"):
        catalog.rows_of(["x", "ml_1", "y"])
    with pytest.raises(NotFoundError):
        catalog.row_of("half a character: \udc80")


@pytest.mark.slow
def test_large_and_small_requests_agree(tmp_path: Path) -> None:
    count = 40_000  # more than two batches
    entries = [{"media_id": f"id {row}", "title": f"Film {row}", "n": row} for row in range(count)]
    catalog = catalog_of(tmp_path, entries)
    catalog.write_parquet(tmp_path / "items.parquet")
    rows = np.random.default_rng(0).integers(count, size=5_000)
    for opened in (catalog, Catalog.from_parquet(tmp_path / "items.parquet")):
        assert [record["n"] for record in opened.records(rows)] == rows.tolist()
        assert opened.media_ids(rows) == [f"id {row}" for row in rows]
        assert opened.media_ids(rows[:20]) == [f"id {row}" for row in rows[:20]]
        np.testing.assert_array_equal(opened.rows_of(opened.media_ids(rows)), rows)
        assert opened.find(f"film {rows[0]}") == rows[0]


def test_a_parquet_file_gives_an_equal_catalog(tmp_path: Path) -> None:
    folder = tmp_path / "genre=x" / "what? [1] it's *"
    folder.mkdir(parents=True)
    catalog = catalog_of(tmp_path, FILMS)
    catalog.write_parquet(folder / "items [2].parquet")
    reopened = Catalog.from_parquet(folder / "items [2].parquet")
    assert reopened.count == catalog.count
    assert list(reopened.fields.items()) == list(catalog.fields.items())
    assert reopened.records(range(4)) == catalog.records(range(4))
    reopened.write_parquet(folder / "items [2].parquet")
    assert Catalog.from_parquet(folder / "items [2].parquet").records(range(4)) == catalog.records(range(4))
    assert [path.name for path in folder.iterdir()] == ["items [2].parquet"], "nothing is left beside it"


def test_a_wildcard_in_a_path_reads_that_file_only(tmp_path: Path) -> None:
    catalog_of(tmp_path, titled("Heat")).write_parquet(tmp_path / "a?.parquet")
    catalog_of(tmp_path, titled("Ran")).write_parquet(tmp_path / "ab.parquet")
    assert [record["title"] for record in Catalog.from_parquet(tmp_path / "a?.parquet").records([0])] == ["Heat"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, FILMS)
    with pytest.raises(StorageError, match=r"cannot write .*nowhere"):
        catalog.write_parquet(tmp_path / "nowhere" / "items.parquet")
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*taken"):
        catalog.write_parquet(tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metadata.jsonl", "taken"]


def test_other_and_damaged_parquet_files_are_refused(tmp_path: Path) -> None:
    import duckdb

    catalog_of(tmp_path, FILMS).write_parquet(tmp_path / "items.parquet")
    whole = (tmp_path / "items.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.parquet").write_text("media_id,title\n")
    with duckdb.connect() as connection:
        for name, sql in {
            "columns": "SELECT 'a' AS media_id, 'b' AS title",
            "types": "SELECT 0::BIGINT AS _semrec_row, 1 AS media_id, 'b' AS title",
            "gap": "SELECT 1::BIGINT AS _semrec_row, 'a' AS media_id, 'b' AS title",
            "twice": "SELECT 0::BIGINT AS _semrec_row, 'a' AS media_id, 'b' AS title FROM range(2)",
            "untitled": "SELECT 0::BIGINT AS _semrec_row, 'a' AS media_id, NULL::VARCHAR AS title",
            "none": "SELECT 0::BIGINT AS _semrec_row, 'a' AS media_id, 'b' AS title LIMIT 0",
        }.items():
            connection.execute(f"COPY ({sql}) TO '{tmp_path / name}.parquet' (FORMAT parquet)")
    for read in (Catalog.from_parquet, inspect_parquet):
        for name in ("short", "text", "missing"):
            with pytest.raises(DataError, match=f"{name}.parquet: cannot read the titles"):
                read(tmp_path / f"{name}.parquet")
        for name in ("columns", "types", "gap", "twice", "untitled", "none"):
            with pytest.raises(DataError, match=f"{name}.parquet is not a catalog"):
                read(tmp_path / f"{name}.parquet")
    catalog = Catalog.from_parquet(tmp_path / "items.parquet")
    assert inspect_parquet(tmp_path / "items.parquet") == (catalog.count, catalog.fields)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n \n\n"])
def test_windows_files_and_blank_ends_are_read(tmp_path: Path, start: bytes, end: bytes, last: bytes) -> None:
    path = write_lines(tmp_path / "metadata.jsonl", [json.dumps(entry, ensure_ascii=False) for entry in FILMS], end)
    path.write_bytes(start + path.read_bytes() + last)
    assert Catalog.read(path, expect_count=4).records([2])[0]["title"] == FILMS[2]["title"]
    path.write_bytes(path.read_bytes().rstrip())
    assert Catalog.read(path, expect_count=4).count == 4


def test_integer_ids_become_strings(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, [{"media_id": 7, "title": "Heat"}, {"media_id": "x", "title": "Ran"}])
    assert catalog.media_ids([0, 1]) == ["7", "x"]
    assert catalog.row_of("7") == 0


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, -(2**63), 2**63 - 1, None], "BIGINT"),
        ([2**53, 0.5], "DOUBLE"),
        ([2**53 + 1, 0.5], "JSON"),
        ([2**63], "JSON"),
        ([10**40, -1], "JSON"),
        ([True, False, None], "BOOLEAN"),
        ([True, 1], "JSON"),
        (["a", None], "VARCHAR"),
        (["1", 1, 1.0, None], "JSON"),
        (["2020-01-01", "2b6f3f04-0d0f-4d3c-9d0e-6a9d8b0f4f4c", "NaN", "null", ""], "VARCHAR"),
        ([None, None], "VARCHAR"),
        ([[], None], "VARCHAR[]"),
        ([["a", None], ["b"]], "VARCHAR[]"),
        ([[1], [2**63 - 1, None]], "BIGINT[]"),
        ([[1], [1.5]], "DOUBLE[]"),
        ([[True]], "BOOLEAN[]"),
        ([[1], ["a"]], "JSON"),
        ([[[1]], []], "JSON"),
        ([{"a": 1}, None, "b", [2.5]], "JSON"),
        ([1e22, 5e-324, 1.7976931348623157e308, 0.1, -0.0], "DOUBLE"),
    ],
)
def test_fields_get_the_type_that_holds_their_values(tmp_path: Path, values: list[Any], kind: str) -> None:
    entries = [{"media_id": n, "title": "t", "value": value} for n, value in enumerate(values)]
    catalog = catalog_of(tmp_path, [*entries, {"media_id": "last", "title": "t"}])
    catalog.write_parquet(tmp_path / "items.parquet")
    for opened in (catalog, Catalog.from_parquet(tmp_path / "items.parquet")):
        assert opened.fields["value"] == kind
        found = [record["value"] for record in opened.records(range(opened.count))]
        assert found == [*values, None]
        if kind == "JSON":
            assert [type(value) for value in found] == [type(value) for value in [*values, None]]


def any_text(**options: Any) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), **options)


names = any_text(min_size=1, max_size=6).filter(lambda name: name.isprintable() and name.lower() != "_semrec_row")
integers = st.integers() | st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | any_text(max_size=8)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(
    [st.integers(-9, 9), integers, st.floats(allow_nan=False, allow_infinity=False), any_text(max_size=9)]
)


@st.composite
def metadata(draw: st.DrawFn) -> list[Entry]:
    ids = draw(st.lists(any_text(min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=6, unique=True))
    columns: dict[str, st.SearchStrategy[Any]] = {}
    leading = {"media_id", "title", "year", "genres"}
    for name in draw(st.lists(names, max_size=4, unique_by=str.lower)):
        if name.lower() not in leading:
            one = draw(kinds)
            columns[name] = draw(
                st.sampled_from([one, st.none() | one, st.lists(st.none() | one, max_size=3), json_values])
            )
    columns |= {
        "year": st.none() | st.integers(-(2**63), 2**63 - 1),
        "genres": st.none() | st.lists(any_text(max_size=5)),
    }
    entries = []
    for media_id in ids:
        entry: Entry = {"media_id": media_id, "title": draw(any_text(min_size=1, max_size=20).filter(str.strip))}
        entry |= {name: draw(values) for name, values in columns.items() if draw(st.booleans())}
        entries.append(entry)
    return entries


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(entries=metadata(), ascii_only=st.booleans())
def test_anything_in_json_survives(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = [json.dumps(entry, ensure_ascii=ascii_only) for entry in entries]
    catalog = Catalog.read(write_lines(folder / "metadata.jsonl", lines), expect_count=len(entries))
    catalog.write_parquet(folder / "items.parquet")
    reopened = Catalog.from_parquet(folder / "items.parquet")
    assert reopened.fields == catalog.fields
    for opened in (catalog, reopened):
        assert opened.records(range(len(entries))) == [
            expected_record(entry, list(catalog.fields)) for entry in entries
        ]
        assert opened.rows_of([entry["media_id"] for entry in entries]).tolist() == list(range(len(entries)))


def test_progress_ends_where_it_said(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = write_lines(tmp_path / "metadata.jsonl", [json.dumps(entry) for entry in FILMS])
    Catalog.read(path, progress=lambda what, done, total: told.append((what, done, total)))
    size = path.stat().st_size
    assert told == [("checking metadata.jsonl", size, size), ("loading titles", 4, 4)]


@pytest.fixture(scope="module")
def movies(movielens: Path) -> Catalog:
    return Catalog.read(movielens / "media" / "metadata.jsonl", expect_count=9742)


def test_movielens_is_read_whole(movies: Catalog, movielens: Path, tmp_path: Path) -> None:
    entries = [json.loads(line) for line in (movielens / "media" / "metadata.jsonl").read_text("utf-8").splitlines()]
    movies.write_parquet(tmp_path / "items.parquet")
    reopened = Catalog.from_parquet(tmp_path / "items.parquet")
    assert movies.records(range(9742)) == reopened.records(range(9742)) == entries
    assert movies.fields == {
        "media_id": "VARCHAR",
        "title": "VARCHAR",
        "year": "BIGINT",
        "genres": "VARCHAR[]",
        "tags": "VARCHAR[]",
    }


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_csv('{file}')",
        "COPY titles TO '{file}.csv'",
        "ATTACH '{file}.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET threads = 1",
        "SELECT * FROM local_variable",
    ],
)
def test_foreign_sql_sees_only_the_catalog(tmp_path: Path, sql: str) -> None:
    import duckdb

    local_variable = {"secret": np.arange(3)}
    catalog = catalog_of(tmp_path, FILMS)
    catalog.write_parquet(tmp_path / "items.parquet")
    for opened in (catalog, Catalog.from_parquet(tmp_path / "items.parquet")):
        with pytest.raises(duckdb.Error):
            opened.cursor().execute(sql.format(file=tmp_path / "metadata.jsonl"))
        assert opened.cursor().execute("SELECT count(*) FROM titles WHERE year > 1990").fetchone() == (2,)
    assert len(local_variable["secret"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "metadata.jsonl"]


def test_importing_the_catalog_loads_no_duckdb() -> None:
    code = "import sys, semrec_faiss.data.titles.catalog, semrec_faiss.data.check; sys.exit('duckdb' in sys.modules)"
    assert run_python("-c", code).returncode == 0


@pytest.mark.slow
def test_many_threads_read_at_once(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, titled(*(f"Film {row}, The ({1900 + row % 100})" for row in range(500))))
    problems: list[BaseException] = []

    def read(seed: int) -> None:
        try:
            for row in np.random.default_rng(seed).integers(500, size=25).tolist():
                assert catalog.find(f"the film {row}") == row
                assert catalog.records([row, 0])[0]["title"].startswith(f"Film {row},")
                assert catalog.rows_of([f"m{row}", "m1"]).tolist() == [row, 1]
        except BaseException as error:  # the main thread raises it
            problems.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.parquet"])
def test_ids_alone_are_held_of_titles_that_others_read_by_ranges(tmp_path: Path, name: str) -> None:
    path, films = tmp_path / name, [one | {"extra": None} for one in FILMS]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([expected_record(one, list(FILM_FIELDS)) for one in films]), path)
    else:
        write_lines(path, [json.dumps(film) for film in films])
    whole, ids = Catalog.read(path), Catalog.read(path, expect_count=4, ids_alone=True)
    assert (ids.count, ids.fields) == (4, whole.fields)
    assert ids.all_media_ids().tolist() == [film["media_id"] for film in FILMS]
    columns = [column for column, *_ in ids.cursor().execute("DESCRIBE titles").fetchall()]
    assert columns == ["_semrec_row", "media_id"]
    parts = [Catalog.read_range(path, first, last, ids.fields) for first, last in ((0, 1), (1, 4))]
    assert [record for part in parts for record in part.records(range(part.count))] == whole.records(range(4))
    if path.suffix == ".jsonl":
        path.write_text(path.read_text().replace("ml_4", "ml_1"))
        with pytest.raises(DataError, match=r"metadata.jsonl:4: .*ml_1.*line 1"):
            Catalog.read(path, ids_alone=True)
