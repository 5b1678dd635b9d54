"""A disk that takes no more: the build fails as our error, and the index that was there is untouched."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_python

from semrec_faiss import Recommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import StorageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations import directory as store
from semrec_faiss.index.generations import generation
from semrec_faiss.index.saved.verifying import verify
from semrec_faiss.index.update.plan import Change
from semrec_faiss.index.update.updating import update_index

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*few to train")]

# Writes vectors.npy, index.faiss, items.parquet, users.npy, users.parquet, seen.parquet and the manifest.
KIND: dict[str, Any] = {"type": "ivf_pq", "build": {"nlist": 4, "nbits": 4}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> tuple[Path, Path]:
    """An old and a new data folder."""
    root = tmp_path_factory.mktemp("folders")
    old, new = (
        make_folder(root / word, titles=100, dim=16, users=8, seed=seed, word=word).root
        for seed, word in enumerate(("Old", "New"))
    )
    return old, new


def build(folder: Path, output: Path) -> None:
    """Build every kind of file that an index has."""
    build_index(config_from_dict({"dataset": str(folder), "output": str(output), "index": KIND}))


def check_untouched(index: Path, generation: str = "gen-000001", word: str = "Old") -> None:
    """The old index is whole and answers, and nothing else lies in its folder."""
    assert verify(index).name == generation
    assert {result.title.split()[0] for result in Recommender.open(index).similar("m00007", 5)} == {word}
    assert Recommender.open(index).recommend("user_003", 2).returned == 2
    unknown = [path.name for path in index.iterdir() if not re.fullmatch(r"\.lock|CURRENT|gen-\d{6}", path.name)]
    assert unknown == []
    assert sorted(path.name for path in index.glob("gen-*"))[-1] == generation, "an unpublished generation was left"


@pytest.fixture
def index(tmp_path: Path, folders: tuple[Path, Path]) -> Path:
    """An index of the old folder."""
    build(folders[0], tmp_path / "index")
    return tmp_path / "index"


# --- a limit on the size of files, which no library gets past --------------------------------------------------------

_LIMITED = """
import json, os, resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import duckdb, faiss, numpy.ma
from semrec_faiss.errors import SemrecError
import semrec_faiss.index.build.run, semrec_faiss.index.build.users, semrec_faiss.search.recommender
from semrec_faiss.config.reading import config_from_dict
output, folder, limits, kind = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
build = semrec_faiss.index.build
for limit, step in limits:
    module = build.users if hasattr(build.users, step) else build.run
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        faiss.omp_set_num_threads(1)
        real = getattr(module, step)
        def limited(*arguments, **options):
            sys.dont_write_bytecode = True  # or what is imported from here on is cut short for everybody
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return real(*arguments, **options)
        setattr(module, step, limited)
        try:
            build.run.build_index(config_from_dict({"dataset": folder, "output": output, "index": kind}))
            outcome = ["built", 0, ""]
        except SemrecError as error:
            outcome = [type(error).__name__, error.exit_code, str(error)]
        except BaseException as error:
            outcome = ["NOT OURS " + type(error).__name__, 1, str(error)]
        left = sorted(os.listdir(output)) if os.path.isdir(output) else None
        os.write(writer, json.dumps([limit, *outcome, left]).encode())
        os._exit(0)
    os.close(writer)
    print(os.fdopen(reader).read() or json.dumps([limit, "crashed", -1, "", []]), flush=True)
    os.waitpid(pid, 0)
