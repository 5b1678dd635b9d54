"""Paths that nothing can be written to, told before the work; what is there stays as it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from semrec_faiss import places
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.places import ARROW, BUNDLE, CONFIG, HDF5, JSON, PARQUET, Content, check_new_folder
from semrec_faiss.storage import new_file

TEXT = Content("a text", (b"kept",))


def check_new_file(path: Path, option: str) -> None:
    """Ask for a file such as the fixture's."""
    places.check_new_file(path, option, TEXT)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("path", ["new", "file", "folder/new", "no/such/folder/new"])
def test_files_that_can_be_written(place: Path, path: str) -> None:
    before = sorted(place.rglob("*"))
    check_new_file(place / path, "--out")
    assert sorted(place.rglob("*")) == before, "nothing is made by asking"


@pytest.mark.parametrize("path", ["", "folder", "no/such/folder"])
def test_folders_that_can_be_written(place: Path, path: str) -> None:
    before = sorted(place.rglob("*"))
    check_new_folder(place / path, "--out")
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("check", "path", "told"),
    [
        (check_new_file, ".", r" is a directory; --out is the file to write\n--out .*NAME"),
        (check_new_file, "folder", "folder is a directory"),
        (check_new_file, "file/new", "file/new cannot be made: .*file is a file"),
        (check_new_file, "file/no/such/new", "cannot be made: .*file is a file"),
        (check_new_file, "pipe", "pipe is neither a file nor a new name"),
        (check_new_file, "n" * 300, r"…. .*cannot be written: the name is too long"),
        (check_new_file, "nul\0", "cannot be written: .*embedded null"),
        (check_new_folder, "file", "file is a file; --out is a directory"),
        (check_new_folder, "file/new", "cannot be made: .*file is a file"),
        (check_new_folder, "pipe", "pipe is a file"),
        (check_new_folder, "n" * 300, "the name is too long"),
    ],
)
def test_paths_that_cannot_be_written(place: Path, check: Callable[[Path, str], None], path: str, told: str) -> None:
    if path == "pipe" and not (place / "pipe").exists():
        pytest.skip("this system has no pipes with a name")
    with pytest.raises(UsageError, match=told) as caught:
        check(place / path, "--out")
    assert caught.value.exit_code == 2
    assert (place / "file").read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("path", ["index/CURRENT", "index/new", "index/gen-000001/vectors.npy", "index/gen-000001/new"])
def test_an_indexs_files_are_its_own(place: Path, path: str) -> None:
    (place / "index" / "gen-000001").mkdir(parents=True)
    (place / "index" / "CURRENT").write_text("gen-000001", encoding="utf-8")
    with pytest.raises(
        UsageError, match=f"{path} lies in the index .*index, whose files are its own\nname another OUT"
    ):
        check_new_file(place / path, "OUT")
    check_new_file(place / "beside", "OUT")


@pytest.mark.parametrize("path", ["data/media/metadata.parquet", "data/users/seen.parquet", "data/users/new", "link"])
def test_a_data_folders_files_are_its_own(place: Path, path: str) -> None:
    """Once a fault: `dataset export` wrote titles in the place of what users had seen, both Parquet."""
    for folder in ("media", "users"):
        (place / "data" / folder).mkdir(parents=True)
    (place / "data/media/metadata.parquet").write_bytes(TEXT.begins[0])
    (place / "link").symlink_to(place / "data/users/seen.parquet")
    with pytest.raises(
        UsageError, match=f"{path} lies in the data folder .*data, whose files are its own\nname another"
    ):
        check_new_file(place / path, "OUT")
    check_new_file(place / "data/beside", "OUT")
    check_new_file(place / "users/new", "OUT")


# Once a fault: reports, results and sweeps were written among the files of an index.
def test_no_folder_is_written_in_an_index(place: Path) -> None:
    (place / "index" / "gen-000001").mkdir(parents=True)
    (place / "index" / "CURRENT").write_text("gen-000001", encoding="utf-8")
    for path, told in (("index", "is an index"), ("index/new", "lies in"), ("index/gen-000001", "lies in the index")):
        with pytest.raises(UsageError, match=f"{path} {told}.*, whose files are its own"):
            check_new_folder(place / path, "--out")
    check_new_folder(place / "beside", "--out")


def test_bare_dot_and_nothing_are_directories(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for path in (".", "", "..", "/"):
        with pytest.raises(UsageError, match="is a directory"):
            check_new_file(Path(path), "--out")


def test_a_disk_that_refuses_is_told_with_its_own_words(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(places.tempfile, "TemporaryFile", refuse)
    for check in (check_new_file, check_new_folder):
        with pytest.raises(StorageError, match=r"cannot write .*new: Read-only file system") as caught:
            check(place / "new", "--out")
        assert caught.value.exit_code == 8


# Once a fault: what was written went to the place of a device, /dev/null, which was a file from then on.
@pytest.mark.parametrize("path", ["pipe", "folder", "."])
def test_what_is_no_file_is_never_replaced_by_one(place: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    if path == "pipe" and not (place / "pipe").exists():
        pytest.skip("this system has no pipes with a name")
    monkeypatch.chdir(place)
    before = {entry.name: entry.stat().st_mode for entry in place.iterdir()}
    with pytest.raises(OSError, match="it is"), new_file(Path(path)) as file:
        file.write(b"x")
    assert {entry.name: entry.stat().st_mode for entry in place.iterdir()} == before


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for check in (check_new_file, check_new_folder):
        for path in (tmp_path / "circle", tmp_path / "circle" / "inside"):
            with pytest.raises(UsageError, match="links lead in a circle"):
                check(path, "--out")


BEGINS = {
    PARQUET: b"PAR1...",
    ARROW: b"ARROW1...",
    HDF5: b"\x89HDF\r\n\x1a\n...",
    BUNDLE: b"\x28\xb5\x2f\xfd...",
    JSON: b"{}",
    CONFIG: b"# By `semrec tune a.yaml",
}


@pytest.mark.parametrize("content", BEGINS, ids=lambda content: content.told)
def test_a_file_of_something_else_is_not_replaced(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "mine"
    for held in BEGINS.values():
        path.write_bytes(held)
        if held == BEGINS[content]:
            places.check_new_file(path, "--out", content)
            continue
        with pytest.raises(UsageError, match=f"mine holds something else than {content.told}") as caught:
            places.check_new_file(path, "--out", content)
        assert caught.value.fix == "name another --out, or remove it"
        assert path.read_bytes() == held
    path.write_bytes(b"")
    places.check_new_file(path, "--out", content)
