"""What is written is the old or the new, whole, whenever its writer is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, run_python

from semrec_faiss.data.folder.out_folder import check_out_folder
from semrec_faiss.errors import UsageError
from semrec_faiss.storage import new_folder

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