"""


def build_limited(output: Path, folder: Path, limits: list[int], step: str = "choose_device") -> list[list[Any]]:
    """Build in forks of one process, each limited in bytes a file from a ``step`` of index/build on."""
    steps = json.dumps([(limit, step) for limit in limits])
    told = ("-c", _LIMITED, output, folder, steps, json.dumps(KIND))
    done = run_python(*told, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on the size of files")
def test_files_that_cannot_grow_end_in_a_storage_error(index: Path, folders: tuple[Path, Path]) -> None:
    sizes = sorted({path.stat().st_size for path in index.rglob("*") if path.is_file()} - {0})
    limits = sorted({0, 1, *sizes, *(size - 1 for size in sizes), *(size // 2 for size in sizes)} - {sizes[-1]})
    outcomes = build_limited(index, folders[1], limits)
    assert [limit for limit, *_ in outcomes] == limits
    for limit, kind, code, message, _ in outcomes:
        assert (kind, code) == ("StorageError", 8), (limit, kind, message)
        assert str(index) in message, (limit, message)
    listed = {tuple(names) for *_, names in outcomes}
    assert listed == {(".lock", "CURRENT", "gen-000001")}
    check_untouched(index)
    assert build_limited(index, folders[1], [sizes[-1] * 2])[0][1] == "built"
    check_untouched(index, "gen-000002", "New")


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on the size of files")
@pytest.mark.parametrize("step", ["write_user_ids", "write_seen", "Manifest"])
def test_a_disk_that_fills_up_late_ends_in_a_storage_error_too(
    step: str, index: Path, folders: tuple[Path, Path]
) -> None:
    for limit, kind, code, message, names in build_limited(index, folders[1], [0, 3, 200], step):
        # Once a fault: DuckDB's IOException for users.parquet and seen.parquet.
        assert (kind, code) == ("StorageError", 8), (limit, kind, message)
        assert names == [".lock", "CURRENT", "gen-000001"]
    check_untouched(index)


# --- an error at any write, fsync, rename or close --------------------------------------------------------------------


class _FullFile(io.BufferedWriter):
    """A file whose disk may be full."""

    def __init__(self, raw: io.RawIOBase, take: Callable[[str], None]) -> None:
        super().__init__(raw)
        self._take = take

    def write(self, data: Any) -> int:
        """Write, or find the disk full."""
        self._take("write")
        return super().write(data)


@pytest.fixture
def disk(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Make the n-th operation on the index's disk fail with ENOSPC; returns the list of operations as they come."""

    def fail_at(number: int) -> list[str]:
        done: list[str] = []

        def take(what: str) -> None:
            done.append(what)
            if len(done) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        real_open, real_fsync = Path.open, os.fsync
        real_rename, real_replace = os.rename, os.replace

        def open_path(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if "w" not in mode or index not in self.parents:
                return real_open(self, mode, *arguments, **options)
            take(f"open {self.name}")
            return _FullFile(io.FileIO(self, "w"), take)

        def fsync(descriptor: int) -> None:
            take("fsync")
            real_fsync(descriptor)

        def rename(source: Any, target: Any, **options: Any) -> None:
            take(f"rename {Path(target).name}")
            real_rename(source, target, **options)

        def replace(source: Any, target: Any, **options: Any) -> None:
            take(f"replace {Path(target).name}")
            real_replace(source, target, **options)

        monkeypatch.setattr(Path, "open", open_path)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", rename)
        monkeypatch.setattr(os, "replace", replace)
        return done

    yield fail_at
    assert builtins.open is io.open


def test_an_error_at_any_operation_keeps_the_old_index_or_has_published_the_new(
    index: Path, folders: tuple[Path, Path], disk: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pristine = index.with_name("pristine")
    shutil.copytree(index, pristine)
    for number in range(1, 400):
        done = disk(number)
        try:
            build(folders[1], index)
        except StorageError as error:
            assert error.exit_code == 8
        else:
            break
        finally:
            monkeypatch.undo()
        if f"replace {store.CURRENT_NAME}" in done[: number - 1]:  # the new index is in use; only syncing it failed
            assert verify(index).name == "gen-000002", done[-1]
            shutil.rmtree(index)
            shutil.copytree(pristine, index)
        else:
            # Once a fault: once its folder was renamed, the unpublished generation was left on a full disk.
            assert verify(index).name == "gen-000001", done[-1]
            assert sorted(path.name for path in index.iterdir()) == [".lock", "CURRENT", "gen-000001"], done[-1]
    assert len(done) == number - 1 >= 20, "an operation failed and nobody minded"
    assert verify(index).name == "gen-000002"


def test_an_error_at_any_operation_of_an_update_is_told_as_ours(
    index: Path, disk: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once a fault: of seen.parquet the user was shown what DuckDB said, with the name of a temporary file."""
    since = tmp_path / "since.parquet"
    pq.write_table(pa.table({"user_id": ["user_003", "user_004"], "media_id": ["m00007", "m00009"]}), since)
    failed: set[str] = set()
    for number in range(1, 200):
        done = disk(number)
        try:
            update_index(index, Change(seen=since, remove_titles=["m00011"]), compact_at=None)
        except StorageError as error:
            failed.add(done[-1])
            assert str(error).startswith(f"cannot write the index in {index}: {os.strerror(errno.ENOSPC)}; what was")
        else:
            break
        finally:
            monkeypatch.undo()
        if f"replace {store.CURRENT_NAME}" in done[: number - 1]:
            store.IndexDirectory(index).rollback()
        assert verify(index).name == "gen-000001", done[-1]
    assert len(done) == number - 1
    assert failed >= {"open seg-000002.seen.parquet", "open seg-000002.media_ids.parquet", "fsync", "rename gen-000002"}


def test_an_error_that_faiss_meets_while_it_writes_is_the_disk_s(
    index: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """index.faiss is written by C++ through a callback: its OSError must come out as it went in."""
    real = generation.HashingFile.write
    written = []

    def write(self: generation.HashingFile, data: Any) -> int:
        written.append(len(data))
        if len(written) > 30:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return real(self, data)

    monkeypatch.setattr(generation.HashingFile, "write", write)
    with pytest.raises(StorageError, match=re.escape(os.strerror(errno.EDQUOT))):
        build(folders[1], index)
    monkeypatch.undo()
    check_untouched(index)


def test_a_write_that_takes_only_a_part_is_noticed(
    index: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest tells what was handed over, so a file that lost bytes on its way is found before publishing."""
    real = generation.NewGeneration.finish

    def finish(self: generation.NewGeneration, manifest: Any) -> Any:
        path = self.folder / "index.faiss"
        path.write_bytes(path.read_bytes()[:-100])
        return real(self, manifest)

    monkeypatch.setattr(generation.NewGeneration, "finish", finish)
    with pytest.raises(Exception, match=r"index\.faiss") as caught:
        build(folders[1], index)
    assert caught.value.exit_code in (5, 8)
    monkeypatch.undo()
    check_untouched(index)


def test_rollback_on_a_full_disk_changes_nothing(
    index: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(folders[1], index)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "write_synced", full)
    with pytest.raises(StorageError):
        store.IndexDirectory(index).rollback()
    monkeypatch.undo()
    assert verify(index).name == "gen-000002"


def test_the_first_build_on_a_full_disk_leaves_no_half_index(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (limited,) = build_limited(tmp_path / "index", folders[0], [2000])
    assert limited[1:3] == ["StorageError", 8]
    assert limited[4] is None, "the directory was made for this build"
    build(folders[0], tmp_path / "index")
    check_untouched(tmp_path / "index")


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs limits on the size of files")
def test_the_command_line_ends_with_exit_code_6(index: Path, folders: tuple[Path, Path]) -> None:
    (index.parent / "c.yaml").write_text(f"dataset: {folders[1]}\noutput: {index}\n")
    program = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True\n"  # or what is imported from here on is cut short for everybody
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        f"sys.argv = ['semrec', 'build', {str(index.parent / 'c.yaml')!r}]\n"
        "runpy.run_module('semrec_faiss', run_name='__main__')\n"
    )
    done = run_python("-c", program)
    assert done.returncode == 8, done.stderr
    assert "Traceback" not in done.stderr
    assert "fix: " in done.stderr
    check_untouched(index)
