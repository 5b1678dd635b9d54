"""Parquet files: what is none, or not whole, is told for what it is before a reader is asked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Semrec, make_data_folder

from semrec_faiss.data.folder.parquet import parquet_parts
from semrec_faiss.data.seen_table import distinct_ids
from semrec_faiss.errors import DataError

CSV = b"user_id,media_id\nuser_001,m00001\n"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda whole: CSV, r"is not a Parquet file: it begins with b'user_id,media_id\nuser_00'"),
        (lambda whole: b"", "is empty; a Parquet file is expected"),
        (lambda whole: b"P", "is not a Parquet file: it begins with b'P'"),
        (lambda whole: whole[:4], "is a Parquet file whose end is missing"),
        (lambda whole: whole[:-1], "is a Parquet file whose end is missing"),
        (lambda whole: whole[: len(whole) // 2], "is a Parquet file whose end is missing"),
    ],
)
def test_a_file_of_another_kind_or_cut_off(tmp_path: Path, spoil: object, said: str) -> None:
    part = tmp_path / "seen" / "part-0.parquet"
    part.parent.mkdir()
    pq.write_table(pa.table({"user_id": ["u"], "media_id": ["m"]}), part)
    whole = part.read_bytes()
    assert parquet_parts(part) == parquet_parts(part.parent) == [part]
    assert callable(spoil)
    part.write_bytes(spoil(whole))
    for path in (part, part.parent):
        with pytest.raises(DataError) as caught:
            parquet_parts(path)
        assert (caught.value.message, bool(caught.value.fix)) == (f"{part} {said}", True)


def test_a_data_folder_says_what_it_takes(tmp_path: Path, semrec: Semrec) -> None:
    make_data_folder(tmp_path / "data", users=5)
    (tmp_path / "data/users/seen.parquet").write_bytes(CSV)
    told = semrec("dataset", "check", tmp_path / "data")
    assert (told.code, "seen.parquet is not a Parquet file: it begins" in told.err) == (3, True)


def test_damage_that_only_an_export_meets_and_names_that_are_no_text(tmp_path: Path, semrec: Semrec) -> None:
    """Once "a mistake in semrec", or as if OUT could not be written."""
    pq.write_table(pa.table({"media_id": ["a", "b"], "title": ["A", "B"]}), tmp_path / "t.parquet")
    semrec("dataset", "import", tmp_path / "t.parquet", tmp_path / "data", "--without-vectors")
    path = tmp_path / "data/media/metadata.parquet"
    whole = path.read_bytes()
    start = pq.read_metadata(path).row_group(0).column(1).data_page_offset
    for damaged in (whole[:start] + bytes(20) + whole[start + 20 :], whole.replace(b"/////", b"/!!!/")):
        assert damaged != whole
        path.write_bytes(damaged)
        told = semrec("dataset", "export", tmp_path / "data", tmp_path / "out.parquet")
        assert (told.code, "metadata.parquet cannot be read" in told.err) == (3, True), told.err
        assert not (tmp_path / "out.parquet").exists()
    pq.write_table(pa.table({"user_id": ["u"], "media_id": ["a"], "ratings": [1.0]}), tmp_path / "seen.parquet")
    made = (tmp_path / "seen.parquet").read_bytes()
    (tmp_path / "seen.parquet").write_bytes(made.replace(b"ratings", b"rating\xff"))
    with pytest.raises(DataError, match="the name of a column is not UTF-8"):
        distinct_ids(tmp_path / "seen.parquet", "user_id")


def test_damage_in_a_column_that_no_check_reads_is_told_as_bad_data(tmp_path: Path, semrec: Semrec) -> None:
    """Once "a mistake in semrec": the table was found right, and then loaded."""
    made = make_data_folder(tmp_path / "data", titles=300)
    (made.root / "media/metadata.jsonl").unlink()
    table = pa.table({"media_id": made.media_ids, "title": made.titles, "note": [f"note {n * n}" for n in range(300)]})
    path = made.root / "media/metadata.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    note = pq.read_metadata(path).row_group(0).column(2)
    content = bytearray(path.read_bytes())
    end = note.data_page_offset + note.total_compressed_size
    content[end - 400 : end] = bytes(400)
    path.write_bytes(content)
    for command in (("dataset", "check", made.root), ("build", "--dataset", made.root, "--output", tmp_path / "index")):
        told = semrec(*command)
        assert (told.code, "metadata.parquet cannot be read: " in told.err) == (3, True), told.err
    assert not (tmp_path / "index").exists()
