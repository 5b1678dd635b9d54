"""A CSV that cannot be read is told with the line where it goes wrong and what to do; so are files of other kinds."""

from __future__ import annotations

import datetime as dt
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_python

from semrec_faiss import Recommender
from semrec_faiss.data.check import check_data_folder
from semrec_faiss.data.interactions.source import write_seen
from semrec_faiss.data.tables.folder import import_folder
from semrec_faiss.data.tables.importing import TableWish
from semrec_faiss.errors import DataError, SemrecError, UsageError

HEAD = b'id,name,vector\na,"Say ""hi""",1 2\n'
TWICE = 'write a quote within a text twice, and a text with quotes in quotes: "say ""hi"""'


def refusal(file: Path, content: bytes) -> tuple[str, str | None]:
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        import_folder(file, file.parent / "data", TableWish())
    assert not (file.parent / "data").exists()
    return caught.value.message.replace(str(file), "FILE"), caught.value.fix


@pytest.mark.parametrize(
    ("content", "says", "fix"),
    [
        (HEAD + b'b,"Big" Bang,1 2\n', "line 3: a text goes on after the quote that closes it", TWICE),
        (HEAD + b'b,"say \\"hi\\"",1 2\n', "line 3: a text goes on after the quote that closes it", TWICE),
        (HEAD + b'b,"Big\nc,C,1 2\n', "line 3: a quote is opened that nothing closes", TWICE),
        (HEAD + b"b,Caf\xe9,1 2\n", "line 3 is not UTF-8", "write it in UTF-8"),
        (HEAD.decode().encode("utf-16"), "line 1 is not UTF-8", "write it in UTF-8"),
        (
            HEAD + b"b,B,1 2\r\nc,C,1 2\n",
            r"line 3 ends with \r\n, those before it with \n",
            "write it again with one kind of line ends",
        ),
        (
            b'id,name,vector\r\na,"two\nlines",1 2\r\nb,B,1 2\nc,C,1 2\n',
            r"line 4 ends with \n, those before it with \r\n",
            "write it again with one kind of line ends",
        ),
        (
            HEAD + b"b,B,1 2\rc,C,1 2\n" * 3,
            r"line 3 holds a carriage return (\r), which ends no other line",
            "write it again with one kind of line ends",
        ),
    ],
    ids=["quote", "backslash", "open", "latin", "utf-16", "ends", "ends after a text of two lines", "return"],
)
def test_what_is_wrong_and_where(tmp_path: Path, content: bytes, says: str, fix: str) -> None:
    file = tmp_path / "titles.csv"
    said = f"FILE: {says}"
    assert refusal(file, content) == (said, fix)
    packed = tmp_path / "titles.csv.gz"
    assert refusal(packed, gzip.compress(content)) == (said, fix)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'u,1,5\n"Big" Joe,1,5\n', "line 3: a text goes on after the quote that closes it"),
        (b"u,1,5\nCaf\xe9,1,5\n", "line 3 is not UTF-8"),
        (b"u,1,5\nu,2\nu,3,5\n", "line 3 has 2 columns, the first has 3"),
        (b"u,1,5\r\nu,2,4\n", r"line 2 ends with \r\n, those before it with \n"),
    ],
    ids=["quote", "latin", "short", "ends"],
)
def test_interactions_to_learn_of(tmp_path: Path, content: bytes, says: str) -> None:
    """Once a fault: another way to separate columns was guessed, in which the file could be read."""
    (tmp_path / "plays.csv").write_bytes(b"user_id,media_id,rating\n" + content)
    with pytest.raises(DataError) as caught:
        write_seen(tmp_path / "plays.csv", tmp_path / "seen.parquet")
    assert caught.value.message == f"{tmp_path / 'plays.csv'}: {says}"


