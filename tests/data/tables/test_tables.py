"""Tables in and out: every format, types kept, the same bits again, and every mistake told with its place."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.folder.layout import find_data_folder, open_vectors
from semrec_faiss.data.tables.exporting import export_table
from semrec_faiss.data.tables.folder import import_folder
from semrec_faiss.data.tables.gathered import gather_titles
from semrec_faiss.data.tables.importing import ImportedTable, TableWish
from semrec_faiss.data.tables.memory import MemoryTable
from semrec_faiss.data.text.embed import embed_folder
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DataError, NotFoundError, SemrecError, UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.recommender import Recommender

COUNT, DIM = 60, 8
DEEP = pa.list_(pa.struct({"at": pa.timestamp("ms"), "to": pa.list_(pa.int8(), 1)}))


def vectors(count: int = COUNT, dtype: str = "float32", dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, dim)).astype(dtype)


def lists(of: np.ndarray, kind: Any = None) -> pa.Array:
    kind = pa.list_(pa.from_numpy_dtype(of.dtype)) if kind is None else kind
    return pa.array([list(row) for row in of], kind)


def products(of: np.ndarray | None = None, embedding: Any = None) -> pa.Table:
    of = vectors() if of is None else of
    numbers = range(len(of))
    return pa.table(
        {
            "sku": [f"{n:05d}" for n in numbers],
            "name": ["Intro" if n % 7 == 0 else f"Song {n}" for n in numbers],
            "embedding": lists(of) if embedding is None else embedding,
            "price": pa.array([Decimal(n) / 100 for n in numbers], pa.decimal128(30, 2)),
            "released": pa.array([dt.date(1990 + n % 30, 5, 1) if n % 3 else None for n in numbers]),
            "stamped": pa.array([1_700_000_000_000_000_000 + n for n in numbers], pa.timestamp("ns", "Europe/Berlin")),
            "tags": [["a", "b"][: n % 3] if n % 5 else None for n in numbers],
            "maker": [{"name": f"m{n % 4}", "since": 1900 + n} if n % 6 else None for n in numbers],
            "brand": pa.array([f"b{n % 5}" for n in numbers]).dictionary_encode(),
            "weight": pa.array([0.5 if n % 4 else None for n in numbers], pa.float32()),
            "stock": pa.array(list(numbers), pa.uint16()),
            "nothing": pa.nulls(len(of)),
            "note": pa.array([f"„{n}“" for n in numbers], pa.large_string()),
        }
    )


def imported(source: Path, out: Path, **wish: Any) -> ImportedTable:
    return import_folder(source, out, TableWish(**wish)).table


def test_a_data_folder_is_told_to_be_one_already(tmp_path: Path) -> None:
    (tmp_path / "shop/media").mkdir(parents=True)
    np.save(tmp_path / "shop/media/content_vectors.npy", np.eye(2, dtype=np.float32))
    for name in ("metadata.jsonl", "metadata.parquet"):
        (tmp_path / "shop/media" / name).touch()
        refused = refusal(tmp_path / "shop", tmp_path / "out")
        assert refused.message == f"{tmp_path / 'shop'} is a data folder already, not a table"
        assert refused.fix == f"build it as it is: semrec build --dataset {tmp_path / 'shop'} --output INDEX"
        (tmp_path / "shop/media" / name).unlink()


def refusal(source: Path, out: Path, **wish: Any) -> SemrecError:
    with pytest.raises(SemrecError) as caught:
        imported(source, out, **wish)
    assert not out.exists()
    return caught.value


def tensor(of: np.ndarray) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(of)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "embedding",
    [
        lists(vectors()),
        lists(vectors(dtype="float64")),
        lists(vectors(dtype="float16")),
        lists(vectors(), pa.large_list(pa.float32())),
        lists(vectors(), pa.list_(pa.float32(), DIM)),
        tensor(vectors()),
    ],
    ids=["list", "float64", "float16", "large_list", "fixed_size_list", "tensor"],
)
def test_a_table_comes_back_bit_for_bit(tmp_path: Path, ending: str, embedding: pa.Array) -> None:
    table = products(embedding=embedding).replace_schema_metadata({"theirs": "kept"})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=17)
    table = pq.read_table(tmp_path / "p.parquet")
    made = imported(tmp_path / "p.parquet", tmp_path / "data")
    assert (made.titles, made.dim) == (COUNT, DIM)
    export_table(tmp_path / "data", tmp_path / f"out.{ending}")
    again = (
        pq.read_table(tmp_path / "out.parquet")
        if ending == "parquet"
        else pa.ipc.open_file(tmp_path / "out.arrow").read_all()
    )
    assert again.schema.equals(table.schema, check_metadata=True)
    assert again.equals(table)


def test_fields_keep_their_types_into_the_index_and_its_filters(tmp_path: Path) -> None:
    table = products()
    pq.write_table(table, tmp_path / "p.parquet")
    made = imported(tmp_path / "p.parquet", tmp_path / "data")
    assert list(made.notes) == [
        "media_id: column 'sku', by its name",
        "title: column 'name', by its name",
        "vectors: column 'embedding', by its name",
    ]
    assert made.fields["price"] == "DECIMAL(30,2)" and made.fields["released"] == "DATE"
    assert made.fields["maker"] == 'STRUCT("name" VARCHAR, since BIGINT)' and made.fields["stock"] == "USMALLINT"
    build_index(config_from_dict({"dataset": str(tmp_path / "data"), "output": str(tmp_path / "index")}))
    recommender = Recommender.open(tmp_path / "index")
    where = "price > 0.30 AND released < DATE '2000-01-01' AND maker.name = 'm1' AND list_contains(tags, 'a')"
    answer = recommender.similar("00004", COUNT, where=where)
    rows = table.to_pylist()
    expected = {
        row["sku"]
        for row in rows
        if row["price"] > Decimal("0.30")
        and row["released"] is not None
        and row["released"] < dt.date(2000, 1, 1)
        and (row["maker"] or {}).get("name") == "m1"
        and "a" in (row["tags"] or [])
        and row["sku"] != "00004"
    }
    assert expected and {result.media_id for result in answer} == expected
    record = recommender.similar("00004", COUNT).results
    one = next(result for result in record if result.media_id == "00031")
    assert one.fields["released"] == "1991-05-01" and one.fields["maker"] == {"name": "m3", "since": 1931}


def test_lists_that_are_all_empty_are_lists_of_texts(tmp_path: Path) -> None:
    """Arrow has a type of its own for them: genres were refused, other fields had that type, which no update kept."""
    table = products().select(["sku", "name", "embedding"])
    for name, cells in {"genres": [[], None], "tags": [[], [None]], "deep": [[[]], []]}.items():
        table = table.append_column(name, pa.array((cells * COUNT)[:COUNT]))
    assert pa.types.is_null(table.schema.field("genres").type.value_type)
    source, out, back = tmp_path / "x.parquet", tmp_path / "out", tmp_path / "back.parquet"
    pq.write_table(table, source)
    imported(source, out)
    build_index(config_from_dict({"dataset": str(out), "output": str(tmp_path / "index"), "device": "cpu"}))
    recommender = Recommender.open(tmp_path / "index")
    fields = recommender.catalog.fields
    assert [fields[name] for name in ("genres", "tags", "deep")] == ["VARCHAR[]", "VARCHAR[]", "VARCHAR[][]"]
    genres = {int(one.media_id): one.as_dict()["genres"] for one in recommender.search(vectors()[:1], COUNT)[0]}
    assert genres == {number: None if number % 2 else [] for number in range(COUNT)}
    with pytest.raises(UsageError, match="no title has the genre 'x', nor any other"):
        recommender.search(vectors()[:1], 2, where=Filter(genres="x"))
    export_table(out, back)
    assert pq.read_table(back).equals(table)


def test_a_genre_that_is_no_text_names_what_says_another_column(tmp_path: Path) -> None:
    pq.write_table(products().append_column("genres", pa.array([[1]] * COUNT)), tmp_path / "x.parquet")
    told = refusal(tmp_path / "x.parquet", tmp_path / "out")
    assert "column genres has type BIGINT[]; a list of texts is expected" in told.message
    assert told.fix == "name another column: --map genres=COLUMN when importing, or dataset.fields: {genres: COLUMN}"


def test_a_table_in_memory_has_the_fields_that_it_has_from_a_file(tmp_path: Path) -> None:
    numbers = range(COUNT)
    table = products()
    for name, column in {
        "seconds": pa.array(numbers, pa.timestamp("s")),
        "millis": pa.array(numbers, pa.timestamp("ms", "UTC")),
        "half": pa.array([n / 2 for n in numbers], pa.float16()),
        "day": pa.array([n * 86_400_000 for n in numbers], pa.date64()),
        "clock": pa.array(numbers, pa.time32("s")),
        "nanos": pa.array(numbers, pa.time64("ns")),
        "pair": pa.array([[n, 2] for n in numbers], pa.list_(pa.int32(), 2)),
        "texts": pa.array([str(n) for n in numbers], pa.string_view()),
        "counts": pa.array([[("a", n)] for n in numbers], pa.map_(pa.string(), pa.int64())),
        "deep": pa.array([[{"at": n, "to": [n]}] for n in numbers], DEEP),
        "uuid": pa.array([bytes([n] * 16) for n in numbers], pa.uuid()),
    }.items():
        table = table.append_column(name, column)
    pq.write_table(table, tmp_path / "t.parquet")
    import_folder(tmp_path / "t.parquet", tmp_path / "data", TableWish())
    filed = Catalog.read(find_data_folder(tmp_path / "data").metadata)
    held, fields = gather_titles(MemoryTable("t", table), TableWish())
    assert (held == vectors()).all()
    in_memory = Catalog.of_table(fields)
    assert in_memory.fields == filed.fields
    assert in_memory.records(numbers) == filed.records(numbers)


def test_csv_keeps_leading_zeros_and_reads_spelled_vectors(tmp_path: Path) -> None:
    of = vectors(4, "float64", 3)
    lines = ["sku;name;zip;price;when;genres;embedding"]
    for n, row in enumerate(of):
        spelled = "[" + ", ".join(repr(float(value)) for value in row) + "]"
        lines.append(f'{n:03d};"Thing; {n}";0{n}999;{n}.5;2020-01-0{n + 1};Rock| Pop;"{spelled}"')
    with gzip.open(tmp_path / "p.csv.gz", "wt") as file:
        file.write("\n".join(lines))
    made = imported(tmp_path / "p.csv.gz", tmp_path / "data")
    assert made.fields["zip"] == "VARCHAR" and made.fields["price"] == "DOUBLE" and made.fields["when"] == "DATE"
    catalog = Catalog.read(find_data_folder(tmp_path / "data").metadata)
    assert catalog.records([2]) == [
        {
            "media_id": "002",
            "title": "Thing; 2",
            "genres": ["Rock", "Pop"],
            "zip": "02999",
            "price": 2.5,
            "when": "2020-01-03",
        }
    ]
    assert np.array_equal(open_vectors(find_data_folder(tmp_path / "data").media_vectors), of)


def test_lines_of_csv_that_cannot_be_read_are_all_told(tmp_path: Path) -> None:
    rows = ["id,name,n", "a,A,1", "b,B,2,extra", "c,C,3", "d", "e,E,5"]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    np.save(tmp_path / "v.npy", vectors(3))
    error = refusal(tmp_path / "p.csv", tmp_path / "data", vectors=tmp_path / "v.npy")
    assert isinstance(error, DataError)
    assert f"{tmp_path / 'p.csv'}: line 3: Expected Number of Columns: 3 Found: 4" in error.message
    assert f"{tmp_path / 'p.csv'}: line 5, column name: " in error.message


def test_lines_of_json_that_cannot_be_read_are_all_told(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": 1, "name": "A"}\n{"id": 2,\n{"id": 3, "name": "C"}\nnull\n')
    error = refusal(tmp_path / "p.jsonl", tmp_path / "data", without_vectors=True)
    assert "p.jsonl:2: not JSON" in error.message and "p.jsonl:4: a JSON object is expected, not null" in error.message


def test_json_lines_with_vectors(tmp_path: Path) -> None:
    of = vectors(5, "float64")
    lines = [json.dumps({"id": n, "name": f"T{n}", "vector": list(row), "o": {"x": n}}) for n, row in enumerate(of)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    made = imported(tmp_path / "p.jsonl", tmp_path / "data")
    assert made.fields == {"media_id": "VARCHAR", "title": "VARCHAR", "o": "STRUCT(x BIGINT)"}
    assert np.array_equal(open_vectors(tmp_path / "data" / "media" / "content_vectors.npy"), of)


@pytest.mark.parametrize(
    ("column", "wish", "kind", "dtype"),
    [
        ("v", {"vector": "v"}, None, "float64"),  # lines of JSON
        ("Embedding", {}, None, "float64"),
        ("v", {"vector": "v"}, pa.list_(pa.int8(), 3), "float32"),
        ("embedding", {}, pa.large_list(pa.uint16()), "float32"),
        ("embedding", {}, pa.list_(pa.int64()), "float64"),
    ],
)
def test_vectors_of_whole_numbers_are_taken_where_they_are_named(
    column: str, wish: dict[str, Any], kind: Any, dtype: str, tmp_path: Path
) -> None:
    of = [[1, 0, 100], [0, 2, 0], [3, 1, 1]]
    held = {"id": ["a", "b", "c"], "title": ["A", "B", "C"], "tags": [[1, 2, 3], [1, 1, 1], [2, 2, 2]], column: of}
    if kind is None:
        source = tmp_path / "p.jsonl"
        source.write_text(
            "\n".join(json.dumps(dict(zip(held, row, strict=True))) for row in zip(*held.values(), strict=True))
        )
    else:
        source = tmp_path / "p.parquet"
        pq.write_table(pa.table({**held, column: pa.array(of, kind)}), source)
    imported(source, tmp_path / "data", **wish)
    found = open_vectors(find_data_folder(tmp_path / "data").media_vectors)
    assert (found.dtype, found.tolist()) == (dtype, of)
    export_table(tmp_path / "data", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")[column].to_pylist() == of
    if wish:  # no list of whole numbers is guessed to be vectors
        assert "no column of lists or tensors of floats" in refusal(source, tmp_path / "other").message


def test_mistakes_are_told_all_at_once_with_file_row_and_column(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    one, two = vectors(4).tolist(), vectors(4).tolist()
    one[1], one[2][3], two[0] = None, float("nan"), [0.0] * DIM
    two[3] = two[3][:-1]
    kind = pa.list_(pa.float32())
    a = pa.table({"id": ["a", "b", "c", "d"], "title": ["A", "B", None, "D"], "v": pa.array(one, kind)})
    b = pa.table({"id": ["e", "a", " ", "h"], "title": ["E", "F", "G", "H"], "v": pa.array(two, kind)})
    pq.write_table(a, parts / "part-0.parquet")
    pq.write_table(b, parts / "part-1.parquet")
    error = refusal(parts, tmp_path / "data")
    assert error.message.splitlines() == [
        f"{parts} has 7 mistakes:",
        f"{parts}/part-0.parquet: row 2, column v: is null",
        f"{parts}/part-0.parquet: row 3, column title: is null",
        f"{parts}/part-0.parquet: row 3, column v: holds NaN or infinity",
        f"{parts}/part-1.parquet: row 1, column v: is all zero",
        f"{parts}/part-1.parquet: row 2, column id: 'a' is also in row 1 of {parts}/part-0.parquet",
        f"{parts}/part-1.parquet: row 3, column id: is empty",
        f"{parts}/part-1.parquet: row 4, column v: has 7 dimensions, the first vector has 8",
    ]


def test_many_mistakes_are_counted_and_ten_are_shown(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["x"] * 40, "title": ["T"] * 40, "v": lists(vectors(40))}), tmp_path / "p.parquet")
    error = refusal(tmp_path / "p.parquet", tmp_path / "data")
    assert error.message.startswith(f"{tmp_path}/p.parquet has 39 mistakes:\n")
    assert error.message.count("also in row 1") == 10 and error.message.endswith("… and 29 more")


def test_parts_a_glob_and_a_saved_dataset_are_read_in_order(tmp_path: Path) -> None:
    table = products()
    saved = tmp_path / "saved"
    saved.mkdir()
    names = []
    for number, part in enumerate((table.slice(0, 25), table.slice(25))):
        pq.write_table(part, tmp_path / f"part-{number}.parquet")
        names.append({"filename": f"data-{number:05d}-of-00002.arrow"})
        with pa.ipc.new_stream(saved / names[-1]["filename"], table.schema) as writer:
            writer.write_table(part)
    (saved / "state.json").write_text(json.dumps({"_data_files": names, "_indices_data_files": None}))
    (saved / "dataset_info.json").write_text("{}")
    for number, source in enumerate((tmp_path / "part-*.parquet", saved)):
        imported(source, tmp_path / f"data{number}")
        export_table(tmp_path / f"data{number}", tmp_path / f"out{number}.parquet")
        assert pq.read_table(tmp_path / f"out{number}.parquet").equals(table)
    names[1]["filename"] = "../part-1.parquet"
    (saved / "state.json").write_text(json.dumps({"_data_files": names}))
    assert "is not complete" in refusal(saved, tmp_path / "no").message


def test_columns_in_the_names_of_folders_are_told_to_be_left_out(tmp_path: Path) -> None:
    for at, folder in enumerate(("lang=en/year=1", "lang=de")):
        (tmp_path / "parts" / folder).mkdir(parents=True)
        rows = pa.table({"id": [f"{at}"], "title": ["T"], "v": lists(vectors(1))})
        pq.write_table(rows, tmp_path / "parts" / folder / "p.parquet")
    notes = imported(tmp_path / "parts", tmp_path / "data").notes
    assert notes[-1] == "'lang', 'year': in the names of folders alone, which are not read"
    one = imported(tmp_path / "parts/lang=de/p.parquet", tmp_path / "one")
    assert not any("folders" in note for note in one.notes)


def test_ids_that_are_floats_are_told_how_they_become_whole(tmp_path: Path) -> None:
    rows = pa.table({"id": [1.0, 2.0], "title": ["A", "B"], "v": lists(vectors(2))})
    pq.write_table(rows, tmp_path / "p.parquet")
    assert str(refusal(tmp_path / "p.parquet", tmp_path / "no").fix).startswith("write whole numbers, frame[column].as")


def test_a_npy_beside_a_table_holds_its_vectors(tmp_path: Path) -> None:
    table = products().drop(["embedding"])
    pq.write_table(table, tmp_path / "p.parquet")
    np.save(tmp_path / "v.npy", vectors())
    assert "no .npy of its name lies beside it" in refusal(tmp_path / "p.parquet", tmp_path / "no").message
    assert refusal(tmp_path / "p.parquet", tmp_path / "no", vector="v.npy").fix == "--vectors v.npy"
    np.save(tmp_path / "p.npy", vectors(dtype="float16"))
    made = imported(tmp_path / "p.parquet", tmp_path / "data")
    assert made.dtype == "float16" and f"vectors: {tmp_path}/p.npy, which lies beside the table" in made.notes
    assert np.array_equal(np.load(tmp_path / "data/media/content_vectors.npy"), vectors(dtype="float16"))
    np.save(tmp_path / "p.npy", vectors(COUNT - 1))
    assert "has 59 vectors, the table has 60 rows" in refusal(tmp_path / "p.parquet", tmp_path / "no").message
    for odd, told, fix in (
        (vectors().T, "has 8 vectors, the table has 60", "vectors.T) turns these"),
        (vectors()[:, 0], "two dimensions, (count, dim), are expected", "vectors.reshape(count, dim)"),
    ):
        np.save(tmp_path / "p.npy", odd)
        error = refusal(tmp_path / "p.parquet", tmp_path / "no")
        assert told in error.message and fix in str(error.fix)
    np.save(tmp_path / "p.npy", vectors() * (np.arange(COUNT) != 7)[:, None])
    assert refusal(tmp_path / "p.parquet", tmp_path / "no").message == f"{tmp_path}/p.npy[7]: is all zero"
    pq.write_table(products(), tmp_path / "p.parquet")
    assert isinstance(refusal(tmp_path / "p.parquet", tmp_path / "no"), UsageError)


def test_a_column_of_vectors_is_no_field_where_these_are_taken_from_elsewhere(tmp_path: Path) -> None:
    pq.write_table(products(), tmp_path / "p.parquet")
    np.save(tmp_path / "v.npy", vectors())
    for option, wish in (("--vectors", {"vectors": tmp_path / "v.npy"}), ("--without-vectors", {"without_vectors": 1})):
        error = refusal(tmp_path / "p.parquet", tmp_path / "no", **wish)
        assert f"p.parquet has vectors in the column 'embedding', and {option} is given; as a field" in error.message
        assert error.fix == f"leave out the column, or {option}; under another name the column is kept as a field"
    pq.write_table(products().rename_columns({"embedding": "shape"}), tmp_path / "p.parquet")
    assert imported(tmp_path / "p.parquet", tmp_path / "data", vectors=tmp_path / "v.npy").fields["shape"] == "FLOAT[]"


def test_vectors_whose_dimensions_are_columns_are_told_for_what_they_are(tmp_path: Path) -> None:
    wide = {f"dim_{at}": column for at, column in enumerate(vectors(3).T)}
    pq.write_table(pa.table({"id": ["a", "b", "c"], "title": ["A", "B", "C"], **wide}), tmp_path / "wide.parquet")
    error = refusal(tmp_path / "wide.parquet", tmp_path / "no")
    assert "are dim_… the dimensions? " in str(error.fix) and r"frame.filter(regex=r'^dim_\d+$')" in str(error.fix)


def test_columns_are_named_or_guessed_and_what_is_hidden_stays(tmp_path: Path) -> None:
    table = pa.table(
        {
            "title": ["Dr.", "Ms."],
            "who": ["A", "B"],
            "nr": [7, 8],
            "published": ["1999", "2001"],
            "e": lists(vectors(2)),
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    error = refusal(tmp_path / "p.parquet", tmp_path / "data")
    assert "no column can be guessed for media_id" in error.message
    error = refusal(tmp_path / "p.parquet", tmp_path / "data", columns={"media_id": "nrr", "title": "whom"})
    assert "'nrr' for media_id (did you mean 'nr'?)" in error.message and "'whom' for title" in error.message
    wish = {"columns": {"media_id": "nr", "title": "who", "year": "published"}}
    made = imported(tmp_path / "p.parquet", tmp_path / "data", **wish)
    assert list(made.fields) == ["media_id", "title", "year", "original_title"]
    assert Catalog.read(find_data_folder(tmp_path / "data").metadata).records([1]) == [
        {"media_id": "8", "title": "B", "year": 2001, "original_title": "Ms."}
    ]
    export_table(tmp_path / "data", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").equals(table)


def test_a_year_that_is_none_is_told(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", "c"], "title": ["A", "B", "C"], "year": [1999.0, 2000.5, None]})
    pq.write_table(table.append_column("v", lists(vectors(3))), tmp_path / "p.parquet")
    error = refusal(tmp_path / "p.parquet", tmp_path / "data")
    assert error.message == f"{tmp_path}/p.parquet: row 2, column year: 2000.5 is no whole year"


INF = float("inf")


@pytest.mark.parametrize(
    "values",
    [
        [1.0, -INF, None],
        [[1.0], [2.0, INF], []],
        [{"a": 1.0, "b": "inf"}, {"a": INF, "b": ""}, None],
        [[{"a": [1.0]}], [{"a": [INF]}], []],
        pa.array([[("a", 1.0)], [("b", INF)], []], pa.map_(pa.string(), pa.float64())),
    ],
    ids=["number", "list", "struct", "nested", "map"],
)
def test_an_infinite_number_is_told_not_dropped(tmp_path: Path, values: Any) -> None:
    """Records are JSON, which has none; not a number, which stands for a missing value, is read as that."""
    table = pa.table({"id": ["a", "b", "c"], "title": ["A", "B", "C"], "x": values})
    pq.write_table(table.append_column("v", lists(vectors(3))), tmp_path / "p.parquet")
    error = refusal(tmp_path / "p.parquet", tmp_path / "data", vector="v")
    assert error.message == f"{tmp_path}/p.parquet: row 2, column x: holds an infinite number"


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("x")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nonsense")
    (tmp_path / "p.arrow").write_bytes(b"nonsense")
    (tmp_path / "p.csv").write_bytes(b"")
    assert isinstance(refusal(tmp_path / "p.txt", tmp_path / "o"), UsageError)
    assert isinstance(refusal(tmp_path / "none.parquet", tmp_path / "o"), NotFoundError)
    assert isinstance(refusal(tmp_path / "*.nothing", tmp_path / "o"), NotFoundError)
    for name in ("p.parquet", "p.arrow", "p.csv"):
        assert isinstance(refusal(tmp_path / name, tmp_path / "o"), DataError)
    assert "several formats" in refusal(tmp_path, tmp_path / "o").message


def test_parts_with_other_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(products(), tmp_path / "a.parquet")
    pq.write_table(products().drop(["price"]), tmp_path / "b.parquet")
    assert "not all of them have price" in refusal(tmp_path / "*.parquet", tmp_path / "o").message


def test_any_data_folder_becomes_a_table_that_comes_back(tmp_path: Path) -> None:
    demo = Path(__file__).resolve().parents[3] / "data" / "demo"
    export_table(demo, tmp_path / "demo.parquet")
    table = pq.read_table(tmp_path / "demo.parquet")
    assert table.column_names[-1] == "vector" and table.num_rows == 1519
    imported(tmp_path / "demo.parquet", tmp_path / "data")
    export_table(tmp_path / "data", tmp_path / "again.parquet")
    assert pq.read_table(tmp_path / "again.parquet").equals(table)
    ours = np.load(tmp_path / "data/media/content_vectors.npy")
    assert np.array_equal(ours, np.load(demo / "media/content_vectors.npy"))
    one, other = (Catalog.read(find_data_folder(folder).metadata) for folder in (demo, tmp_path / "data"))
    assert one.records(range(1519)) == other.records(range(1519))


def test_what_csv_holds_far_behind_its_first_lines_counts(tmp_path: Path) -> None:
    rows = 40_000
    last = {
        "late_text": "x",
        "late_decimal": "2.5",
        "late_code": "0123",
        "late_time": "2024-05-01 12:30:00",
        "late_number": "7",
        "late_truth": "true",
        "always": "1",
    }
    first = dict.fromkeys(last, "1") | {"late_time": "2024-04-30", "late_number": "", "late_truth": ""}
    lines = [",".join([str(row), f"Song {row}", *first.values(), "1 2"]) for row in range(rows - 1)]
    lines.append(",".join([str(rows - 1), "Last", *last.values(), "3 4"]))
    path = tmp_path / "songs.csv"
    path.write_text("\n".join([",".join(["id", "title", *last, "vector"]), *lines]) + "\n", encoding="utf-8")
    made = imported(path, tmp_path / "data")
    assert made.titles == rows
    assert list(made.fields.values())[2:] == [
        "VARCHAR",
        "DOUBLE",
        "VARCHAR",
        "TIMESTAMP",
        "BIGINT",
        "BOOLEAN",
        "BIGINT",
    ]
    catalog = Catalog.read(find_data_folder(tmp_path / "data").metadata)
    kept = catalog.records([0, rows - 1])
    assert [kept[0][name] for name in last] == ["1", 1.0, "1", "2024-04-30 00:00:00", None, None, 1]
    assert [kept[1][name] for name in last] == ["x", 2.5, "0123", "2024-05-01 12:30:00", 7, True, 1]


def test_a_table_without_vectors_gets_them_of_its_texts(tmp_path: Path) -> None:
    """What `dataset embed` reads of a metadata.parquet is what the table's columns say, by their parts."""
    (tmp_path / "songs.csv").write_text("sku,name,tags\n01,Waltz,slow|old\n02,March,loud\n", encoding="utf-8")
    wish = {"columns": {"genres": "tags"}, "without_vectors": True}
    made = imported(tmp_path / "songs.csv", tmp_path / "data", **wish)
    assert (made.titles, made.dim) == (2, 0)
    asked: list[str] = []

    class Encoder:
        device, batch_size = "cpu", 4

        def encode(self, texts: Any) -> Any:
            asked.extend(texts)
            return np.eye(2, dtype=np.float32)[: len(texts)]

    encoder: Any = Encoder()
    embed_folder(tmp_path / "data", model="made up", encoder=encoder)
    assert [("Waltz" in one, "slow" in one, "March" in one, "loud" in one) for one in asked] == [
        (True, True, False, False),
        (False, False, True, True),
    ]
    build_index(config_from_dict({"dataset": str(tmp_path / "data"), "output": str(tmp_path / "index")}))
    assert [one.media_id for one in Recommender.open(tmp_path / "index").similar("waltz", 1)] == ["02"]
