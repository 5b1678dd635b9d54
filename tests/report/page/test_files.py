"""The files of a report: all of them or none, whatever the disk says in the middle."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_python

from semrec_faiss.errors import StorageError
from semrec_faiss.measure.documents.results import save_files
from semrec_faiss.report.page import files as report_files
from semrec_faiss.report.page.document import Document, Section, Text
from semrec_faiss.report.page.files import save_report

PROGRAM = """
import resource, sys
from pathlib import Path
from semrec_faiss.errors import StorageError
from semrec_faiss.measure.documents.results import save_files
sys.dont_write_bytecode = True  # or what is imported from here on is cut short for everybody
resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
out = Path(sys.argv[1])
try:
    save_files({out / "a.html": b"a" * 8_000, out / "in" / "b.png": b"b" * 10_000})
except StorageError as error:
    print(error.message)
"""


# Once a fault: a full disk left the first of a report's files, or an empty folder.
def test_a_full_disk_leaves_all_files_of_a_report_or_none(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    ended = run_python("-c", PROGRAM, out)
    assert (ended.stdout, ended.stderr) == (f"cannot write {out / 'in' / 'b.png'}: File too large\n", "")
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)
    (out / "a.html").write_bytes(b"before")
    run_python("-c", PROGRAM, out)
    assert [path.name for path in out.iterdir()] == ["a.html"]
    assert (out / "a.html").read_bytes() == b"before"
    save_files({out / "a.html": b"after", out / "in" / "b.png": b"b"})
    assert ((out / "a.html").read_bytes(), (out / "in" / "b.png").read_bytes()) == (b"after", b"b")


def test_a_report_with_a_picture_that_cannot_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_files, "png", bytes)
    out = tmp_path / "out"
    document = Document("Title", "Summary.", [Section("One", [Text("Words.")])])
    written = save_report(document, [{"n": 1}], {"one": b"1", "two": b"2"}, out)
    assert [path.name for path in written] == ["report.html", "summary.csv", "one.png", "two.png"]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(StorageError, match=r"cannot write .*x\.png"):
        save_report(document, [{"n": 2}], {"one": b"3", "y" * 300 + "x": b"4"}, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