@pytest.mark.parametrize(
    ("rating", "timestamp", "says"),
    [
        (
            "4",
            "03/04/2020",
            "row 25,001 has the timestamp '03/04/2020'; seconds or a time with its year first",
        ),
        ("4", "03/04/2020 10:00:00", "row 25,001 has the timestamp '03/04/2020 10:00:00'; seconds or"),
        ("4", "2020-02-30", "row 25,001 has the timestamp 2020-02-30; seconds or"),
        ("4", "epoch", "row 25,001 has the timestamp 'epoch'; seconds or"),
        ("4", "2020-01-01", "row 25,001 has the timestamp 2020-01-01; the rows above have the other kind"),
        ("good", "1500000000", "row 25,001 has the rating 'good'; a number"),
        ("3,5", "1500000000", "row 25,001 has the rating '3,5'; a number"),
        ("1_000", "1500000000", "row 25,001 has the rating '1_000'; a number"),
        ("true", "1500000000", "row 25,001 has the rating 'true'; a number"),
        ('x"', "1500000000", None),
    ],
)
def test_numbers_and_times_to_learn_of_are_not_guessed(
    tmp_path: Path, rating: str, timestamp: str, says: str | None
) -> None:
    """Once a fault: 03/04/2020 was one in April; and of what came late in a file its line alone was told."""
    rows = ["u,1,4,1500000000"] * 30_000
    rows[25_000] = f'u,1,"{rating}",{timestamp}'
    (tmp_path / "plays.csv").write_text("\n".join(["user_id,media_id,rating,timestamp", *rows, ""]))
    with pytest.raises(DataError) as caught:
        write_seen(tmp_path / "plays.csv", tmp_path / "seen.parquet")
    assert (says or "line 25,002: a quote is opened that nothing closes") in caught.value.message
    assert caught.value.fix


def test_times_to_learn_of_are_seconds_in_utc(tmp_path: Path) -> None:
    times = ["2020-01-01", "2020-01-01 02:00:00+02:00", "2020-01-01T00:00:00Z", " 2020-01-01 00:00 ", ""]
    rows = [f"u{at},1,4.5,{time}" for at, time in enumerate(times)]
    (tmp_path / "plays.csv").write_text("\n".join(["user_id,media_id,rating,timestamp", *rows, ""]))
    write_seen(tmp_path / "plays.csv", tmp_path / "seen.parquet")
    assert pq.read_table(tmp_path / "seen.parquet")["timestamp"].to_pylist() == [1_577_836_800] * 4 + [None]
    (tmp_path / "plays.csv").write_text("userId,movieId\n1.5,1\n")
    with pytest.raises(DataError, match=r"row \d has the userId 1\.5; a whole number"):  # once user 2
        write_seen(tmp_path / "plays.csv", tmp_path / "seen.parquet")


def test_a_time_without_a_zone_is_one_of_utc_wherever_the_machine_is(tmp_path: Path) -> None:
    """Once a fault: it was that of the machine, so that filters found other titles elsewhere."""
    films = "media_id,title,noted,released\na,A,03/04/2020 10:00:00,2020-01-01 10:00\n"  # so that DuckDB adds a zone
    (tmp_path / "films.csv").write_text(films)
    code = (
        "import sys; from pathlib import Path; from semrec_faiss.data.tables.folder import import_folder;"
        " from semrec_faiss.data.tables.importing import TableWish; folder = Path(sys.argv[1]);"
        " import_folder(folder / 'films.csv', folder / 'data', TableWish(without_vectors=True))"
    )
    ended = run_python("-c", code, tmp_path, TZ="America/New_York")
    assert ended.returncode == 0, ended.stderr
    (time,) = pq.read_table(tmp_path / "data/media/metadata.parquet")["released"].to_pylist()
    assert time == dt.datetime(2020, 1, 1, 10, tzinfo=dt.UTC)


