"""Made-up titles written block by block: made in several threads, written by one, flushed by another."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
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
from semrec_faiss.data.synthetic_world import BLOCK_TITLES, TitleBlock, TitlePool, make_titles
from semrec_faiss.progress import Progress

FloatName = Literal["float16", "float32", "float64"]

# Threads that make blocks; fewer where vectors are so long that their arrays would take more than this together.
_MOST_WORKERS, _WORK_BYTES = 8, 512 << 20

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _MadeBlock:
    """A block that is ready to be written: its facts, its vectors, of which ``count`` titles exist, and their lines."""

    facts: TitleBlock
    rows: NDArray[Any]
    count: int
    lines: bytes


def write_titles(
    folder: Path, shape: tuple[int, int], seed: int, dtype: FloatName, pool: TitlePool | None, progress: Progress
) -> None:
    """Write the vectors and the metadata of ``shape`` (titles, dim) to ``folder``, and put the titles into ``pool``."""
    titles, dim = shape
    world, stored = World(dim, seed), np.dtype(dtype).newbyteorder("<")
    (folder / METADATA).parent.mkdir()

    # Written arrays go back to those who make them: new memory costs more than what is done in it.
    free: SimpleQueue[NDArray[Any]] = SimpleQueue()

    def make(number: int) -> _MadeBlock:
        facts = make_titles(seed, number)
        count = min(BLOCK_TITLES, titles - number * BLOCK_TITLES)
        try:
            rows = free.get_nowait()
        except Empty:
            rows = np.empty((BLOCK_TITLES, dim), stored)
        return _MadeBlock(facts, world.vectors(facts, rows), count, json_lines(facts, count))

    with (
        (folder / MEDIA_VECTORS).open("wb") as vectors_file,
        (folder / METADATA).open("wb") as lines_file,
        NpyWriter(vectors_file, shape, dtype) as vectors,
        EarlyFlush(vectors_file) as flush_vectors,
        EarlyFlush(lines_file) as flush_lines,
        closing(_made_ahead(make, -(-titles // BLOCK_TITLES), _workers(dim, stored.itemsize))) as blocks,
    ):
        done = 0
        for block in blocks:
            vectors.write(block.rows[: block.count])
            flush_vectors.wrote(block.rows[: block.count].nbytes)
            free.put(block.rows)
            lines_file.write(block.lines)
            flush_lines.wrote(len(block.lines))
            if pool is not None:
                pool.add(block.facts)
            done += block.count
            progress("titles", done, titles)


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
