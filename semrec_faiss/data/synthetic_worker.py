"""Blocks of made-up titles made by processes of their own: threads would wait for one another's Python.

Such a process runs :func:`work`. It is told its task once and then the number of each block, writes the block's vectors
into the file at their place, and answers with everything else about the block.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from semrec_faiss.data.synthetic_lines import json_lines
from semrec_faiss.data.synthetic_vectors import World, work_bytes
from semrec_faiss.data.synthetic_world import BLOCK_TITLES, TitleBlock, make_titles
from semrec_faiss.errors import SemrecError

MOST_WORKERS = 16
WORKERS_BYTES = 720 << 20
"""What all workers together may hold of their own."""

INTERPRETER_BYTES = 36 << 20
"""What one holds of its own for Python and numpy; their libraries are in memory once for all."""

FEWEST_BLOCKS = 64
"""With fewer, starting processes takes longer than they save."""

AHEAD = 2
"""Blocks that a worker has to do: one in the making, and one to go on with."""


# Without the current folder, where a file of the user's may have the name of a module.
_PROGRAM = f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import main; main()"


@dataclass(frozen=True)
class Task:
    """What every block has in common.

    Attributes:
        path: the .npy file, whose header is written already.
        offset: bytes of that header.
        titles, dim: the shape of the whole array.
        dtype: of the file.
        seed: of the world.
    """

    path: str
    offset: int
    titles: int
    dim: int
    dtype: str
    seed: int


@dataclass(frozen=True)
class WrittenBlock:
    """A block whose vectors are in the file: its facts, how many titles it has, and their lines."""

    facts: TitleBlock
    count: int
    lines: bytes


def workers_for(titles: int, dim: int, item_bytes: int) -> int:
    """Return how many processes are worth it: 0 where threads do as well."""
    if os.name == "nt" or -(-titles // BLOCK_TITLES) < FEWEST_BLOCKS:
        return 0
    each = INTERPRETER_BYTES + work_bytes(dim) + BLOCK_TITLES * dim * item_bytes
    return max(1, min(MOST_WORKERS, _usable_cores(), WORKERS_BYTES // each))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def written_by_processes(task: Task, workers: int, peaks: list[int]) -> Generator[WrittenBlock, None, None]:
    """Have all blocks made and their vectors written; yield them in order, their peak memory goes to ``peaks``.

    Raises:
        OSError: the disk refused to be written to.
        SemrecError: a worker ended before its work did.
    """
    started = [_start(task) for _ in range(workers)]
    blocks = -(-task.titles // BLOCK_TITLES)
    try:
        for number in range(min(blocks, AHEAD * workers)):
            _ask(started[number % workers], number)
        for number in range(blocks):
            worker = started[number % workers]
            answer = _answer_of(worker)
            if number + AHEAD * workers < blocks:
                _ask(worker, number + AHEAD * workers)
            yield answer
        for worker in started:
            _ask(worker, None)
            peaks.append(_answer_of(worker))
    finally:
        for worker in started:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()


def _start(task: Task) -> subprocess.Popen[bytes]:
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    worker = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the one who asks, and ends these
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    _ask(worker, task)
    return worker


def _ask(worker: subprocess.Popen[bytes], message: object) -> None:
    assert worker.stdin is not None
    try:
        pickle.dump(message, worker.stdin)
        worker.stdin.flush()
    except BrokenPipeError as error:
        raise _ended(worker) from error


def _answer_of(worker: subprocess.Popen[bytes]) -> Any:
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        raise _ended(worker) from error
    if isinstance(answer, OSError):
        raise answer
    return answer


def _ended(worker: subprocess.Popen[bytes]) -> SemrecError:
    code = worker.wait()
    return SemrecError(
        f"a process that made titles ended with exit code {code}",
        fix="run it again; where the system ends processes for want of memory (exit code -9), on a machine with more",
    )


def work(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Do what is asked until None is; then tell the most memory that this process ever held."""
    task: Task = pickle.load(asked)
    world = World(task.dim, task.seed)
    rows = np.empty((BLOCK_TITLES, task.dim), np.dtype(task.dtype))
    with Path(task.path).open("r+b", buffering=0) as file:
        while (number := pickle.load(asked)) is not None:
            facts = make_titles(task.seed, number)
            count = min(BLOCK_TITLES, task.titles - number * BLOCK_TITLES)
            world.vectors(facts, rows)
            lines = json_lines(facts, count)
            try:
                _write_at(file.fileno(), rows[:count].data.cast("B"), task.offset + number * rows.nbytes)
            except OSError as error:
                pickle.dump(error, answers)
                answers.flush()
                return
            pickle.dump(WrittenBlock(facts, count, lines), answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
    pickle.dump(_peak_bytes(), answers)
    answers.flush()


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _peak_bytes() -> int:
    """Return the most that this process ever held, libraries not counted where the system tells how much they are."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        held, shared = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmHWM", "RssFile"))
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
    return (held - shared) * 1024


def main() -> None:
    """Work for the process at the other end of standard input and output."""
    try:
        work(sys.stdin.buffer, sys.stdout.buffer)
    except (BrokenPipeError, EOFError, KeyboardInterrupt):
        sys.exit(1)  # who asked is gone
