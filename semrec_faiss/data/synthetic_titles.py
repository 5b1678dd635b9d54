"""Made-up titles written block by block: by processes, or few of them by threads; flushed while more are made."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.atomic import NpyWriter
from semrec_faiss.data.early_flush import EarlyFlush
from semrec_faiss.data.layout import MEDIA_VECTORS, METADATA
from semrec_faiss.data.synthetic_lines import json_lines
from semrec_faiss.data.synthetic_tastes import KnownTitles, TitlePool, best_known
from semrec_faiss.data.synthetic_vectors import World, draw_directions, work_bytes
from semrec_faiss.data.synthetic_worker import AHEAD, Crew, write_at
from semrec_faiss.data.synthetic_world import BLOCK_TITLES, make_titles
from semrec_faiss.progress import Progress

FloatName = Literal["float16", "float32", "float64"]

# Threads that make blocks; fewer where vectors are so long that their arrays would take more than this together.
_MOST_THREADS, _WORK_BYTES = 8, 512 << 20

_LINES_ROOM = 64 << 20  # by which the file of lines grows, see NpyWriter.begin

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class WrittenBlock:
    """A block of titles that is in the files: how many it has, the bytes of their lines, the best known of them."""

    count: int
    line_bytes: int
    known: KnownTitles


@dataclass(frozen=True)
class TitlesJob:
    """Making blocks of titles.

    Attributes:
        directions: the .npy file of what vectors are sums of; workers share it in memory.
        vectors: the .npy file of vectors, whose header is written already.
        offset: bytes of that header.
        lines: the file of metadata.
        titles, dim: the shape of the vectors.
        dtype: of that file.
        seed: of the world.
        known_share: what part of a block its best known titles are.
    """

    directions: str
    vectors: str
    offset: int
    lines: str
    titles: int
    dim: int
    dtype: str
    seed: int
    known_share: float

    @contextmanager
    def opened(self) -> Iterator[Callable[[BlockOrder], WrittenBlock | None]]:
        """Open the files; gives what makes one block."""
        world = World(self.dim, self.seed, np.asarray(np.load(self.directions, mmap_mode="r")))
        rows = np.empty((BLOCK_TITLES, self.dim), np.dtype(self.dtype))
        unplaced: deque[bytes] = deque()
        with (
            Path(self.vectors).open("r+b", buffering=0) as vectors_file,
            Path(self.lines).open("r+b", buffering=0) as lines_file,
        ):

            def carry_out(order: BlockOrder) -> WrittenBlock | None:
                if order.lines_at is not None:
                    write_at(lines_file, unplaced.popleft(), order.lines_at)
                if order.number is None:
                    return None
                facts = make_titles(self.seed, order.number)
                count = min(BLOCK_TITLES, self.titles - order.number * BLOCK_TITLES)
                world.vectors(facts, rows)
                write_at(vectors_file, rows[:count].data, self.offset + order.number * rows.nbytes)
                unplaced.append(json_lines(facts, count))
                return WrittenBlock(count, len(unplaced[-1]), best_known(facts, count, self.known_share))

            yield carry_out


@dataclass(frozen=True)
class BlockOrder:
    """One order of a TitlesJob.

    Attributes:
        number: of the block to be made; None for none.
        lines_at: where the lines of the earliest block go that this worker made and was not told it of yet. Their place
            is known only when all blocks before are made. None for none.
    """

    number: int | None
    lines_at: int | None


def write_titles(
    folder: Path,
    shape: tuple[int, int],
    seed: int,
    dtype: FloatName,
    pool: TitlePool | None,
    crew: Crew,
    progress: Progress,
) -> None:
    """Write the vectors and the metadata of ``shape`` (titles, dim) to ``folder``, and put the titles into ``pool``."""
    titles, dim = shape
    stored = np.dtype(dtype).newbyteorder("<")
    known_share = 0.0 if pool is None else pool.share
    (folder / METADATA).parent.mkdir()
    with (
        (folder / MEDIA_VECTORS).open("wb") as vectors_file,
        (folder / METADATA).open("wb") as lines_file,
        NpyWriter(vectors_file, shape, dtype) as vectors,
        EarlyFlush(vectors_file) as flush_vectors,
        EarlyFlush(lines_file) as flush_lines,
    ):
        if crew.size:
            directions = folder / "directions.npy"
            _save(directions, draw_directions(dim, seed))
            files = str(directions), vectors_file.name, vectors.begin(), lines_file.name
            made = _written_by_processes(crew, TitlesJob(*files, titles, dim, stored.str, seed, known_share), vectors)
        else:
            made = _written_by_threads(vectors, lines_file, shape, seed, stored, known_share)
        done = 0
        with closing(made) as blocks:
            for block in blocks:
                flush_vectors.wrote(block.count * dim * stored.itemsize)
                flush_lines.wrote(block.line_bytes)
                if pool is not None:
                    pool.add(block.known)
                done += block.count
                progress("titles", done, titles)
        if crew.size:
            directions.unlink()


def _save(path: Path, vectors: NDArray[np.int16]) -> None:
    rows, dim = vectors.shape
    with path.open("wb") as file, NpyWriter(file, (rows, dim), vectors.dtype) as writer:
        writer.write(vectors)


def _written_by_processes(crew: Crew, job: TitlesJob, vectors: NpyWriter) -> Generator[WrittenBlock, None, None]:
    """Have all blocks made and written by processes, and yield them in order."""
    blocks = -(-job.titles // BLOCK_TITLES)
    at_once = min(blocks, AHEAD * crew.size)
    crew.begin(job)
    for number in range(at_once):
        crew.ask(number, BlockOrder(number, None))
    lines_at = room = 0
    for number in range(blocks):
        block: WrittenBlock = crew.answer(number)
        if lines_at + block.line_bytes > room:
            room += max(_LINES_ROOM, block.line_bytes)
            os.truncate(job.lines, room)
        # The same worker: its turn comes every so many orders, and `at_once` is a multiple of that or all there is.
        following = number + AHEAD * crew.size
        crew.ask(number, BlockOrder(following if following < blocks else None, lines_at))
        lines_at += block.line_bytes
        vectors.count(block.count)
        yield block
    for number in range(blocks - at_once, blocks):
        crew.answer(number)
    crew.finish()
    os.truncate(job.lines, lines_at)


def _written_by_threads(
    vectors: NpyWriter,
    lines_file: IO[bytes],
    shape: tuple[int, int],
    seed: int,
    stored: np.dtype[Any],
    known_share: float,
) -> Generator[WrittenBlock, None, None]:
    """Write all blocks, made in threads, and yield them in order."""
    titles, dim = shape
    world = World(dim, seed)
    # Written arrays go back to those who make them: new memory costs more than what is done in it.
    free: SimpleQueue[NDArray[Any]] = SimpleQueue()

    def make(number: int) -> tuple[NDArray[Any], bytes, WrittenBlock]:
        facts = make_titles(seed, number)
        count = min(BLOCK_TITLES, titles - number * BLOCK_TITLES)
        try:
            rows = free.get_nowait()
        except Empty:
            rows = np.empty((BLOCK_TITLES, dim), stored)
        lines = json_lines(facts, count)
        return world.vectors(facts, rows), lines, WrittenBlock(count, len(lines), best_known(facts, count, known_share))

    with closing(_made_ahead(make, -(-titles // BLOCK_TITLES), _threads(dim, stored.itemsize))) as blocks:
        for rows, lines, block in blocks:
            vectors.write(rows[: block.count])
            lines_file.write(lines)
            free.put(rows)
            yield block


def _threads(dim: int, item_bytes: int) -> int:
    # Beside what it works in, each has an array that it fills and one that waits to be written.
    each = work_bytes(dim) + 2 * BLOCK_TITLES * dim * item_bytes
    return max(1, min(_MOST_THREADS, os.cpu_count() or 1, _WORK_BYTES // each))


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
