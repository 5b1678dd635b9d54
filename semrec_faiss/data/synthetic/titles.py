"""Made-up titles: their vectors, their metadata, and those that users choose among."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.synthetic.blocks import TitleFiles, Titles, written_by_processes, written_by_threads
from semrec_faiss.data.synthetic.early_flush import EarlyFlush
from semrec_faiss.data.synthetic.tastes import KNOWN_TITLES, TitlePool
from semrec_faiss.data.synthetic.vectors import draw_directions
from semrec_faiss.data.synthetic.workers import Crew
from semrec_faiss.progress import Progress

FloatName = Literal["float16", "float32", "float64"]

_DIRECTIONS, _KNOWN = "directions.npy", "known.npy"
"""Files that are removed again."""


def write_titles(
    folder: Path,
    shape: tuple[int, int],
    seed: int,
    dtype: FloatName,
    pool: TitlePool | None,
    crew: Crew,
    flushing: ExitStack,
    progress: Progress,
) -> None:
    """Write the vectors and the metadata of ``shape`` (titles, dim) to ``folder``, and put the titles into ``pool``.

    The last of it may still be on its way to the disk until ``flushing`` is closed. Where users choose among some
    titles only, these titles' vectors lie in a file of their own, too, until :func:`forget_known` removes it: that one
    stays in memory, as a large file of vectors does not.
    """
    titles, dim = shape
    stored = np.dtype(dtype).newbyteorder("<")
    wanted = Titles(titles, dim, stored.str, seed, 0.0 if pool is None else pool.share)
    (folder / METADATA).parent.mkdir()
    keep = titles <= KNOWN_TITLES  # in memory: what is small is soon read again
    with _opened(folder, wanted, dtype, pool) as files:
        vectors, lines = (
            flushing.enter_context(EarlyFlush(file, keep=keep)) for file in (files.vectors.file, files.lines)
        )
        if crew.size:
            _save(folder / _DIRECTIONS, draw_directions(dim, seed))
            made = written_by_processes(crew, wanted, folder / _DIRECTIONS, files)
        else:
            made = written_by_threads(wanted, files)
        done = 0
        with closing(made) as blocks:
            for block in blocks:
                vectors.wrote(block.count * dim * stored.itemsize)
                lines.wrote(block.line_bytes)
                if pool is not None:
                    pool.add(block.known)
                done += block.count
                progress("titles", done, titles)
    vectors.finish()
    lines.finish()
    (folder / _DIRECTIONS).unlink(missing_ok=True)


def known_vectors(folder: Path, pool: TitlePool) -> Path:
    """Tell in which .npy file the vectors of the titles of ``pool`` are, in the order of :meth:`TitlePool.places`."""
    return folder / (MEDIA_VECTORS if pool.has_all else _KNOWN)


def forget_known(folder: Path) -> None:
    """Remove the file of known titles' vectors."""
    (folder / _KNOWN).unlink(missing_ok=True)


@contextmanager
def _opened(folder: Path, wanted: Titles, dtype: FloatName, pool: TitlePool | None) -> Iterator[TitleFiles]:
    with ExitStack() as stack:

        def npy(name: str, rows: int) -> NpyWriter:
            file = stack.enter_context((folder / name).open("wb"))
            return stack.enter_context(NpyWriter(file, (rows, wanted.dim), dtype))

        vectors = npy(MEDIA_VECTORS, wanted.titles)
        lines = stack.enter_context((folder / METADATA).open("wb"))
        known = None if pool is None or pool.has_all else npy(_KNOWN, pool.size)
        yield TitleFiles(vectors, lines, known)


def _save(path: Path, vectors: NDArray[np.int16]) -> None:
    rows, dim = vectors.shape
    with path.open("wb") as file, NpyWriter(file, (rows, dim), vectors.dtype) as writer:
        writer.write(vectors)
