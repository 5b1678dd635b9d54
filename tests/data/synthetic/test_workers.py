"""Made-up data by processes: the same bytes, and what happens to it and to them when something goes wrong."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import subprocess
import sys
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, is_running, run_python, until

from semrec_faiss.data.synthetic import tastes, titles
from semrec_faiss.data.synthetic.workers import Workers, processes_for, threads_for
from semrec_faiss.data.synthetic.world import BLOCK_TITLES
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.errors import SemrecError

HOME = Path(titles.__file__).parents[3]


def run(program: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=HANG_SECONDS, **options)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "dtype", "known"), [(1, "float32", 100), (20_480, "float64", 100_000), (30_000, "float16", 500)]
)
def test_processes_write_the_same_bytes(
    tmp_path: Path, count: int, dtype: Any, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tastes, "KNOWN_TITLES", known)
    made = {"titles": count, "users": 5000, "dim": 24, "seed": 7, "seen_per_user": 20, "media_dtype": dtype}
    write_synthetic(tmp_path / "threads", processes=0, **made)
    report = write_synthetic(tmp_path / "processes", processes=3, **made)
    assert report.processes == 3
    assert bytes_of(tmp_path / "processes") == bytes_of(tmp_path / "threads")
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("dim", "item", "expected"), [(64, 4, 20), (384, 2, 19), (384, 4, 18), (1024, 8, 12), (4096, 8, 4)]
)
def test_processes_hold_less_than_a_gigabyte(dim: int, item: int, expected: int) -> None:
    assert processes_for(10**8, dim, item, cores=64) == expected
    assert processes_for(10**8, dim, item, cores=3) == 3
    assert processes_for(60 * 2048, dim, item, cores=64) == 0


def test_long_vectors_have_fewer_makers() -> None:
    assert [threads_for(dim, 4, cores=64) for dim in (64, 384, 1024, 4096)] == [8, 8, 8, 8]
    assert [threads_for(dim, 8, cores=64) for dim in (64, 384, 1024, 4096)] == [8, 8, 8, 6]


def square(number: int) -> int:
    return number * number


def full(number: int) -> int:
    if number == 5:
        raise OSError(errno.ENOSPC, "No space left on device")
    return number


def hungry(_: int) -> Any:
    return np.empty(1 << 56)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_parts_come_in_order_whatever_the_threads(workers: int) -> None:
    with Workers(0, workers) as threads:
        assert list(threads.in_order(square, range(50))) == [number**2 for number in range(50)]


def test_orders_are_taken_as_parts_are() -> None:
    taken: list[int] = []
    with Workers(0, 2) as threads:
        parts = threads.in_order(square, (taken.append(number) or number for number in range(50)))
        assert [next(parts), next(parts)] == [0, 1]
        assert len(taken) == 6


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_told() -> None:
    with Workers(2, 0) as workers:
        assert list(workers.in_order(square, range(7))) == [number**2 for number in range(7)]
        parts, made = workers.in_order(full, range(40)), list[int]()
        with pytest.raises(OSError, match="No space left on device"):
            made.extend(parts)
        assert made == [0, 1, 2, 3, 4]
        with pytest.raises(MemoryError, match="Unable to allocate"):
            list(workers.in_order(hungry, range(3)))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_processes_that_cannot_be_started_leave_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = SpawnProcess.start, list[SpawnProcess]()

    def third_fails(process: SpawnProcess) -> None:
        if len(started) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        start(process)
        started.append(process)

    monkeypatch.setattr(SpawnProcess, "start", third_fails)
    with pytest.raises(SemrecError, match="cannot start a process that makes data: Resource temporarily unavailable"):
        write_synthetic(tmp_path / "x", titles=20_000, users=0, dim=8, processes=3)
    assert list(tmp_path.iterdir()) == []
    assert [process.exitcode is not None for process in started] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_processes_end_with_what_they_are_for(tmp_path: Path, how: str) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "titles" and how == "interrupted":
            raise KeyboardInterrupt
        if what == "titles" and done == BLOCK_TITLES:  # what was made before is still told after it
            multiprocessing.active_children()[0].kill()

    with pytest.raises(KeyboardInterrupt if how == "interrupted" else SemrecError) as caught:
        write_synthetic(tmp_path / "x", titles=100_000, users=0, dim=48, processes=3, progress=stop)
    assert how == "interrupted" or "ended with exit code -9" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert multiprocessing.active_children() == []


SIGNALLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from semrec_faiss.data.synthetic.write import write_synthetic
def stop(what, done, total):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.killpg(0, signal.SIGINT) if sys.argv[2] == "interrupted" else os.kill(os.getpid(), signal.SIGKILL)
write_synthetic(Path(sys.argv[1]), titles=200_000, users=0, dim=48, processes=2, progress=stop)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_no_process_stays_when_the_one_that_asks_is_gone(tmp_path: Path, how: str) -> None:
    """Ctrl-C goes to the whole group: the one who asks answers it, alone."""
    done = run(SIGNALLED, tmp_path / "x", how, start_new_session=True)
    assert done.returncode == (-signal.SIGINT if how == "interrupted" else -signal.SIGKILL)
    assert done.stderr.count("Traceback") == (how == "interrupted"), done.stderr
    children = [int(pid) for pid in done.stdout.split()]
    assert children
    until(lambda: not any(map(is_running, children)))
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_processes_import_what_this_one_has_and_no_more(tmp_path: Path) -> None:
    """A script without `if __name__ == "__main__"`, files beside it named as modules are, and another copy of ours."""
    for name in ("json.py", "queue.py", "socket.py")[: None if sys.version_info >= (3, 11) else 1]:
        (tmp_path / name).write_text("raise SystemExit('mine')")
    (tmp_path / "run").mkdir()
    (tmp_path / "other" / "semrec_faiss").mkdir(parents=True)
    (tmp_path / "other" / "semrec_faiss" / "__init__.py").write_text("raise SystemExit('the other one')")
    program = tmp_path / "run" / "program.py"
    program.write_text(
        "import os, sys\nfrom pathlib import Path\n"
        "from semrec_faiss.data.synthetic.write import write_synthetic\n"
        "before = sys.path[:], dict(os.environ), sys.modules['__main__']\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "write_synthetic(Path('x'), titles=9000, users=0, dim=8, processes=2)\n"
        "assert (sys.path[1:], dict(os.environ), sys.modules['__main__']) == before\n"
    )
    done = run_python(program, tmp_path / "other", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len((tmp_path / "x/media/metadata.jsonl").read_text().splitlines()) == 9000


@pytest.mark.slow
def test_a_file_that_grows_too_large_is_told(tmp_path: Path) -> None:
    """A limit on the size of a file, which the vectors go over."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from semrec_faiss.data.synthetic.write import write_synthetic\n"
        "sys.dont_write_bytecode = True\n"  # or what is imported from here on is cut short for everybody
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))\n"
        "write_synthetic(Path(sys.argv[1]), titles=9000, users=0, dim=256, processes=2)"
    )
    done = run(program, tmp_path / "x")
    assert done.returncode == 1
    assert "StorageError: cannot write" in done.stderr and "/x: File too large" in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("dim", [384, 2048])
def test_processes_hold_what_is_counted(tmp_path: Path, dim: int) -> None:
    """The most that one of them held, its libraries and the directions included, which are in memory once for all."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from semrec_faiss.data.synthetic.vectors import directions_bytes\n"
        "from semrec_faiss.data.synthetic.write import write_synthetic\n"
        "write_synthetic(Path(sys.argv[1]), titles=9000, users=0, dim=int(sys.argv[2]), processes=2)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 - directions_bytes(int(sys.argv[2])))"
    )
    most = int(run(program, tmp_path / "x", dim).stdout)
    counted = (720 << 20) / processes_for(10**8, dim, 4, cores=64)
    assert 0.3 * counted < most < counted + (48 << 20)
