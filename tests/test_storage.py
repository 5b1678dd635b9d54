"""Paths that nothing can be written to, told before the work; what is there stays as it is."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, run_python

from semrec_faiss import storage
from semrec_faiss.data.folder.out_folder import check_out_folder
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.storage import check_new_file, check_new_folder, new_file, new_folder


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

    monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
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


EMBEDDED = ["place/media/content_vectors.json", "place/media/content_vectors.npy"]
WRITERS = {
    "file": ("old", "new", ["place"]),
    "folder": (["a old"], ["a new", "b new"], ["place/a", "place/b"]),
    "folder-in-two-steps": (["a old"], ["a new", "b new"], ["place/a", "place/b"]),
    "embed": (1.0, -1.0, EMBEDDED),
    "embed-then-other": (
        1.0,
        -1.0,
        EMBEDDED,
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks")
@pytest.mark.parametrize("how", WRITERS)
def test_what_a_killed_writer_leaves_is_mended_by_the_next(tmp_path: Path, how: str) -> None:
    old, new, files = WRITERS[how]
    program = Path(__file__).with_name("killed_writers.py")
    ended = run_python(program, how, tmp_path)
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    assert len(outcomes) >= 2
    seen = [outcome["killed"] for outcome in outcomes]
    gone = [None] if how == "folder-in-two-steps" else []  # between the steps, and put back by the next run
    assert all(found in [old, new, *gone] for found in seen), seen
    wanted = old if how == "embed-then-other" else new
    assert all(outcome["again"] == wanted for outcome in outcomes)
    expected = sorted([*files, "place/media/metadata.jsonl"] if how.startswith("embed") else files)
    assert all(outcome["files"] == expected for outcome in outcomes), outcomes


def test_what_stood_aside_is_put_back(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    aside = tmp_path / f"out.old-{gone.pid}"
    aside.mkdir()
    (aside / "kept").write_text("kept", encoding="utf-8")
    running = tmp_path / f"out.partial-{os.getppid()}"
    running.mkdir()
    with pytest.raises(UsageError, match="is not empty"):
        check_out_folder(tmp_path / "out", overwrite=False)
    assert (tmp_path / "out" / "kept").read_text(encoding="utf-8") == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", running.name]


def test_only_one_process_makes_a_folder_at_a_time(tmp_path: Path) -> None:
    """Once a fault: two runs into one OUT both succeeded, and the second's folder replaced the first's."""
    program = (
        "import sys; from pathlib import Path; from semrec_faiss.storage import new_folder\n"
        "with new_folder(Path(sys.argv[1])):\n"
        "    print('here', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as other:
        assert other.stdout is not None and other.stdout.readline() == "here\n"
        with pytest.raises(UsageError, match=r"another process is writing .*out"), new_folder(tmp_path / "out"):
            pass
        other.communicate(timeout=HANG_SECONDS)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with new_folder(tmp_path / "out"):  # free again
        pass


@pytest.mark.slow
def test_a_terminated_command_leaves_nothing_half_written(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from semrec_faiss.cli.process.exit import exit_code_of\n"
        "from semrec_faiss.storage import new_file, new_folder\n"
        "def work():\n"
        "    with new_folder(Path(sys.argv[1])), new_file(Path(sys.argv[2])) as file:\n"
        "        file.write(b'half'); print('here', flush=True); sys.stdin.read()\n"
        "sys.exit(exit_code_of(work, debug=False))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out"), str(tmp_path / "file")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8") as running:
        assert running.stdout is not None and running.stdout.readline() == "here\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=HANG_SECONDS) == 143
        assert running.stderr is not None and running.stderr.read() == "\nterminated\n"
    assert list(tmp_path.iterdir()) == []


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for check in (check_new_file, check_new_folder):
        for path in (tmp_path / "circle", tmp_path / "circle" / "inside"):
            with pytest.raises(UsageError, match="links lead in a circle"):
                check(path, "--out")
