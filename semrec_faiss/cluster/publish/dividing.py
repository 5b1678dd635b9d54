"""Dividing the titles of all shards anew, evenly and in their order, by workers who have the shards or see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.cluster.publish.changing import only_generation, shard_plan
from semrec_faiss.cluster.publish.gathering import gathered, task_at
from semrec_faiss.cluster.starting import alive_places, lost_machines
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
from semrec_faiss.index.update.updating import ON_CPU, apply_plan
from semrec_faiss.progress import Progress


@dataclass(frozen=True)
class Slice:
    """Some titles of a shard, where it lies: its rows from ``first`` to ``last`` - 1."""

    folder: Path
    place: Place
    first: int
    last: int

    def opened(self) -> SavedIndex:
        """Open the shard."""
        return SavedIndex.of(Generation(self.folder, self.place.generation), ON_CPU)


@dataclass(frozen=True)
class Taken:
    """Titles that come from another shard: their ids, records and vectors, float32 (titles, dim)."""

    ids: list[str]
    lines: list[tuple[bytes, list[str]]]
    vectors: Vectors


def is_to_be_divided(listed: ShardList) -> bool:
    """Tell whether one shard has grown far beyond the others, and titles can be divided anew."""
    return listed.uneven is not None and listed.can_be_divided


def divided_shards(
    index: Path, generation: str, listed: ShardList, fields: dict[str, str], progress: Progress
) -> ShardList:
    """Have workers make as many shards anew of as many titles each, beside what there are, and return their list.

    Each begins with the files of a shard that its machine has, and is sent what it takes from others, which it and the
    cluster's object store hold in memory, or spill to disk.

    Args:
        index: the index directory.
        generation: the name of the one that will list them.
        listed: the shards.
        fields: the type of every metadata field of all titles.
        progress: told how many are done.

    Raises:
        UnavailableError: a shard lies on no machine that is there, or a worker is lost again and again.
        SemrecError: what a worker raises; the others are ended.
    """
    bounds = list(pairwise(listed.even_starts.tolist()))
    folders = [f"{SHARDS_FOLDER}/{generation}/{at:05d}" for at in range(len(bounds))]
    asked: dict[Any, tuple[int, str | None]] = {}
    for at, (first, last) in enumerate(bounds):
        owns, others = _parts(index, listed, at, _slices(index, listed, first, last))
        sent = [task_at(one.place.node, _taken).remote(one) for one in others]
        for own in owns:
            asked[task_at(own.place.node, _divide_one).remote(own, index / folders[at], fields, *sent)] = (
                at,
                own.place.node,
            )
    found = gathered(asked, "dividing shards", progress)
    return ShardList(
        shards=tuple(
            Shard(
                folder=folders[at],
                first=first,
                titles=last - first,
                places=tuple(Place(node=node, generation=found[n, node]) for n, node in asked.values() if n == at),
            )
            for at, (first, last) in enumerate(bounds)
        )
    )


def _slices(index: Path, listed: ShardList, first: int, last: int) -> list[Slice]:
    """Return where the titles from ``first`` to ``last`` - 1 lie now, in their order."""
    return [
        Slice(
            index / shard.folder,
            _places(listed, number)[0],
            max(first - shard.first, 0),
            min(last - shard.first, shard.titles),
        )
        for number, shard in enumerate(listed.shards)
        if shard.first < last and shard.first + shard.titles > first
    ]


def _places(listed: ShardList, number: int) -> list[Place]:
    places = alive_places(listed.shards[number].places)
    if not places:
        raise lost_machines(listed, number)
    return places


def _parts(index: Path, listed: ShardList, at: int, slices: list[Slice]) -> tuple[list[Slice], list[Slice]]:
    """Return what a new shard begins with on each machine that will have it, and what it takes from others."""
    if slices[0].place.node is None:
        return slices[:1], slices[1:]
    folder = index / listed.shards[at].folder
    is_own = slices[0].folder == folder
    kept = (slices[0].first, slices[0].last) if is_own else (0, 0)
    return [Slice(folder, place, *kept) for place in _places(listed, at)], slices[1:] if is_own else slices


def _taken(one: Slice) -> Taken:
    """Read what another shard takes."""
    held = one.opened()
    return Taken(
        held.catalog.all_media_ids()[one.first : one.last].tolist(),
        list(islice(stored_records(held.catalog), one.first, one.last)),
        held.vectors.vectors(np.arange(one.first, one.last)),
    )


def _divide_one(own: Slice, target: Path, fields: dict[str, str], *others: Taken) -> GenerationRef:
    """Build a shard: the files of the one that is there, without the titles that go, and with those that come."""
    try:
        link_index(own.folder, own.place.generation, target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}", fix="free space there") from error
    directory = IndexDirectory(target)
    with directory.writing():
        saved = SavedIndex(target, ON_CPU)
        plan = _plan(saved, own, others, fields)
        if not plan.is_empty:
            apply_plan(directory, saved, plan, compact_at=None)
            saved = SavedIndex(target, ON_CPU)
        if saved.segments is not None:
            compacted(directory, saved)
    return only_generation(target, directory.current())


def _plan(saved: SavedIndex, own: Slice, others: Sequence[Taken], fields: dict[str, str]) -> UpdatePlan:
    """Return the change that leaves a shard's own slice and puts those of others behind it."""
    manifest = saved.generation.manifest
    gone = np.delete(np.arange(manifest.count), slice(own.first, own.last))
    ids = [media_id for one in others for media_id in one.ids]
    lines = [line for one in others for line in one.lines]
    vectors = np.concatenate([np.empty((0, manifest.dim), np.float32), *(one.vectors for one in others)])
    return shard_plan(ids, vectors, lines, gone, fields)
