"""The workers' part of a change: a shard is linked beside itself and changed there, so that the old one stays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.cluster.connection import finished, head_answers, load_ray, told_as_ours
from semrec_faiss.cluster.shards import named
from semrec_faiss.cluster.starting import alive_places, at_node, lost_machines
from semrec_faiss.errors import StorageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.linked import link_index
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.generations.shards import SHARDS_FOLDER, Place, Shard, ShardList
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.update.plan import UpdatePlan
from semrec_faiss.index.update.updating import apply_plan, compact_index
from semrec_faiss.progress import Progress

ATTEMPTS = 3
"""How often a shard is begun anew whose worker or machine is lost."""


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
    done = _gathered(asked, progress)
    shards: list[Shard] = []
    for number, (shard, one) in enumerate(zip(listed.shards, work, strict=True)):
        first = shards[-1].first + shards[-1].titles if shards else 0
        places_now = tuple(done.get(number, ()))
        if one is None or places_now == shard.places:  # nothing came of it
            shards.append(shard.model_copy(update={"first": first}))
        elif one.titles:
            shards.append(Shard(folder=folders[number], first=first, titles=one.titles, places=places_now))
    return ShardList(shards=tuple(shards))


def _begin(source: Path, target: Path, place: Place, plan: Any, compact_at: float | None) -> Any:
    where = {"scheduling_strategy": "SPREAD"} if place.node is None else at_node(place.node)
    task = load_ray().remote(change_one).options(num_cpus=1, max_retries=ATTEMPTS, **where)
    return task.remote(source, place.generation.model_dump(), target, plan, compact_at)


def _gathered(asked: dict[Any, tuple[int, Place]], progress: Progress) -> dict[int, list[Place]]:
    ray = load_ray()
    found: dict[int, dict[Place, Place]] = {}
    left = list(asked)
    try:
        with told_as_ours():
            while left:
                progress("changing shards", len(asked) - len(left), len(asked))
                done, left = finished(left)
                for one in done:
                    number, place = asked[one]
                    ref = GenerationRef.model_validate(ray.get(one))
                    found.setdefault(number, {})[place] = Place(node=place.node, generation=ref)
    except BaseException:
        for one in left if head_answers() else ():
            ray.cancel(one, force=True)
        raise
    progress("changing shards", len(asked), len(asked))
    return {number: [found[number][place] for at, place in asked.values() if at == number] for number in found}


def change_one(
    source: Path, ref: dict[str, Any], target: Path, plan: UpdatePlan | None, compact_at: float | None
) -> dict[str, Any]:
    """Link the generation ``ref`` of a shard to ``target``, change it there, and name what is in use there then."""
    try:
        link_index(source, GenerationRef.model_validate(ref), target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}", fix="free space there") from error
    if plan is None:
        return compact_index(target).ref.model_dump()
    directory = IndexDirectory(target)
    with directory.writing():
        apply_plan(directory, SavedIndex(target, ("device.kind=cpu",)), plan, compact_at=compact_at)
    return directory.current().ref.model_dump()
