"""The workers' part of a change: a shard is linked beside itself and changed there, so that the old one stays."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.cluster.connection import load_ray
from semrec_faiss.cluster.publish.gathering import gathered, task_at
from semrec_faiss.cluster.shards import named
from semrec_faiss.cluster.starting import alive_places, lost_machines
from semrec_faiss.errors import StorageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.linked import link_index
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.generations.shards import SHARDS_FOLDER, Place, Shard, ShardList
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.update.plan import Kind, UpdatePlan
from semrec_faiss.index.update.updating import apply_plan, compact_index
from semrec_faiss.progress import Progress


@dataclass(frozen=True)
class Work:
    """What is to be done with a shard.

    Attributes:
        plan: the change; None builds it anew.
        titles: how many it has afterwards; with none it is listed no more.
    """

    plan: UpdatePlan | None
    titles: int


def changed_shards(
    index: Path,
    generation: str,
    listed: ShardList,
    work: Sequence[Work | None],
    compact_at: float | None,
    progress: Progress,
) -> ShardList:
    """Have workers change shards where they lie, beside what they are, and return the list of all.

    Args:
        index: the index directory.
        generation: the name of the one that will list them.
        listed: the shards.
        work: by shard; None leaves it as it is.
        compact_at: as for `update_shards`.
        progress: told how many are done.

    Raises:
        UnavailableError: a shard lies on no machine that is there, or its worker is lost again and again.
        SemrecError: what a worker raises; the others are ended.
    """
    asked: dict[Any, tuple[int, Place]] = {}
    folders = [f"{SHARDS_FOLDER}/{generation}/{number:05d}" for number in range(len(work))]
    for number, (shard, one) in enumerate(zip(listed.shards, work, strict=True)):
        if one is None or not one.titles:
            continue
        places = alive_places(shard.places)  # a machine that is away holds what is listed no more
        if not places:
            raise lost_machines(listed, number)
        if len(places) < len(shard.places):
            away = " and ".join(str(place.node) for place in shard.places if place not in places)
            message = f"{named(listed, number)} is changed without {away}, which is away and will serve it no more"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        plan = load_ray().put(one.plan)
        for place in places:
            asked[_begin(index / shard.folder, index / folders[number], place, plan, compact_at)] = (number, place)
    done = gathered(asked, "changing shards", progress)
    shards: list[Shard] = []
    for number, (shard, one) in enumerate(zip(listed.shards, work, strict=True)):
        first = shards[-1].first + shards[-1].titles if shards else 0
        places_now = tuple(Place(node=at.node, generation=done[n, at]) for n, at in asked.values() if n == number)
        if one is None or places_now == shard.places:  # nothing came of it
            shards.append(shard.model_copy(update={"first": first}))
        elif one.titles:
            shards.append(Shard(folder=folders[number], first=first, titles=one.titles, places=places_now))
    return ShardList(shards=tuple(shards))


def _begin(source: Path, target: Path, place: Place, plan: Any, compact_at: float | None) -> Any:
    return task_at(place.node, change_one).remote(source, place.generation.model_dump(), target, plan, compact_at)


def change_one(
    source: Path, ref: dict[str, Any], target: Path, plan: UpdatePlan | None, compact_at: float | None
) -> GenerationRef:
    """Link the generation ``ref`` of a shard to ``target``, change it there, and name what is in use there then."""
    try:
        link_index(source, GenerationRef.model_validate(ref), target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}", fix="free space there") from error
    if plan is None:
        return only_generation(target, compact_index(target))
    directory = IndexDirectory(target)
    with directory.writing():
        apply_plan(directory, SavedIndex(target, ("device.kind=cpu",)), plan, compact_at=compact_at)
    return only_generation(target, directory.current())


def only_generation(folder: Path, generation: Generation) -> GenerationRef:
    """Remove what else a shard's directory has: the index of all keeps what came before."""
    for other in folder.glob("gen-*"):
        if other.name != generation.name:
            shutil.rmtree(other, ignore_errors=True)
    return generation.ref


def shard_plan(
    ids: Sequence[str],
    vectors: Vectors,
    lines: Sequence[tuple[bytes, list[str]]],
    gone: Rows,
    fields: dict[str, str],
) -> UpdatePlan:
    """Return what a shard is to do: lose rows of its own, and take titles that it has not.

    Args:
        ids: of the titles that come.
        vectors: theirs, as they are compared: float32 (ids, dim).
        lines: their records, as `UpdatePlan` has them.
        gone: the rows that it loses, ascending.
        fields: of all titles afterwards.
    """
    none = np.empty(0, np.int64)
    nobody = Kind((), none, np.empty(0, np.bool_), vectors[:0], none)
    come = replace(nobody, ids=ids, rows=np.full(len(ids), -1), written=np.ones(len(ids), np.bool_), vectors=vectors)
    return UpdatePlan(replace(come, removed=gone), nobody, lines, fields)
