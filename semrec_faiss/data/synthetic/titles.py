"""Made-up titles: their vectors, their metadata, and those that users choose among."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA
from semrec_faiss.data.folder.npy import NpyFile
from semrec_faiss.data.synthetic.lines import json_lines
from semrec_faiss.data.synthetic.tastes import KnownTitles, TitlePool, best_known, share_of
from semrec_faiss.data.synthetic.vectors import World, draw_directions
from semrec_faiss.data.synthetic.workers import Workers
from semrec_faiss.data.synthetic.world import BLOCK_TITLES, make_titles
from semrec_faiss.progress import Progress

FloatName = Literal["float16", "float32", "float64"]

_DIRECTIONS, _KNOWN = "directions.npy", "known.npy"
"""Files that are removed again."""


@dataclass(frozen=True)
class TitlesJob:
    """What titles are to be made, and where they are written.

    Attributes:
        titles: how many.
        seed: of the world.
        directions: the .npy file of what vectors are sums of; processes share it in memory.
        vectors: of all titles, a row each.
        known_share: what part of a block its best known titles are.
        known: vectors of the best known titles alone, where they are wanted.
    """

    titles: int
    seed: int
    directions: Path
    vectors: NpyFile
    known_share: float
    known: NpyFile | None

    def count(self, number: int) -> int:
        """Tell how many titles the ``number``-th block has."""
        return min(BLOCK_TITLES, self.titles - number * BLOCK_TITLES)


@dataclass(frozen=True)
class WrittenBlock:
    """A block of titles whose vectors are in their files: its lines of metadata.jsonl, and the best known of them."""

    lines: bytes
    known: KnownTitles


def write_titles(
    folder: Path,
    shape: tuple[int, int],
    seed: int,
    dtype: FloatName,
    pool: TitlePool | None,
    workers: Workers,
    progress: Progress,
) -> None:
    """Write the vectors and the metadata of ``shape`` (titles, dim) to ``folder``, and put the titles into ``pool``.

    Where users choose among some titles only, these titles' vectors lie in a file of their own, too, until
    :func:`forget_known` removes it.
    """
    titles, dim = shape
    (folder / METADATA).parent.mkdir()
    directions = draw_directions(dim, seed)
    NpyFile.create(folder / _DIRECTIONS, directions.shape, directions.dtype).write(0, directions)
    vectors = NpyFile.create(folder / MEDIA_VECTORS, shape, dtype)
    share = 0.0 if pool is None else pool.share
    known = None if pool is None or pool.has_all else NpyFile.create(folder / _KNOWN, (pool.size, dim), dtype)
    job = TitlesJob(titles, seed, folder / _DIRECTIONS, vectors, share, known)
    made = workers.in_order(partial(write_block, job), range(-(-titles // BLOCK_TITLES)))
    with (folder / METADATA).open("wb") as lines, closing(made) as blocks:
        for number, block in enumerate(blocks):
            lines.write(block.lines)
            if pool is not None:
                pool.add(block.known)
            progress("titles", number * BLOCK_TITLES + job.count(number), titles)
    _world.cache_clear()  # of threads
    (folder / _DIRECTIONS).unlink()


def write_block(job: TitlesJob, number: int) -> WrittenBlock:
    """Make the ``number``-th block of titles and write their vectors."""
    facts, count = make_titles(job.seed, number), job.count(number)
    rows = np.empty((BLOCK_TITLES, job.vectors.dim), job.vectors.dtype)
    vectors = _world(job.directions, job.vectors.dim, job.seed).vectors(facts, rows)[:count]
    job.vectors.write(number * BLOCK_TITLES, vectors)
    known = best_known(facts, count, job.known_share)
    if job.known is not None:
        job.known.write(number * share_of(BLOCK_TITLES, job.known_share), vectors[known.rows % BLOCK_TITLES])
    return WrittenBlock(json_lines(facts, count), known)


@lru_cache(maxsize=1)
def _world(directions: Path, dim: int, seed: int) -> World:
    return World(dim, seed, np.asarray(np.load(directions, mmap_mode="r")))


def known_vectors(folder: Path, pool: TitlePool) -> Path:
    """Tell in which .npy file the vectors of the titles of ``pool`` are, in the order of :meth:`TitlePool.places`."""
    return folder / (MEDIA_VECTORS if pool.has_all else _KNOWN)


def forget_known(folder: Path) -> None:
    """Remove the file of known titles' vectors."""
    (folder / _KNOWN).unlink(missing_ok=True)
