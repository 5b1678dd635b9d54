"""What a generation holds and how it was built, as `semrec info --json` and the service say it."""

from __future__ import annotations

from typing import Any

from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import Manifest
from semrec_faiss.index.generations.shards import Shard, read_shards
from semrec_faiss.index.saved.titles import known_fields

Facts = dict[str, Any]


def facts_of(index: str, generation: Generation) -> tuple[Facts, Facts]:
    """Return the facts of a generation for a person, and what a program may want to know besides.

    Args:
        index: the name that the index directory goes by.
        generation: of it.

    Among the latter are the titles' ``fields`` with DuckDB's types. Of an index in shards each shard's ``screened`` is,
    too; it is missing where the shard's manifest is not to be read here, as where it lies on another machine's disk.
    """
    manifest = generation.manifest
    config, shards = manifest.config, read_shards(generation)
    facts: Facts = {
        "index": index,
        "generation": generation.name,
        "previous": manifest.previous.name if manifest.previous else None,
        "created": manifest.created,
        "type": config.index.type,
        "titles": manifest.count,
        "dim": manifest.dim,
        "users": manifest.users,
        "history_ignored": manifest.ignored_history,
        "shards": None if shards is None else len(shards.shards),
        "uneven": None if shards is None else shards.uneven,
        "profile": None if config.profile is None else config.profile.describe(),
        "segments": None if manifest.segments is None else len(manifest.segments.parts),
        "apart": None if manifest.segments is None else round(manifest.share_apart, 4),
        "screening": _screening(manifest),
        "bytes": generation.bytes,
    }
    settings = {"index": config.index, "device": config.device, "profile": config.profile}
    detail: Facts = {
        "config": {name: part.model_dump(mode="json") for name, part in settings.items() if part is not None},
        "faiss_version": manifest.faiss_version,
        "semrec_version": manifest.semrec_version,
        "screened": _screened(manifest),
        "each_shard": None if shards is None else [_facts_of_shard(generation, shard) for shard in shards.shards],
        "fields": known_fields(generation),
        "embedding": None if manifest.embedding is None else manifest.embedding.model_dump(mode="json"),
        "files": {name: entry.model_dump() for name, entry in manifest.files.items()},
    }
    return facts, detail


def _screening(manifest: Manifest) -> str | None:
    if manifest.screening is None:
        return None
    return (
        f"{manifest.screening.directions} directions hold {manifest.screening.share:.1%};"
        f" {manifest.screening.left:.0f} of {manifest.base_count} titles are left on average"
    )


def _screened(manifest: Manifest) -> Facts | None:
    return None if manifest.screening is None else manifest.screening.model_dump(mode="json")


def _facts_of_shard(generation: Generation, shard: Shard) -> Facts:
    manifest = shard.manifest(generation.folder.parent)
    facts: Facts = {"titles": shard.titles, "nodes": [place.node for place in shard.places if place.node is not None]}
    return facts if manifest is None else facts | {"screening": _screening(manifest), "screened": _screened(manifest)}
