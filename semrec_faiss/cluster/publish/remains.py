"""What builds and updates have left behind: shards that no generation lists any more, or never did."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from semrec_faiss.cluster.connection import alive_nodes, head_answers, load_ray
from semrec_faiss.cluster.starting import at_node
from semrec_faiss.errors import DamagedIndexError, NotFoundError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.shards import SHARDS_FOLDER, read_shards

REMOVE_SECONDS = 60.0
"""So long machines may take to remove them; what they leave goes the next time."""


def remove_unlisted(index: Path, but: Sequence[str] = ()) -> None:
    """Remove shards that no generation of an index lists, here and on every machine; hold `writing` around it.

    Args:
        index: the index directory.
        but: folders in it that stay with all that is in them.
    """
    keep = [*_listed(index), *but]
    _remove_but(str(index), keep)
    if head_answers():
        ray = load_ray()
        nodes = {node["NodeManagerAddress"] for node in alive_nodes()}
        others = [
            ray.remote(_remove_but).options(num_cpus=0, **at_node(node)).remote(str(index), keep) for node in nodes
        ]
        _, late = ray.wait(others, num_returns=len(others), timeout=REMOVE_SECONDS)
        for one in late:  # which would remove what the next build writes
            ray.cancel(one, force=True)


def _listed(index: Path) -> list[str]:
    """Return the folders that generations name; of one that cannot be read, all that were made for it."""
    if not (index / SHARDS_FOLDER).is_dir():
        return []
    try:
        generations = IndexDirectory(index).generations()
    except NotFoundError:
        return []  # a first build that did not end
    keep = set()
    for name, generation in generations.items():
        with contextlib.suppress(DamagedIndexError):
            listed = read_shards(generation) if isinstance(generation, Generation) else None
            keep |= {shard.folder for shard in listed.shards} if listed else {f"{SHARDS_FOLDER}/{name}"}
            continue
        keep.add(f"{SHARDS_FOLDER}/{name}")
    return sorted(keep)


def _remove_but(index: str, keep: Sequence[str]) -> None:
    root = Path(index)
    kept = {root / one for one in keep}
    for generation in (root / SHARDS_FOLDER).glob("*"):
        if generation in kept:
            continue
        for shard in generation.glob("*"):
            if shard not in kept:
                _remove(shard)
        if not any(one.parent == generation for one in kept):
            shutil.rmtree(generation, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove a shard, or the record beside it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
