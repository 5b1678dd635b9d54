"""Choosing principal directions for an index, and writing and opening the files of them."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.index_types import FlatIndex, FusedIndex, IndexConfig
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.generations.file_names import BOUNDS_NAME
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import Screening
from semrec_faiss.index.screening.bounds import (
    DIRECTIONS_NAME,
    Rounding,
    bounds_of,
    power_of_two_below_one,
    write_bounds,
)
from semrec_faiss.index.screening.screen import Screen
from semrec_faiss.index.screening.spectrum import (
    LEAST_TITLES,
    Choice,
    choices_of,
    choose,
    told_of,
    width_of,
)
from semrec_faiss.index.train import VectorBlocks
from semrec_faiss.progress import Progress


def write_screening(
    new: NewGeneration, index: IndexConfig, blocks: VectorBlocks, count: int, dim: int, progress: Progress
) -> tuple[IndexConfig, Screening | None]:
    """Choose the directions of an exact index and write them, with all titles' bounds, where they pay.

    Args:
        new: where they are written.
        index: the index section.
        blocks: the vectors, float32 (count, dim) in all, as they are compared.
        count: the number of titles.
        dim: dimensions of a vector.
        progress: told the steps.

    Returns:
        The section with the number chosen, and what to say in the manifest; None where there are none.
    """
    if not isinstance(index, FlatIndex | FusedIndex):
        return index, None
    choice, directions = _chosen(index, blocks, count, dim, progress)
    build = index.build.model_copy(update={"directions": choice.directions})
    resolved = index.model_copy(update={"build": build})
    if not choice.directions:
        return resolved, None
    progress("bounds", 0, count)
    kept = np.ascontiguousarray(directions[: choice.directions])
    with new.create(DIRECTIONS_NAME) as file:
        np.lib.format.write_array(file, kept, allow_pickle=False)
    with new.create(BOUNDS_NAME) as file:
        rounding = write_bounds(file, kept, blocks, count, power_of_two_below_one(_longest(blocks)))
    progress("bounds", count, count)
    return resolved, Screening(**asdict(choice), **asdict(rounding))


def _chosen(
    index: FlatIndex | FusedIndex, blocks: VectorBlocks, count: int, dim: int, progress: Progress
) -> tuple[Choice, NDArray[np.float64]]:
    wanted, fused = index.build.directions, isinstance(index, FusedIndex)
    if wanted == 0 or (wanted == "auto" and (count < LEAST_TITLES or not choices_of(dim, fused=fused))):
        return Choice(0, 0.0, 0.0, 0.0), np.empty((0, dim))
    progress("spectrum", 0, 1)
    found = choose(blocks, count, dim, fused=fused) if wanted == "auto" else told_of(blocks, count, dim, wanted)
    progress("spectrum", 1, 1)
    return found


def _longest(blocks: VectorBlocks) -> float:
    squares = [np.einsum("nd,nd->n", block, block, dtype=np.float64).max() for _, block in blocks()]
    return math.sqrt(float(max(squares)))


def open_screen(generation: Generation) -> Screen | None:
    """Open the bounds of a generation; None where it has none.

    Raises:
        DamagedIndexError: they are not as the manifest says.
    """
    about, directions = generation.manifest.screening, open_directions(generation)
    if about is None or directions is None:
        return None
    bounds = np.load(generation.file(BOUNDS_NAME), mmap_mode="r", allow_pickle=False)
    expected = (generation.manifest.base_count, width_of(about.directions))
    if bounds.shape != expected or bounds.dtype != np.float16:
        raise DamagedIndexError(f"{BOUNDS_NAME} is {bounds.dtype} {bounds.shape}, the manifest says float16 {expected}")
    return Screen(directions, bounds, Rounding(about.scale, about.error, about.norm))


def write_segment_bounds(new: NewGeneration, name: str, before: Generation, vectors: Vectors) -> dict[str, float]:
    """Write the bounds of a segment's titles in the directions of its base; where it has none, do nothing.

    Args:
        new: where they are written.
        name: the file's.
        before: a generation with that base.
        vectors: float32 (titles, dim).

    Returns:
        What `Segment` says of them.
    """
    about, directions = before.manifest.screening, open_directions(before)
    made = None if about is None or directions is None else bounds_of(vectors, directions, about.scale)
    if made is None:
        return {}
    with new.create(name) as file:
        np.lib.format.write_array(file, made[0], allow_pickle=False)
    return {"bounds_error": made[1].error, "bounds_norm": made[1].norm}


def open_directions(generation: Generation) -> NDArray[np.float64] | None:
    """Open the directions of a generation, float64 (kept, dim); None or DamagedIndexError as `open_screen`."""
    about = generation.manifest.screening
    if about is None:
        return None
    directions = np.load(generation.file(DIRECTIONS_NAME), allow_pickle=False)
    expected = (about.directions, generation.manifest.dim)
    if directions.shape != expected or directions.dtype != np.float64:
        raise DamagedIndexError(
            f"{DIRECTIONS_NAME} is {directions.dtype} {directions.shape}, the manifest says float64 {expected}"
        )
    return np.asarray(directions)
