"""A CSV that cannot be read is told with the line where it goes wrong and what to do; so are files of other kinds."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from semrec_faiss.data.interactions.source import write_seen
from semrec_faiss.data.tables.folder import import_folder
from semrec_faiss.data.tables.importing import TableWish
from semrec_faiss.errors import DataError, SemrecError

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
    ],
    ids=["quote", "backslash", "open", "latin", "utf-16", "ends", "ends after a text of two lines"],
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
