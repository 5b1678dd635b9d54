"""Proving that an index in shards is what was built: each shard where it lies, by whoever has its disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.cluster.connection import OWN, connect, finished, load_ray, told_as_ours
from semrec_faiss.cluster.publish.gathering import task_at
from semrec_faiss.cluster.saved import opened_front
from semrec_faiss.cluster.shards import named
from semrec_faiss.cluster.starting import alive_places, lost_machines
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.verifying import check_nothing_omitted, check_users, verify_opened
from semrec_faiss.progress import Progress, silent


@dataclass(frozen=True)
class Verified:
    """What was found to be whole.

    Attributes:
        generation: the front.
        files: how many were hashed, with those of all shards.
        bytes: what they take.
        known_answers: how many were replayed.
    """

    generation: Generation
    files: int
    bytes: int
    known_answers: int


def verify_shards(path: str | Path, *, address: str = OWN, progress: Progress = silent) -> Verified:
    """Hash every file of an index in shards, cross-check all counts and replay each shard's known answers.

    A shard that lies on several machines is held against what was written on each of them.

    Args:
        path: the index directory.
        address: the cluster; see `connect`.
        progress: told how many shards are done.

    Raises:
        NotFoundError: there is no index.
        UsageError: it is not in shards.
        DamagedIndexError: anything is not as it was built; the message names the shard.
        UnavailableError: there is no cluster, or a machine that holds a shard is away.
    """
    saved = opened_front(Path(path).absolute(), ("device.kind=cpu",))
    listed, front = saved.shards.listed, saved.generation
    front.check_all()
    check_nothing_omitted(front)
    if saved.users is not None:
        check_users(saved.users, listed.count)
    connect(address)
    asked: dict[Any, int] = {}
    for number, shard in enumerate(listed.shards):
        if len(alive_places(shard.places)) < len(shard.places):
            raise lost_machines(listed, number)
        for place in shard.places:
            folder = saved.shards.index / shard.folder
            asked[task_at(place.node, _verify_one).remote(folder, place.generation.model_dump(), shard.titles)] = number
    manifest = front.manifest
    files, size, answers = len(manifest.files), front.bytes, 0
    left = list(asked)
    while left:
        progress("verifying shards", len(asked) - len(left), len(asked))
        done, left = finished(left)
        for reference in done:
            try:
                with told_as_ours():
                    own = load_ray().get(reference)
            except DamagedIndexError as error:
                raise DamagedIndexError(f"{named(listed, asked[reference])}: {error.message}", fix=error.fix) from error
            files, size, answers = files + own[0], size + own[1], answers + own[2]
    progress("verifying shards", len(asked), len(asked))
    return Verified(front, files, size, answers)


def _verify_one(folder: Path, ref: dict[str, Any], titles: int) -> tuple[int, int, int]:
    """Verify the generation of a shard that is listed; return its files, bytes and known answers."""
    generation = Generation(folder, GenerationRef.model_validate(ref))
    saved = SavedIndex.of(generation, ("device.kind=cpu",))
    verify_opened(saved)
    if generation.manifest.count != titles:
        raise DamagedIndexError(f"it has {generation.manifest.count} titles, {titles} are listed")
    return len(generation.manifest.files), generation.bytes, len(generation.manifest.known_answers)
