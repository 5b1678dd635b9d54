"""Blocks of made-up titles made by processes of their own: threads would wait for one another's Python.

Such a process runs :func:`work`. It is told its task once and then the number of each block, writes the block's vectors
into the file at their place, and answers with everything else about the block.
"""

from __future__ import annotations

import contextlib
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
from semrec_faiss.data.synthetic_world import (
    BLOCK_TITLES,
    GENRE_SETS,
    THEMES_PER_GENRE,
    TitleBlock,
    make_titles,
)
from semrec_faiss.errors import SemrecError

MOST_WORKERS = 16
WORKERS_BYTES = 720 << 20
"""What all workers together may hold of their own."""

INTERPRETER_BYTES = 24 << 20
"""What one holds of its own for Python and numpy; their libraries are in memory once for all."""

FEWEST_BLOCKS = 64
"""With fewer, starting processes takes longer than they save."""

_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""Workers multiply no matrices; each would start a thread a core for it."""

AHEAD = 2
"""Blocks that a worker has to do: one in the making, and one to go on with."""


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
    centres = len(GENRE_SETS) * THEMES_PER_GENRE * dim * 4  # of a world, which each worker makes for itself
    each = INTERPRETER_BYTES + centres + work_bytes(dim) + BLOCK_TITLES * dim * item_bytes
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
    started: list[_Worker] = []
    blocks = -(-task.titles // BLOCK_TITLES)
    try:
        for _ in range(workers):
            started.append(_Worker())
            started[-1].ask(task)
        for number in range(min(blocks, AHEAD * workers)):
            started[number % workers].ask(number)
        for number in range(blocks):
            worker = started[number % workers]
            block = worker.answer()
            if number + AHEAD * workers < blocks:
                worker.ask(number + AHEAD * workers)
            yield block
        for worker in started:
            worker.ask(None)
            peaks.append(worker.answer())
    finally:
        for worker in started:
            worker.end()


class _Worker:
    """A process that runs `work`; it answers through a pipe of its own, because anything may print."""

    def __init__(self) -> None:
        """Start it with the module path of this process, the current folder left out: its files are the user's."""
        path = [str(Path(place).absolute()) for place in sys.path if place]
        answers, writing = os.pipe()
        program = f"import sys; sys.path[:] = {path!r}; from {__name__} import main; main({writing})"
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[writing],
                env=os.environ | dict.fromkeys(_THREADS, "1"),
                start_new_session=True,  # Ctrl-C is for the one who asks, and ends these
            )
        except OSError as error:
            os.close(answers)
            raise SemrecError(
                f"cannot start a process that makes titles: {error.strerror or error}",
                fix="end other programs, or raise the limit on processes or memory",
            ) from error
        finally:
            os.close(writing)
        self._answers = os.fdopen(answers, "rb")

    def ask(self, message: object) -> None:
        """Send it a task, the number of a block, or None at the end."""
        assert self.process.stdin is not None
        try:
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def answer(self) -> Any:
        """Wait for what it answers; raises what the disk refused it."""
        try:
            answer = pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _ended(self) -> SemrecError:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return SemrecError(
            f"a process that made titles ended with exit code {code}",
            fix="run it again; exit code -9 may be for want of memory: on a machine with more",
        )

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._answers.close()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()


def work(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Do what is asked until None is; then tell the most memory that this process ever held."""
    task: Task = pickle.load(asked)
    world = World(task.dim, task.seed)
    rows = np.empty((BLOCK_TITLES, task.dim), np.dtype(task.dtype))
    try:
        with Path(task.path).open("r+b", buffering=0) as file:
            while (number := pickle.load(asked)) is not None:
                facts = make_titles(task.seed, number)
                count = min(BLOCK_TITLES, task.titles - number * BLOCK_TITLES)
                world.vectors(facts, rows)
                lines = json_lines(facts, count)
                _write_at(file.fileno(), rows[:count].data.cast("B"), task.offset + number * rows.nbytes)
                pickle.dump(WrittenBlock(facts, count, lines), answers, protocol=pickle.HIGHEST_PROTOCOL)
                answers.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        pickle.dump(error, answers)
        answers.flush()
        return
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


def main(answers: int) -> None:
    """Work for the process at the other end of standard input and of the descriptor ``answers``."""
    try:
        with os.fdopen(answers, "wb") as file:
            work(sys.stdin.buffer, file)
    except (BrokenPipeError, EOFError, KeyboardInterrupt):
        sys.exit(1)  # who asked is gone
