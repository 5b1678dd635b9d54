"""What a generation holds and how it was built, as `semrec info --json` and the service say it."""

from __future__ import annotations

from typing import Any

from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import Screening
from semrec_faiss.index.generations.shards import read_shards

Facts = dict[str, Any]


def facts_of(index: str, generation: Generation) -> tuple[Facts, Facts]:
    """Return the facts of a generation for a person, and what a program may want to know besides.

    Args:
        index: the name that the index directory goes by.
        generation: of it.
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
        "screening": None if manifest.screening is None else _screening(manifest.screening, manifest.base_count),
        "bytes": generation.bytes,
    }
    settings = {"index": config.index, "device": config.device, "profile": config.profile}
    detail: Facts = {
        "config": {name: part.model_dump(mode="json") for name, part in settings.items() if part is not None},
        "faiss_version": manifest.faiss_version,
        "semrec_version": manifest.semrec_version,
        "screened": None if manifest.screening is None else manifest.screening.model_dump(mode="json"),
        "embedding": None if manifest.embedding is None else manifest.embedding.model_dump(mode="json"),
        "files": {name: entry.model_dump() for name, entry in manifest.files.items()},
    }
    return facts, detail


def _screening(screening: Screening, titles: int) -> str:
    return (
        f"{screening.directions} directions hold {screening.share:.1%};"
        f" {screening.left:.0f} of {titles} titles are left on average"
    )
