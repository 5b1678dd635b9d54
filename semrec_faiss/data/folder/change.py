"""A folder of changes: laid out as a data folder, of which only what is new or changed is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semrec_faiss.data.demo import or_demos
from semrec_faiss.data.folder.layout import (
    MEDIA_VECTORS,
    METADATA,
    METADATA_TABLE,
    SEEN,
    USER_IDS,
    USER_VECTORS,
    refuse_another_seen,
)
from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.paths import as_typed

_PARTS = {
    METADATA: f"the new and changed titles; or {Path(METADATA_TABLE).name}",
    MEDIA_VECTORS: "their vectors, or their texts' where the index's were learned; without, only metadata changes",
    USER_IDS: "the new and changed users",
    USER_VECTORS: "their vectors; without, they are made of what the users have seen, where the index has a profile",
    SEEN: "what users have seen since",
}
_WIDTH = max(map(len, _PARTS))
_LAYOUT = "\n".join(
    (
        "give a folder that is laid out as a data folder, each part optional:",
        *(f"  {part:{_WIDTH}}  {what}" for part, what in _PARTS.items()),
    )
)


@dataclass(frozen=True)
class ChangeFolder:
    """The files of a folder of changes; None where there is none. ``seen`` may be a folder."""

    metadata: Path | None
    media_vectors: Path | None
    user_ids: Path | None
    user_vectors: Path | None
    seen: Path | None


def find_change_folder(root: Path) -> ChangeFolder:
    """Find what a folder of changes holds.

    Raises:
        NotFoundError: there is no such folder.
        UsageError: it is a file.
        DataError: it holds nothing of a data folder, or vectors without whose they are.
    """
    root = or_demos(root)
    if root.is_file():
        raise UsageError(
            f"{root} is a file; a folder of changes is expected",
            fix=f"semrec dataset import {as_typed(root)} FOLDER makes one",
        )
    if not root.is_dir():
        raise NotFoundError(f"there is no folder {root}", fix=_LAYOUT)
    places = {name: root / name for name in (METADATA, MEDIA_VECTORS, USER_IDS, USER_VECTORS, SEEN)}
    there = {name: path for name, path in places.items() if path.is_file() or (name == SEEN and path.is_dir())}
    if (root / METADATA_TABLE).is_file():
        if METADATA in there:
            raise DataError(f"{root} has {METADATA} and {METADATA_TABLE}", fix="remove the one that is not meant")
        there[METADATA] = root / METADATA_TABLE
    if SEEN not in there:
        refuse_another_seen(root)
    if not there:
        raise DataError(f"{root} holds no change", fix=_LAYOUT)
    if MEDIA_VECTORS in there and METADATA not in there:
        raise DataError(f"{root} has {MEDIA_VECTORS} but no {METADATA}", fix=_LAYOUT)
    if USER_VECTORS in there and USER_IDS not in there:
        raise DataError(f"{root} has {USER_VECTORS} but no {USER_IDS}", fix=_LAYOUT)
    return ChangeFolder(*(there.get(name) for name in places))
