"""Compaction: an ordinary build from what an index holds, in its order, so that answers stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np

from semrec_faiss._version import __version__
from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.data.interactions.transformation_file import ARRAYS_NAME, JSON_NAME
from semrec_faiss.index.build.vectors import write_npy, write_rows, write_vectors
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.file_names import LIKELESS_NAME, USERS_NAME
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.hardware.device import choose_device, load_faiss
from semrec_faiss.index.saved.delisted import write_delisted
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.titles import write_titles
from semrec_faiss.index.saved.users import write_seen, write_user_ids
from semrec_faiss.index.screening.written import write_screening
from semrec_faiss.progress import Progress, silent

_BLOCK_BYTES = 4 << 20


def compacted(
    directory: IndexDirectory, saved: SavedIndex, progress: Progress = silent, *, before: GenerationRef | None = None
) -> Generation:
    """Build the generation that ``saved`` opened anew and publish it; hold `writing` around it; raises as building.

    Args:
        directory: the index.
        saved: its generation in use.
        progress: told the steps.
        before: what a rollback returns to; by default ``saved``.
    """
    manifest = saved.generation.manifest
    config = manifest.config
    device = choose_device(config.device, config.index)
    count, dim = manifest.count, manifest.dim

    def blocks() -> Iterator[tuple[int, Vectors]]:
        yield from _blocks(saved.vectors.vectors, count, dim)

    with directory.new_generation(before) as new:
        known = write_vectors(new, config.index, blocks, count, dim, device, progress)
        index, screening = write_screening(new, config.index, blocks, count, dim, progress)
        write_titles(new, saved.catalog)
        write_held_users(new, saved)
        later = {
            "generation": new.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "semrec_version": __version__,
            "faiss_version": load_faiss().__version__,
            "files": new.files,
            "known_answers": known,
            "previous": new.previous,
            "before_change": manifest.before_change if before else manifest.last_before_change,
            "segments": None,
            "config": config.model_copy(update={"index": index}),
            "screening": screening,
        }
        return directory.publish(new, manifest.model_copy(update=later))


def _blocks(read: Callable[[Rows], Vectors], count: int, dim: int) -> Iterator[tuple[int, Vectors]]:
    """Yield vectors as (first row, block)."""
    step = max(1, _BLOCK_BYTES // (4 * dim))
    for first in range(0, count, step):
        yield first, read(np.arange(first, min(first + step, count)))


def write_held_users(new: NewGeneration, saved: SavedIndex) -> None:
    """Write the users that an index holds as a build does, and keep how vectors were learned of what they did."""
    for name in (JSON_NAME, ARRAYS_NAME):
        if saved.generation.has(name):
            new.link(saved.generation, name)
    users, dim = saved.users, saved.generation.manifest.dim
    if users is None:
        return
    with new.create(USERS_NAME) as file:
        write_npy(file, lambda: _blocks(users.vectors.__getitem__, users.count, dim), (users.count, dim))
    write_user_ids(new, users.ids)
    if users.has_seen:
        write_seen(new, users.history)
    delisted = users.delisted()
    if delisted is not None:
        write_delisted(new, delisted, users.count)
    write_rows(new, LIKELESS_NAME, users.without_likes)
