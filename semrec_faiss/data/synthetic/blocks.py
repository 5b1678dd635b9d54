"""Blocks of made-up titles, made and written by processes, or few of them by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.synthetic.lines import json_lines
from semrec_faiss.data.synthetic.tastes import KnownTitles, best_known, share_of
from semrec_faiss.data.synthetic.vectors import World, work_bytes
from semrec_faiss.data.synthetic.workers import AHEAD, Crew, write_at
from semrec_faiss.data.synthetic.world import BLOCK_TITLES, make_titles

# Threads that make blocks; fewer where vectors are so long that their arrays would take more than this together.
_MOST_THREADS, _WORK_BYTES = 8, 512 << 20

_LINES_ROOM = 64 << 20  # by which the file of lines grows, see NpyWriter.begin

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Titles:
    """What titles are to be made.

    Attributes:
        titles, dim: the shape of their vectors.
        dtype: of these, with its byte order.
        seed: of the world.
        known_share: what part of a block its best known titles are.
    """

    titles: int
    dim: int
    dtype: str
    seed: int
    known_share: float

    @property
    def blocks(self) -> int:
        """How many blocks they are."""
        return -(-self.titles // BLOCK_TITLES)

    def count(self, number: int) -> int:
        """How many titles the ``number``-th block has."""
        return min(BLOCK_TITLES, self.titles - number * BLOCK_TITLES)


@dataclass(frozen=True)
class TitleFiles:
    """Open files that titles are written to.

    Attributes:
        vectors: of all titles.
        lines: metadata.jsonl.
        known: vectors of the best known titles alone, where they are wanted.
    """

    vectors: NpyWriter
    lines: IO[bytes]
    known: NpyWriter | None


@dataclass(frozen=True)
class WrittenBlock:
    """A block of titles that is in the files: how many it has, the bytes of their lines, the best known of them."""

    count: int
    line_bytes: int
    known: KnownTitles


@dataclass(frozen=True)
class BlocksJob:
    """Making blocks of titles.

    Attributes:
        titles: which.
        directions: the .npy file of what vectors are sums of; workers share it in memory.
        vectors, lines, known: the files of TitleFiles.
        vectors_at, known_at: bytes of the headers of the .npy files, which are written already.
    """

    titles: Titles
    directions: str
    vectors: str
    vectors_at: int
    lines: str
    known: str | None
    known_at: int

    @contextmanager
    def opened(self) -> Iterator[Callable[[BlockOrder], WrittenBlock | None]]:
        """Open the files; gives what makes one block."""
        titles = self.titles
        world = World(titles.dim, titles.seed, np.asarray(np.load(self.directions, mmap_mode="r")))
        rows = np.empty((BLOCK_TITLES, titles.dim), np.dtype(titles.dtype))
        unplaced: deque[bytes] = deque()
        with (
            Path(self.vectors).open("r+b", buffering=0) as vectors_file,
            Path(self.lines).open("r+b", buffering=0) as lines_file,
            nullcontext() if self.known is None else Path(self.known).open("r+b", buffering=0) as known_file,
        ):

            def carry_out(order: BlockOrder) -> WrittenBlock | None:
                if order.lines_at is not None:
                    write_at(lines_file, unplaced.popleft(), order.lines_at)
                if order.number is None:
                    return None
                facts, count = make_titles(titles.seed, order.number), titles.count(order.number)
                world.vectors(facts, rows)
                write_at(vectors_file, rows[:count].data, self.vectors_at + order.number * rows.nbytes)
                known = best_known(facts, count, titles.known_share)
                if known_file is not None:
                    before = order.number * share_of(BLOCK_TITLES, titles.known_share)
                    write_at(known_file, rows[known.rows % BLOCK_TITLES].data, self.known_at + before * rows.strides[0])
                unplaced.append(json_lines(facts, count))
                return WrittenBlock(count, len(unplaced[-1]), known)

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


def written_by_processes(
    crew: Crew, titles: Titles, directions: Path, files: TitleFiles
) -> Generator[WrittenBlock, None, None]:
    """Have all blocks made and written by processes, and yield them in order.

    Raises:
        OSError: the disk refused to be written to.
        SemrecError: a process ended before its work did.
    """
    known = (None, 0) if files.known is None else (files.known.name, files.known.begin())
    crew.begin(BlocksJob(titles, str(directions), files.vectors.name, files.vectors.begin(), files.lines.name, *known))
    at_once = min(titles.blocks, AHEAD * crew.size)
    for number in range(at_once):
        crew.ask(number, BlockOrder(number, None))
    lines_at = room = 0
    for number in range(titles.blocks):
        block: WrittenBlock = crew.answer(number)
        if lines_at + block.line_bytes > room:
            room += max(_LINES_ROOM, block.line_bytes)
            os.truncate(files.lines.name, room)
        # The worker's next turn comes so many orders later; where there are none left, it only learns the lines' place.
        following = number + AHEAD * crew.size
        crew.ask(number, BlockOrder(following if following < titles.blocks else None, lines_at))
        lines_at += block.line_bytes
        files.vectors.count(block.count)
        if files.known is not None:
            files.known.count(len(block.known.rows))
        yield block
    for number in range(titles.blocks - at_once, titles.blocks):
        crew.answer(number)
    crew.finish()
    os.truncate(files.lines.name, lines_at)


def written_by_threads(titles: Titles, files: TitleFiles) -> Generator[WrittenBlock, None, None]:
    """Write all blocks, made in threads, and yield them in order."""
    world = World(titles.dim, titles.seed)
    # Written arrays go back to those who make them: new memory costs more than what is done in it.
    free: SimpleQueue[NDArray[Any]] = SimpleQueue()

    def make(number: int) -> tuple[NDArray[Any], bytes, WrittenBlock]:
        facts, count = make_titles(titles.seed, number), titles.count(number)
        try:
            rows = free.get_nowait()
        except Empty:
            rows = np.empty((BLOCK_TITLES, titles.dim), np.dtype(titles.dtype))
        lines, known = json_lines(facts, count), best_known(facts, count, titles.known_share)
        return world.vectors(facts, rows), lines, WrittenBlock(count, len(lines), known)

    with closing(_made_ahead(make, titles.blocks, _threads(titles.dim, np.dtype(titles.dtype).itemsize))) as blocks:
        for rows, lines, block in blocks:
            files.vectors.write(rows[: block.count])
            files.lines.write(lines)
            if files.known is not None:
                files.known.write(rows[block.known.rows % BLOCK_TITLES])
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
