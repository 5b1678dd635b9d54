"""Who makes the data: processes, as threads wait for one another's Python; threads where there is little to make."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from semrec_faiss.data.synthetic.vectors import directions_bytes, drawing_bytes, work_bytes
from semrec_faiss.data.synthetic.world import BLOCK_TITLES
from semrec_faiss.errors import SemrecError

MOST_PROCESSES = 20
PROCESSES_BYTES = 720 << 20
"""What all processes together may hold of their own, with the directions that they share, and with drawing these."""

INTERPRETER_BYTES = 30 << 20
"""What one holds of its own for Python and numpy; their libraries are in memory once for all."""

FEWEST_BLOCKS = 64
"""With fewer, starting processes takes longer than they save."""

MOST_THREADS, THREADS_BYTES = 8, 512 << 20
"""Fewer threads where vectors are so long that their arrays would take more than this together."""

AHEAD = 2
"""Parts a worker that are made before it is their turn to be taken."""

LINE_BYTES = 190
"""About what a title's line in metadata.jsonl takes."""

_ENVIRONMENT = {
    # Workers multiply no matrices; each would start a thread a core for it.
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
    "PYTHONSAFEPATH": "1",  # files in the current folder are the user's
}

_Order = TypeVar("_Order")
_Part = TypeVar("_Part")


def processes_for(titles: int, dim: int, item_bytes: int, cores: int) -> int:
    """Tell how many processes are worth it on so many cores: 0 where threads do as well."""
    may_start = os.name != "nt" and not multiprocessing.current_process().daemon
    if not may_start or -(-titles // BLOCK_TITLES) < FEWEST_BLOCKS:
        return 0
    making = work_bytes(dim) + BLOCK_TITLES * (dim * item_bytes + (AHEAD + 1) * LINE_BYTES)
    shared = directions_bytes(dim) + drawing_bytes(dim)
    return max(1, min(MOST_PROCESSES, cores, (PROCESSES_BYTES - shared) // (INTERPRETER_BYTES + making)))


def threads_for(dim: int, item_bytes: int, cores: int) -> int:
    """Tell how many threads are worth it on so many cores."""
    making = work_bytes(dim) + BLOCK_TITLES * (dim * item_bytes + (AHEAD + 1) * LINE_BYTES)
    return max(1, min(MOST_THREADS, cores, THREADS_BYTES // making))


class Workers:
    """Makes parts of data by processes or threads, which end with the ``with`` block that this is used in.

    Args:
        processes: how many; 0 for threads.
        threads: how many, where there are no processes.

    Raises:
        SemrecError: the system refuses what starting processes takes.
    """

    def __init__(self, processes: int, threads: int) -> None:
        self._size = processes or threads
        self._context = _Context()
        self._pool: Executor = self._processes(processes) if processes else ThreadPoolExecutor(threads)

    def _processes(self, count: int) -> Executor:
        with _told_why(), _starting():  # multiprocessing starts one of its own here
            return ProcessPoolExecutor(count, self._context, _end_with_parent)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def in_order(self, make: Callable[[_Order], _Part], orders: Iterable[_Order]) -> Generator[_Part, None, None]:
        """Yield ``make(order)`` of each order, in their order, made a little ahead of their use.

        Args:
            make: what makes a part; like orders and parts, something that can be pickled.
            orders: taken as there is room for their parts.

        Raises:
            OSError: as ``make`` raised it.
            MemoryError: as ``make`` raised it.
            SemrecError: a process could not be started, or ended before its work did.
        """
        waiting: deque[Future[_Part]] = deque()
        try:
            for order in orders:
                with _told_why():
                    waiting.append(self._pool.submit(make, order))
                if len(waiting) > AHEAD * self._size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise self._ended() from error

    def _ended(self) -> SemrecError:
        self._pool.shutdown()  # when the first has ended, the pool ends the others by SIGTERM
        codes = [process.exitcode for process in self._context.started]
        code = next((code for code in codes if code not in (0, None, -signal.SIGTERM)), -signal.SIGTERM)
        return SemrecError(
            f"a process that made data ended with exit code {code}",
            fix="run it again; exit code -9 may be for want of memory: on a machine with more",
        )


@contextmanager
def _told_why() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SemrecError(
            f"cannot start a process that makes data: {error.strerror or error}",
            fix="end other programs, or raise the limit on processes or memory",
        ) from error


@contextmanager
def _starting() -> Iterator[None]:
    """Have processes that start meanwhile import this package, and nothing of the program that asks for them.

    They do without the program's ``__main__``, which may be a script that makes data when it is imported.
    """
    main, path = sys.modules["__main__"], sys.path[:]
    environment = {name: os.environ.get(name) for name in _ENVIRONMENT}
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for the one who asks
    try:
        sys.modules["__main__"] = ModuleType("__main__")
        sys.path.insert(0, str(Path(__file__).absolute().parents[3]))  # the same code, wherever it was found
        os.environ.update(_ENVIRONMENT)
        yield
    finally:
        sys.modules["__main__"], sys.path[:] = main, path
        for name, value in environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)


class _Process(SpawnProcess):
    def start(self) -> None:
        with _starting():
            super().start()


class _Context(SpawnContext):
    """Makes a pool's processes, and remembers them."""

    def __init__(self) -> None:
        self.started: list[_Process] = []

    def Process(self, *arguments: Any, **options: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        self.started.append(_Process(*arguments, **options))
        return self.started[-1]


def _end_with_parent() -> None:
    """Have this process end when its parent is killed: a pool's process would wait for orders for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
