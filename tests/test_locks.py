"""One process at a time writes a place; another is told which one, and file systems without locks are lived with."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, Semrec

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.text.embed import embed_folder
from semrec_faiss.errors import UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.locks import only_writer
from semrec_faiss.measure.quality.export_with_truth import export_folder
from semrec_faiss.search.export import export_all_users

HOLD = """
import sys
from pathlib import Path
from semrec_faiss.locks import only_writer
with only_writer(*map(Path, sys.argv[1:])):
    print("here", flush=True); sys.stdin.read()
"""


def holding(*paths: Path) -> subprocess.Popen[str]:
    """Another process that has the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, *map(str, paths)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
    assert other.stdout is not None and other.stdout.readline() == "here\n"
    return other


@pytest.mark.parametrize("stays", [True, False])
def test_who_writes_is_named_and_after_a_kill_nobody_does(tmp_path: Path, stays: bool) -> None:
    place, locks = tmp_path / "out", [tmp_path / "lock"] if stays else []
    with holding(place, *locks) as other:
        named = rf"another process is writing .*out: process {other.pid} on {socket.gethostname()}, since 20\d\d-"
        for _ in range(2):  # being refused takes nothing from the one that holds it
            with pytest.raises(UsageError, match=named), only_writer(place, *locks):
                pass
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=HANG_SECONDS)
    here = pytest.raises(UsageError, match=f"process {os.getpid()} on")
    with only_writer(place, *locks), here, only_writer(place, *locks):
        pass
    assert [path.name for path in tmp_path.iterdir()] == (["lock"] if stays else [])
    assert not stays or (tmp_path / "lock").read_text() == ""


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks_is_gone_on_with_and_told(
    tmp_path: Path, make_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    made = make_folder(tmp_path / "data", titles=30, users=3)
    with pytest.warns(Warning, match="without locks|flock not supported"):
        build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    assert IndexDirectory(tmp_path / "index").current().manifest.count == 30
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = export_all_users(Recommender.open(tmp_path / "index"), tmp_path / "recs.parquet", 3)
    assert summary.users_with_k == 3


def test_a_lock_that_the_disk_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"), only_writer(tmp_path / "out"):
        pass


class _Encoder:
    device, batch_size = "cpu", 4

    def encode(self, texts: Any) -> Any:
        return np.ones((len(texts), 3), np.float32)


def test_a_second_run_into_one_output_is_refused_and_changes_nothing(
    tmp_path: Path, make_folder: Callable[..., Any]
) -> None:
    """Once a fault: two runs into one OUT both succeeded."""
    made = make_folder(tmp_path / "data", titles=30, users=3)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    recommender, encoder = Recommender.open(tmp_path / "index"), _Encoder()
    vectors = made.root / "media" / "content_vectors.npy"
    runs: dict[Path, Callable[[Path], object]] = {
        tmp_path / "recs.parquet": lambda out: export_all_users(recommender, out, 3),
        tmp_path / "out.hdf5": lambda out: export_folder(made.root, out, queries=2, k=2),
        tmp_path / "bins": lambda out: export_folder(made.root, out, queries=2, k=2),
        vectors: lambda _: embed_folder(made.root, model="made up", overwrite=True, encoder=encoder),
    }
    before = vectors.read_bytes()
    for out, run in runs.items():
        with only_writer(out), pytest.raises(UsageError, match="another process is writing"):
            run(out)
        assert not out.exists() or (out, out.read_bytes()) == (vectors, before)
        run(out)
    assert np.load(vectors).shape == (30, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bins", "data", "index", "out.hdf5", "recs.parquet"]


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (["evaluate", "INDEX", "--out", "judged.json"], "judged.json"),
        (["compare", "INDEX", "--out", "results"], "results"),
        (["bench", "search", "--titles", "100", "--out", "results"], "results"),
        (["bundle", "INDEX", "packed.tar.zst"], "packed.tar.zst"),
        (["dataset", "export", "DATA", "titles.parquet"], "titles.parquet"),
    ],
)
def test_commands_that_take_long_refuse_a_second_run_before_they_begin(
    tmp_path: Path, make_folder: Callable[..., Any], command: list[str], out: str, semrec: Semrec
) -> None:
    made = make_folder(tmp_path / "data", titles=30, users=3)
    build_index(config_from_dict({"dataset": str(made.root), "output": str(tmp_path / "index"), "device": "cpu"}))
    arguments = [{"INDEX": "index", "DATA": "data"}.get(one, one) for one in command]
    with only_writer(tmp_path / out):
        refused = semrec(*arguments, cwd=tmp_path)
        assert refused.code == 2
        assert f"another process is writing {tmp_path / out}: process {os.getpid()} on " in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "index"]
