"""Made-up titles written block by block: by processes, or few of them by threads; flushed while more are made."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.atomic import NpyWriter
from semrec_faiss.data.early_flush import EarlyFlush
from semrec_faiss.data.layout import MEDIA_VECTORS, METADATA
from semrec_faiss.data.synthetic_lines import json_lines
from semrec_faiss.data.synthetic_vectors import World, work_bytes
from semrec_faiss.data.synthetic_worker import Task, WrittenBlock, workers_for, written_by_processes
from semrec_faiss.data.synthetic_world import BLOCK_TITLES, TitlePool, make_titles
from semrec_faiss.progress import Progress

FloatName = Literal["float16", "float32", "float64"]

# Threads that make blocks; fewer where vectors are so long that their arrays would take more than this together.
_MOST_WORKERS, _WORK_BYTES = 8, 512 << 20

_Result = TypeVar("_Result")


def write_titles(
    folder: Path, shape: tuple[int, int], seed: int, dtype: FloatName, pool: TitlePool | None, progress: Progress
) -> int:
    """Write the vectors and the metadata of ``shape`` (titles, dim) to ``folder``, and put the titles into ``pool``.

    Returns:
        The most memory that other processes held for it, in bytes, all together.
    """
    titles, dim = shape
    stored = np.dtype(dtype).newbyteorder("<")
    workers = workers_for(titles, dim, stored.itemsize)
    peaks: list[int] = []
    (folder / METADATA).parent.mkdir()
    with (
        (folder / MEDIA_VECTORS).open("wb") as vectors_file,
        (folder / METADATA).open("wb") as lines_file,
        NpyWriter(vectors_file, shape, dtype) as vectors,
        EarlyFlush(vectors_file) as flush_vectors,
        EarlyFlush(lines_file) as flush_lines,
    ):
        if workers:
            task = Task(vectors_file.name, vectors.begin(), titles, dim, stored.str, seed)
            made = written_by_processes(task, workers, peaks)
        else:
            made = _written_here(vectors, shape, seed, stored)
        done = 0
        with closing(made) as blocks:
            for block in blocks:
                if workers:
                    vectors.count(block.count)
                flush_vectors.wrote(block.count * dim * stored.itemsize)
                lines_file.write(block.lines)
                flush_lines.wrote(len(block.lines))
                if pool is not None:
                    pool.add(block.facts)
                done += block.count
                progress("titles", done, titles)
    return sum(peaks)


def _written_here(
    vectors: NpyWriter, shape: tuple[int, int], seed: int, stored: np.dtype[Any]
) -> Generator[WrittenBlock, None, None]:
    """Write the vectors of all blocks, made in threads."""
    titles, dim = shape
    world = World(dim, seed)
    # Written arrays go back to those who make them: new memory costs more than what is done in it.
    free: SimpleQueue[NDArray[Any]] = SimpleQueue()

    def make(number: int) -> tuple[NDArray[Any], WrittenBlock]:
        facts = make_titles(seed, number)
        count = min(BLOCK_TITLES, titles - number * BLOCK_TITLES)
        try:
            rows = free.get_nowait()
        except Empty:
            rows = np.empty((BLOCK_TITLES, dim), stored)
        return world.vectors(facts, rows), WrittenBlock(facts, count, json_lines(facts, count))

    with closing(_made_ahead(make, -(-titles // BLOCK_TITLES), _workers(dim, stored.itemsize))) as blocks:
        for rows, block in blocks:
            vectors.write(rows[: block.count])
            free.put(rows)
            yield block


def _workers(dim: int, item_bytes: int) -> int:
    # Beside what it works in, each has an array that it fills and one that waits to be written.
    each = work_bytes(dim) + 2 * BLOCK_TITLES * dim * item_bytes
    return max(1, min(_MOST_WORKERS, os.cpu_count() or 1, _WORK_BYTES // each))


def _made_ahead(make: Callable[[int], _Result], blocks: int, workers: int) -> Generator[_Result, None, None]:
    """Yield make(0), make(1), …, made in threads a little ahead of their use."""
    with ThreadPoolExecutor(workers) as threads:
        waiting: deque[Future[_Result]] = deque()
        for number in range(blocks):
            waiting.append(threads.submit(make, number))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
