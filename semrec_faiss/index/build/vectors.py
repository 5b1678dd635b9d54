"""Vectors into a generation: FAISS's index trained, filled and written, and what it must answer for ever."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.data.folder.npy import NpyWriter, Writable
from semrec_faiss.errors import DataError
from semrec_faiss.index.factory import holds_vectors_exactly
from semrec_faiss.index.generations.file_names import VECTORS_NAME
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.generations.manifest import KnownAnswer
from semrec_faiss.index.hardware.device import Device, load_faiss
from semrec_faiss.index.saved.saved_index import INDEX_NAME
from semrec_faiss.index.train import VectorBlocks, build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.progress import Progress

KNOWN_ANSWER_K = 10

LONGEST = math.sqrt(float(np.finfo(np.float32).max))
"""From this length on the inner product of two vectors may overflow float32."""

SHORTEST = 1e-18
"""Up to this length of the longest vector, products of two are next to the least that float32 holds, or nothing."""


def write_vectors(
    new: NewGeneration,
    config: IndexConfig,
    blocks: VectorBlocks,
    count: int,
    dim: int,
    device: Device,
    progress: Progress,
) -> tuple[KnownAnswer, ...]:
    """Train, fill and write a FAISS index, and the vectors beside it where it does not hold them; raises as building.

    Args:
        new: where it is written.
        config: the index section, autos resolved.
        blocks: the vectors, float32 (count, dim) in all, as they are to be compared.
        count: the number of titles.
        dim: dimensions of a vector.
        device: where it is trained.
        progress: told the vectors done.
    """
    faiss = load_faiss()
    index = build_faiss_index(config, blocks, count, dim, device, progress)
    originals = None
    if not holds_vectors_exactly(index):
        with new.create(VECTORS_NAME) as file:
            write_npy(file, blocks, (count, dim))
        originals = np.load(new.path(VECTORS_NAME), mmap_mode="r")
    with new.create(INDEX_NAME) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    return _known_answers(VectorIndex(index, config, originals=originals))


def check_products(block: Vectors, first: int, path: Path | str) -> float:
    """Refuse vectors whose inner product with one as long overflows float32: all such scores would be equal.

    Args:
        block: float32 (rows, dim).
        first: the row of its first vector, for messages.
        path: where it is from, for messages.

    Returns:
        the length of the longest.

    Raises:
        DataError: there is such a vector.
    """
    squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    row = int(squares.argmax())
    if squares[row] > np.finfo(np.float32).max:
        raise DataError(
            f"{path}[{first + row}] has length {math.sqrt(squares[row]):.4g}; from {LONGEST:.4g} on, scores"
            " overflow float32 and titles can no longer be told apart",
            fix="set index.normalize: true, or divide all vectors by one number",
        )
    return math.sqrt(squares[row])


def check_longest(length: float, path: Path | str) -> None:
    """Refuse titles of which even the longest, ``length`` long, has no product with another that float32 holds whole.

    Raises:
        DataError: that is so.
    """
    if length < SHORTEST:
        raise DataError(
            f"{path}: the longest vector has length {length:.4g}; below {SHORTEST:g}, scores vanish in float32 and"
            " titles can no longer be told apart",
            fix="set index.normalize: true, or multiply all vectors by one number",
        )


def write_npy(file: Writable, blocks: VectorBlocks, shape: tuple[int, int]) -> None:
    """Write vectors as one float32 .npy of ``shape``."""
    with NpyWriter(file, shape, np.float32) as vectors:
        for _, block in blocks():
            vectors.write(block)


def write_rows(new: NewGeneration, name: str, rows: Rows) -> None:
    """Write integers as a .npy; nothing where there are none."""
    if len(rows):
        with new.create(name) as file:
            np.lib.format.write_array(cast("Any", file), np.ascontiguousarray(rows), allow_pickle=False)


def _known_answers(index: VectorIndex) -> tuple[KnownAnswer, ...]:
    """Ask for the neighbours of the first, the middle and the last title, on the CPU."""
    rows = sorted({0, index.count // 2, index.count - 1})
    queries = index.vectors(rows)
    found = index.search(queries, KNOWN_ANSWER_K, prepared=True)
    return tuple(
        KnownAnswer(query=tuple(query.tolist()), rows=tuple(rows.tolist()), scores=tuple(scores.tolist()))
        for query, rows, scores in zip(queries, found.rows, found.scores, strict=True)
    )
