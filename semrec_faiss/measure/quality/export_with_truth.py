"""A data folder to benchmarks' files, exact neighbours included; and their neighbours held against ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.data.exchange.formats import ANGULAR, BIN_ENDINGS, BinRows, is_hdf5, new_hdf5, write_bins
from semrec_faiss.data.folder.layout import find_data_folder, iter_float32_blocks, open_vectors, read_float32
from semrec_faiss.data.tables.source import promises_another
from semrec_faiss.errors import UsageError
from semrec_faiss.measure.quality.metrics import exact_scores, mean_of, recall_at_k
from semrec_faiss.measure.quality.truth import ExactNeighbours, exact_index
from semrec_faiss.places import HDF5, check_new_file, check_new_folder
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import one_run_into

CHECKED_QUERIES = 200
"""Questions whose neighbours are compared after an import."""


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        titles: vectors to search.
        queries: vectors to ask; users, or titles where the folder has no users, which are then not searched.
        are_users: whether they are users.
        dim: dimensions of each.
        k: neighbours of each.
        files: what was written.
    """

    titles: int
    queries: int
    are_users: bool
    dim: int
    k: int
    files: tuple[str, ...]


def export_folder(
    dataset: Path, out: Path, *, queries: int = 1000, k: int = 100, seed: int = 7, progress: Progress = silent
) -> Exported:
    """Write a data folder as HDF5, or as fbin and ibin files in a folder, with exact neighbours.

    Vectors are brought to unit length; distances are angular, 1 - cosine, the nearest first.

    Args:
        dataset: the data folder.
        out: a file that ends in .hdf5 or .h5; else a folder for base.fbin, query.fbin, neighbors.ibin, distances.fbin.
        queries: how many users are asked, or titles where there are no users; all users when there are fewer.
        k: neighbours of each, at most the number of titles.
        seed: of drawing them.
        progress: told the steps.

    Raises:
        DataError: the folder is inconsistent.
        UsageError: more titles are asked than half of those there are, or ``out`` cannot be such a file or folder.
        StorageError: the disk refuses.
    """
    _check_place(out)
    folder = find_data_folder(dataset)
    vectors = open_vectors(folder.media_vectors)
    random = np.random.default_rng(seed)
    kept = np.arange(len(vectors))
    if folder.user_vectors is not None:
        users = open_vectors(folder.user_vectors, expect_dim=vectors.shape[1])
        chosen = np.sort(random.choice(len(users), min(queries, len(users)), replace=False))
        asked = read_float32(users[chosen], normalize=True, path=folder.user_vectors)
    else:
        if queries > len(vectors) // 2:
            raise UsageError(
                f"{queries} titles are to be asked, but {dataset} has {len(vectors)}, of which at most half can be",
                fix=f"--queries {len(vectors) // 2}",
            )
        chosen = np.sort(random.choice(len(vectors), queries, replace=False))
        asked = read_float32(vectors[chosen], normalize=True, path=folder.media_vectors)
        kept = np.delete(kept, chosen)

    def blocks() -> Iterator[tuple[int, Vectors]]:
        for first, block in iter_float32_blocks(vectors, normalize=True, path=folder.media_vectors):
            start, stop = np.searchsorted(kept, (first, first + len(block)))
            yield int(start), block[kept[start:stop] - first]

    count, dim = len(kept), int(vectors.shape[1])
    k = min(k, count)
    index = exact_index(blocks, count, dim, normalize=True, k=k, progress=progress)
    truth = ExactNeighbours(lambda: index, "").find(asked, k)
    distances = (1.0 - truth.scores).astype(np.float32)
    write = _write_hdf5 if is_hdf5(out) else _write_bins
    with one_run_into(out):
        files = write(out, blocks, (count, dim), asked, truth.rows, distances)
    return Exported(count, len(asked), folder.user_vectors is not None, dim, k, tuple(map(str, files)))


def _check_place(out: Path) -> None:
    """Refuse what cannot be written, before minutes are spent on neighbours."""
    if is_hdf5(out):
        check_new_file(out, "OUT", HDF5)
        return
    if promises_another(out):
        raise UsageError(
            f"{out} promises a format that is not written",
            fix="end it in .parquet or .arrow for a table, in .hdf5 for benchmarks; without an ending it is a folder",
        )
    if out.suffix.lower() in BIN_ENDINGS:
        raise UsageError(
            f"{out} ends as one file does, but its vectors, questions and neighbours are four files in a folder",
            fix=f"name the folder, such as {out.with_suffix('')}; `semrec dataset import` then takes base.fbin in it",
        )
    check_new_folder(out, "OUT")


def _write_hdf5(
    out: Path, blocks: Any, shape: tuple[int, int], asked: Vectors, rows: Rows, distances: Scores
) -> list[Path]:
    with new_hdf5(out) as file:
        file.attrs.update({"type": "dense", "distance": ANGULAR, "dimension": shape[1], "point_type": "float"})
        train = file.create_dataset("train", shape, "<f4")
        for first, block in blocks():
            train[first : first + len(block)] = block
        file.create_dataset("test", data=asked)
        file.create_dataset("neighbors", data=rows.astype(np.int32))
        file.create_dataset("distances", data=distances)
    return [out]


def _write_bins(
    out: Path, blocks: Any, shape: tuple[int, int], asked: Vectors, rows: Rows, distances: Scores
) -> list[Path]:
    tables = {
        "base.fbin": BinRows((block for _, block in blocks()), shape, np.float32),
        "query.fbin": BinRows(iter([asked]), (len(asked), shape[1]), np.float32),
        "neighbors.ibin": BinRows(iter([rows]), (len(rows), rows.shape[1]), np.int32),
        "distances.fbin": BinRows(iter([distances]), (len(rows), rows.shape[1]), np.float32),
    }
    return write_bins(out, tables)


def agreement_with(dataset: Path, neighbors: Any, *, normalize: bool, progress: Progress = silent) -> float | None:
    """Return the recall of a file's neighbours against our own exact search, for its first questions.

    Args:
        dataset: the data folder that the file was imported to; its users are the questions.
        neighbors: int (m, k), rows of titles.
        normalize: whether vectors are brought to unit length.
        progress: told the steps.

    Returns:
        From 0 to 1, ties credited; None where there is nothing to compare.
    """
    folder = find_data_folder(dataset)
    if folder.user_vectors is None or not neighbors.shape[1]:
        return None
    vectors = open_vectors(folder.media_vectors)
    users = open_vectors(folder.user_vectors)[:CHECKED_QUERIES]
    asked = read_float32(users, normalize=normalize, path=folder.user_vectors)
    rows = np.asarray(neighbors[: len(asked)], dtype=np.int64)
    k = min(rows.shape[1], len(vectors))

    def blocks() -> Iterator[tuple[int, Vectors]]:
        yield from iter_float32_blocks(vectors, normalize=normalize, path=folder.media_vectors)

    index = exact_index(blocks, len(vectors), int(vectors.shape[1]), normalize=normalize, k=k, progress=progress)
    truth = ExactNeighbours(lambda: index, "").find(asked, k)
    return mean_of(recall_at_k(rows[:, :k], exact_scores(asked, rows[:, :k], index.vectors), truth.scores))
