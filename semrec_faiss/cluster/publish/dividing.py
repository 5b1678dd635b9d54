"""Dividing the titles of all shards anew, evenly and in their order, by workers who all see the storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.cluster.connection import load_ray
from semrec_faiss.cluster.publish.changing import only_generation, shard_plan
from semrec_faiss.cluster.publish.gathering import ATTEMPTS, gathered
from semrec_faiss.data.titles.titles import stored_records
from semrec_faiss.errors import StorageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.linked import link_index
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.generations.shards import SHARDS_FOLDER, Place, Shard, ShardList
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.update.compaction import compacted
from semrec_faiss.index.update.plan import UpdatePlan
from semrec_faiss.index.update.updating import apply_plan
from semrec_faiss.progress import Progress

_ON_CPU = ("device.kind=cpu",)


@dataclass(frozen=True)
class Slice:
    """Some titles of a shard: its rows from ``first`` to ``last`` - 1."""

    folder: Path
    ref: GenerationRef
    first: int
    last: int


def is_to_be_divided(listed: ShardList) -> bool:
    """Tell whether one shard has grown far beyond the others, and all machines see it."""
    return listed.uneven is not None and all(place.node is None for shard in listed.shards for place in shard.places)


def divided_shards(
    index: Path, generation: str, listed: ShardList, fields: dict[str, str], progress: Progress
) -> ShardList:
    """Have workers build as many shards anew of as many titles each, beside what there are, and return their list.

    A worker holds in memory what its shard takes from others than the first.

    Args:
        index: the index directory.
        generation: the name of the one that will list them.
        listed: the shards.
        fields: the type of every metadata field of all titles.
        progress: told how many are done.

    Raises:
        UnavailableError: a worker is lost again and again.
        SemrecError: what a worker raises; the others are ended.
    """
    number = min(len(listed.shards), listed.count)
    bounds = list(pairwise(np.linspace(0, listed.count, number + 1).astype(np.int64).tolist()))
    folders = [f"{SHARDS_FOLDER}/{generation}/{at:05d}" for at in range(number)]
    task = load_ray().remote(_divide_one).options(num_cpus=1, max_retries=ATTEMPTS, scheduling_strategy="SPREAD")
    asked: dict[Any, int] = {
        task.remote(_slices(index, listed, *bounds[at]), index / folders[at], fields): at for at in range(number)
    }
    found = gathered(asked, "dividing shards", progress)
    return ShardList(
        shards=tuple(
            Shard(
                folder=folders[at],
                first=first,
                titles=last - first,
                places=(Place(node=None, generation=found[at]),),
            )
            for at, (first, last) in enumerate(bounds)
        )
    )


def _slices(index: Path, listed: ShardList, first: int, last: int) -> list[Slice]:
    """Return where the titles from ``first`` to ``last`` - 1 lie now, in their order."""
    return [
        Slice(
            index / shard.folder,
            shard.places[0].generation,
            max(first - shard.first, 0),
            min(last - shard.first, shard.titles),
        )
        for shard in listed.shards
        if shard.first < last and shard.first + shard.titles > first
    ]


def _divide_one(slices: Sequence[Slice], target: Path, fields: dict[str, str]) -> GenerationRef:
    """Build a shard of slices: the first shard's files, without its other titles and with those of the others."""
    own = slices[0]
    try:
        link_index(own.folder, own.ref, target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}", fix="free space there") from error
    directory = IndexDirectory(target)
    with directory.writing():
        saved = SavedIndex(target, _ON_CPU)
        plan = _plan(saved, slices, fields)
        if not plan.is_empty:
            apply_plan(directory, saved, plan, compact_at=None)
            saved = SavedIndex(target, _ON_CPU)
        if saved.segments is not None:
            compacted(directory, saved)
    return only_generation(target, directory.current())


def _plan(saved: SavedIndex, slices: Sequence[Slice], fields: dict[str, str]) -> UpdatePlan:
    """Return the change that makes of the first slice's shard the one of all slices."""
    gone = np.arange(saved.generation.manifest.count)
    gone = np.delete(gone, slice(slices[0].first, slices[0].last))
    others = [(one, SavedIndex.of(Generation(one.folder, one.ref), _ON_CPU)) for one in slices[1:]]
    lines = [line for one, held in others for line in islice(stored_records(held.catalog), one.first, one.last)]
    ids = [media_id for one, held in others for media_id in held.catalog.all_media_ids()[one.first : one.last]]
    vectors = [held.vectors.vectors(np.arange(one.first, one.last)) for one, held in others]
    nothing = np.empty((0, saved.generation.manifest.dim), np.float32)
    return shard_plan(ids, np.concatenate([nothing, *vectors]), lines, gone, fields)
