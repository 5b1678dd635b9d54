"""Shards that a build which did not end has left whole: what each is built of stands beside it, for the next build."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from semrec_faiss._version import __version__
from semrec_faiss.config.dataset import Dataset
from semrec_faiss.config.schema import Config
from semrec_faiss.data.folder.layout import find_data_folder, open_vectors
from semrec_faiss.data.interactions.transformation_file import ARRAYS_NAME, JSON_NAME
from semrec_faiss.errors import DamagedIndexError, NotFoundError
from semrec_faiss.index.build.source import TitleRange
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.storage import new_file, read_small, sha256_of_file

_BLOCK = 1 << 16
"""Vectors that are hashed at a time."""


class BuiltOf(BaseModel):
    """What a shard is built of: shards of equal ones are the same shard.

    Attributes:
        beside: the digest of what lies beside the vectors: metadata, model, transformation; see `digest_beside`.
        vectors: SHA-256 of the shard's own.
        first: the row of its first title in the whole.
        titles: how many it has.
        fields: the type of every field of all titles.
        config: all settings but where it goes.
        semrec_version: whose building it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beside: str
    vectors: str
    first: int
    titles: int
    fields: dict[str, str]
    config: str
    semrec_version: str = __version__

    @classmethod
    def of(cls, config: Config, part: TitleRange, beside: str) -> BuiltOf:
        """Hash the vectors of ``part``; raises as `open_source`."""
        return cls(
            beside=beside,
            vectors=_digest_of_vectors(config.dataset, part),
            first=part.first,
            titles=part.last - part.first,
            fields=dict(part.fields),
            config=config.model_copy(update={"output": None}).model_dump_json(),
        )


def digest_beside(dataset: Dataset) -> str:
    """Return a digest of all that lies beside the vectors of titles and goes into a shard; raises as `open_source`."""
    folder = find_data_folder(dataset.folder or "")
    media, digest = folder.media_vectors.parent, hashlib.sha256()
    for path in (folder.metadata, folder.media_vectors.with_suffix(".json"), media / JSON_NAME, media / ARRAYS_NAME):
        digest.update(f"{path.name} {sha256_of_file(path) if path.is_file() else None}\n".encode())
    return digest.hexdigest()


def kept_shard(folder: Path, of: BuiltOf) -> Generation | None:
    """Return the index in ``folder`` if it was built of the same and every file of it is whole, or else make room.

    What it is going to be built of is written down before anything is built, so that whatever is whole there
    afterwards is known. Remains of the same build stay: who builds there removes them.
    """
    record = folder.with_name(f"{folder.name}.json")
    if _read(record) == of:
        try:
            generation = IndexDirectory(folder).current()
            generation.check_all()
        except NotFoundError:
            return None
        except DamagedIndexError:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return generation
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_file(record) as file:
        file.write(of.model_dump_json().encode())
    return None


def _read(record: Path) -> BuiltOf | None:
    try:
        return BuiltOf.model_validate_json(read_small(record))
    except (OSError, ValidationError):
        return None


def _digest_of_vectors(dataset: Dataset, part: TitleRange) -> str:
    vectors = open_vectors(find_data_folder(dataset.folder or "").media_vectors)[part.first : part.last]
    digest = hashlib.sha256(f"{vectors.dtype} {vectors.shape}\n".encode())
    for first in range(0, len(vectors), _BLOCK):
        digest.update(np.ascontiguousarray(vectors[first : first + _BLOCK]).view(np.uint8).data)
    return digest.hexdigest()
