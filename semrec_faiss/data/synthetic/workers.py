"""Processes that make parts of made-up data: threads would wait for one another's Python.

Such a process runs :func:`work`. It is given jobs; of each it is told once what all its orders have in common, and then
order after order, and answers each. What is to be written it writes itself, at its place in a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from semrec_faiss.data.synthetic.vectors import directions_bytes, drawing_bytes, work_bytes
from semrec_faiss.data.synthetic.world import BLOCK_TITLES
from semrec_faiss.errors import SemrecError

MOST_WORKERS = 20
WORKERS_BYTES = 720 << 20
"""What all workers together may hold of their own, with the directions that they share, and with drawing these."""

INTERPRETER_BYTES = 30 << 20
"""What one holds of its own for Python and numpy; their libraries are in memory once for all."""

FEWEST_BLOCKS = 64
"""With fewer, starting processes takes longer than they save."""

AHEAD = 8
"""Orders that a worker has: one in the making, and some to go on with while it is another one's turn to be heard."""

LINE_BYTES = 190
"""About what a title's line in metadata.jsonl takes."""

_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""Workers multiply no matrices; each would start a thread a core for it."""


class Job(Protocol):
    """What orders of one kind have in common; sent to a worker by pickle."""

    def opened(self) -> AbstractContextManager[Callable[[Any], Any]]:
        """Get ready; gives what carries out one order and returns the answer."""


def workers_for(titles: int, dim: int, item_bytes: int) -> int:
    """Return how many processes are worth it: 0 where threads do as well."""
    if os.name == "nt" or -(-titles // BLOCK_TITLES) < FEWEST_BLOCKS:
        return 0
    making = work_bytes(dim) + BLOCK_TITLES * (dim * item_bytes + (AHEAD + 2) * LINE_BYTES)
    shared = directions_bytes(dim) + drawing_bytes(dim)
    return max(1, min(MOST_WORKERS, _usable_cores(), (WORKERS_BYTES - shared) // (INTERPRETER_BYTES + making)))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Crew:
    """So many processes, all at the same job. They start when the block begins and end with it, whatever they do.

    Args:
        size: how many; none for 0.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers: list[_Worker] = []

    def __enter__(self) -> Crew:
        try:
            for _ in range(self.size):
                self._workers.append(_Worker())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def begin(self, job: Job) -> None:
        """Give all a job."""
        for worker in self._workers:
            worker.ask(job)

    def ask(self, number: int, order: object) -> None:
        """Give the ``number``-th order, to whose turn it is."""
        self._workers[number % self.size].ask(order)

    def answer(self, number: int) -> Any:
        """Wait for the answer to the ``number``-th order; each worker answers in the order that it was asked.

        Raises:
            OSError: the disk refused to be written to.
            MemoryError: the worker got none.
            SemrecError: the worker ended before its work did.
        """
        return self._workers[number % self.size].answer()

    def finish(self) -> None:
        """End the job, all of whose orders are answered; no worker has its files open afterwards."""
        for worker in self._workers:
            worker.ask(None)
        for worker in self._workers:
            worker.answer()

    def peak_bytes(self) -> int:
        """End all, between jobs, and return the most memory that they ever held of their own, all together."""
        for worker in self._workers:
            worker.ask(None)
        return sum(worker.answer() for worker in self._workers)

    def _end(self) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """A process that runs `work`; it answers through a pipe of its own, because anything may print."""

    def __init__(self) -> None:
        """Start it with the module path of this process, the current folder left out: its files are the user's."""
        home = str(Path(__file__).absolute().parents[3])  # the same code, also where '' on the path led to it
        path = [home, *(str(Path(place).absolute()) for place in sys.path if place)]
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
                f"cannot start a process that makes data: {error.strerror or error}",
                fix="end other programs, or raise the limit on processes or memory",
            ) from error
        finally:
            os.close(writing)
        self._answers = os.fdopen(answers, "rb")

    def ask(self, message: object) -> None:
        """Send it a job, an order, or None at the end of either."""
        assert self.process.stdin is not None
        try:
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError:
            while True:  # it is gone; the last that it answered says why, where it could
                self.answer()

    def answer(self) -> Any:
        """Wait for what it answers; raises what the disk refused it, or MemoryError."""
        try:
            answer = pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        if isinstance(answer, OSError | MemoryError):
            raise answer
        return answer

    def _ended(self) -> SemrecError:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return SemrecError(
            f"a process that made data ended with exit code {code}",
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
    """Do job after job until there is none; then tell the most memory that this process ever held of its own."""
    peak = 0
    try:
        while (job := pickle.load(asked)) is not None:
            with job.opened() as carry_out:
                while (order := pickle.load(asked)) is not None:
                    _answer(answers, carry_out(order))
                peak = max(peak, _own_peak_bytes())  # while what it shares with others is still mapped
            del carry_out  # and what it holds
            _forget_peak()
            _answer(answers, None)
    except BrokenPipeError:
        raise
    except MemoryError as error:
        _answer(answers, MemoryError(str(error)))
        return
    except OSError as error:
        _answer(answers, MemoryError(error.strerror) if error.errno == errno.ENOMEM else error)
        return
    _answer(answers, peak)


def _answer(answers: IO[bytes], answer: object) -> None:
    pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
    answers.flush()


def write_at(file: IO[bytes], data: memoryview | bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset`` of a file that is open without a buffer."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(file.fileno(), rest, offset)
        rest, offset = rest[written:], offset + written


def _own_peak_bytes() -> int:
    """Return the most that this process held, files in memory not counted where the system tells how much they are."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        held, shared = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmHWM", "RssFile"))
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
    return (held - shared) * 1024


def _forget_peak() -> None:
    """Let the system's count of the most memory begin anew, where it can: see proc(5), clear_refs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main(answers: int) -> None:
    """Work for the process at the other end of standard input and of the descriptor ``answers``."""
    try:
        with os.fdopen(answers, "wb") as file:
            work(sys.stdin.buffer, file)
    except (BrokenPipeError, EOFError, KeyboardInterrupt, pickle.UnpicklingError):
        sys.exit(1)  # who asked is gone