@pytest.mark.parametrize("end", [1 << 30, 2])
def test_damaged_lengths_in_an_arrow_file_are_refused(tmp_path: Path, end: int) -> None:
    """Once a fault: they were read, beyond the file, so that the process crashed."""
    lengths = pa.py_buffer(np.array([0, 5, end, 15], np.int32))
    titles = pa.StringArray.from_buffers(3, lengths, pa.py_buffer(b"IntroWaltzMarch"))
    table = pa.table({"media_id": ["a", "b", "c"], "title": titles, "vector": [[1.0], [2.0], [3.0]]})
    with pa.OSFile(str(tmp_path / "songs.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    ended = run_python("-m", "semrec_faiss", "dataset", "import", tmp_path / "songs.arrow", tmp_path / "out")
    assert (ended.returncode, "songs.arrow cannot be read: " in ended.stderr) == (3, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"media_id": true, "title": "T"}', "FILE: column media_id holds true; a text or a whole number is expected"),
        ('{"media_id": 1.0, "title": "T"}', "FILE: column media_id holds 1.0; a text or a whole number is expected"),
        ('{"media_id": [1], "title": "T"}', "FILE: column media_id holds [1]; a text or a whole number is expected"),
        ('{"media_id": "b", "title": "T", "title": "U"}', "FILE:3: the key 'title' occurs twice"),
    ],
)
def test_json_lines_of_other_ids_or_with_a_key_twice(tmp_path: Path, line: str, says: str) -> None:
    """Once faults: these ids became texts, and the other ended as if OUT could not be written."""
    lines = ['{"media_id": "a", "title": "A"}', '{"media_id": 7, "title": "B"}', line]
    (tmp_path / "films.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        import_folder(tmp_path / "films.jsonl", tmp_path / "out", TableWish(without_vectors=True))
    assert caught.value.message.replace(str(tmp_path / "films.jsonl"), "FILE") == says
    (tmp_path / "films.jsonl").write_text("\n".join(lines[:2]))
    import_folder(tmp_path / "films.jsonl", tmp_path / "out", TableWish(without_vectors=True))
    assert pq.read_table(tmp_path / "out/media/metadata.parquet")["media_id"].to_pylist() == ["a", "7"]


@pytest.mark.parametrize("names", ["id,name,Name,vector", '\ufeffid,name,"id",vector', "id;name;vector;name "])
def test_two_columns_of_one_name(tmp_path: Path, names: str) -> None:
    """Once a fault: the second was a field called name_1."""
    says, fix = refusal(tmp_path / "titles.csv", f"{names}\na,A,B,1 2\n".encode())
    assert says.startswith("FILE: two columns are called '") and fix == "rename one, or leave it out"
    (tmp_path / "plays.csv").write_text("user_id,media_id,rating,Rating\nu,1,4,5\n")
    with pytest.raises(DataError, match="two columns are called 'rating'"):
        write_seen(tmp_path / "plays.csv", tmp_path / "seen.parquet")


def test_a_file_that_is_not_packed_as_its_name_says(tmp_path: Path) -> None:
    says, fix = refusal(tmp_path / "titles.csv.gz", HEAD)
    assert says.startswith("FILE cannot be read: ") and fix == "mend or write it again"
    assert refusal(tmp_path / "titles.csv.gz", gzip.compress(HEAD)[:-9])[1] == "mend or write it again"
    assert refusal(tmp_path / "empty.csv", b"")[0] == "FILE is empty"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_kind_of_line_ends_is_read(tmp_path: Path, end: str, mark: str) -> None:
    rows = ["id;name;vector", 'a;"two\nlines";1 2', "b;B;2 1", ""]
    (tmp_path / "titles.csv").write_bytes((mark + end.join(rows)).encode())
    assert import_folder(tmp_path / "titles.csv", tmp_path / "data", TableWish()).table.titles == 2


@pytest.mark.parametrize(
    ("name", "says", "fix"),
    [
        ("titles.json", "is no table", "jq -c '.[]'"),
        ("titles.jsonl", ": its lines are no objects", "jq -c '.[]'"),
        ("titles.npy", "is no table", "--vectors"),
        ("titles.xlsx", "is no table", "CSV in UTF-8"),
        ("titles.txt", "is no table", "give Parquet, Arrow IPC, CSV"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, name: str, says: str, fix: str) -> None:
    (tmp_path / name).write_text('[{"media_id": "a", "title": "A"}, {"media_id": "b", "title": "B"}]\n')
    with pytest.raises(SemrecError) as caught:
        import_folder(tmp_path / name, tmp_path / "data", TableWish(without_vectors=True))
    assert says in caught.value.message and fix in str(caught.value.fix)


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        ([{}, {}], DataError, "metadata: column odd holds nothing but empty objects\nleave the column out"),
        ([[{}], None], DataError, "metadata: column odd holds nothing but empty objects\nleave the column out"),
        (["\ud800", "a"], UsageError, "metadata cannot be read as a table: 'utf-8' codec can't encode character"),
    ],
    ids=["objects", "lists of objects", "surrogates"],
)
def test_what_no_file_holds_is_told_of_a_frame(values: list[Any], kind: type[SemrecError], told: str) -> None:
    """Empty objects were told as a disk that refuses, and the parts of Python's error about texts back to front."""
    frame = pd.DataFrame({"media_id": ["a", "b"], "title": ["A", "B"], "odd": pd.Series(values, dtype=object)})
    with pytest.raises(kind) as caught:
        Recommender.from_arrays(np.eye(2, 3, dtype=np.float32), frame)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_two_columns_of_one_name_in_what_is_no_text(tmp_path: Path, name: str) -> None:
    """Once a mistake in semrec."""
    columns = [["a"], ["A"], [[1.0, 2.0]], [1], [2]]
    write(tmp_path / name, pa.Table.from_arrays(columns, ["media_id", "title", "vector", "x", "x"]))
    with pytest.raises(DataError, match=rf"{name}: two columns are called 'x'"):
        import_folder(tmp_path / name, tmp_path / "out", TableWish())
    write(tmp_path / "t.parquet", pa.Table.from_arrays([["a"], ["A"], [1], [2]], ["media_id", "title", "x", "x"]))
    (tmp_path / "data/media").mkdir(parents=True)
    np.save(tmp_path / "data/media/content_vectors.npy", np.ones((1, 3), np.float32))
    (tmp_path / "t.parquet").rename(tmp_path / "data/media/metadata.parquet")
    with pytest.raises(DataError, match=r"metadata\.parquet: two columns are called 'x'"):
        check_data_folder(tmp_path / "data")


FAR = pa.array([2**61], pa.int64()).cast(pa.timestamp("s"))
"""Years that no file of Parquet holds."""


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (FAR, "column {} holds what Parquet does not: Integer overflow when casting timestamp value"),
        (pa.array([{}], pa.struct([])), "column {} has type struct<>, which Parquet does not have"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "column {} has type month_day_nano_interval, which"),
    ],
    ids=["far", "empty", "months"],
)
def test_what_parquet_does_not_hold(tmp_path: Path, odd: Any, told: str) -> None:
    """Once mistakes in semrec: years too far away anywhere, and of what people did types, too."""
    titles = {"media_id": ["a"], "title": ["A"], "vector": [[1.0, 2.0]]}
    write(tmp_path / "t.arrow", pa.table({**titles, "x": odd}))
    with pytest.raises(DataError, match=f"t.arrow: {told.format('x')}"):
        import_folder(tmp_path / "t.arrow", tmp_path / "out", TableWish())
    write(tmp_path / "t.arrow", pa.table(titles))
    write(tmp_path / "i.arrow", pa.table({"user": ["u"], "item": ["a"], "time": odd}))
    with pytest.raises(DataError, match=f"i.arrow: {told.format('time')}"):
        import_folder(tmp_path / "t.arrow", tmp_path / "out", TableWish(), interactions=tmp_path / "i.arrow")
    assert not (tmp_path / "out").exists()


def test_records_may_have_keys_that_the_first_has_not() -> None:
    """Once a fault: what only later ones had was lost."""
    records = [{"media_id": "a", "title": "A"}, {"media_id": "b", "title": "B", "year": 1990}]
    found = Recommender.from_arrays(np.eye(2, dtype="f4"), records).search(np.eye(2, dtype="f4"), 1)
    assert [answer[0].year for answer in found] == [None, 1990]
    with pytest.raises(DataError, match="metadata: two columns are called '1'"):
        Recommender.from_arrays(
            np.eye(2, dtype="f4"), {"media_id": ["a", "b"], "title": ["A", "B"], 1: [1, 2], "1": [3, 4]}
        )


def test_years_too_far_away_in_memory() -> None:
    done = pa.table({"user": ["u"], "item": ["a"], "time": FAR})
    with pytest.raises(DataError, match="interactions cannot be read: Casting from timestamp"):
        Recommender.from_arrays(np.ones((1, 2), "f4"), {"media_id": ["a"], "title": ["A"]}, interactions=done)


def write(path: Path, table: Any) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
