"""What a change comes to: which titles and users are new, changed, as they were, removed, or unknown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from semrec_faiss.arguments import names_of, path_of
from semrec_faiss.arrays import Mask, Rows, Vectors
from semrec_faiss.data.folder.change import ChangeFolder, find_change_folder
from semrec_faiss.data.folder.layout import USER_VECTORS, open_vectors, read_float32
from semrec_faiss.data.text.provenance import read_embedding
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.titles import Record, stored_records
from semrec_faiss.data.users import read_user_ids
from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.index.build.users import of_unit_length
from semrec_faiss.index.build.vectors import check_products
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.titles import fields_of, parts_of
from semrec_faiss.index.update.fields import held_exactly
from semrec_faiss.index.update.learned import text_dim, texts_of, vectors_by_texts

_NAMED = 3
"""Ids that an error names."""


@dataclass(frozen=True)
class Change:
    """What is to be changed.

    Attributes:
        folder: the path of a folder of new and changed titles and users, or None.
        remove_titles: media_ids to remove.
        remove_users: user ids to remove.
        where: titles for which this SQL expression holds are removed, too.
        seen: the path of a Parquet file of what users have seen since, or None.

    Example:
        >>> from semrec_faiss import Change
        >>> Change(remove_titles=["film_0001"], where="year < 1950").where
        'year < 1950'
    """

    folder: str | PathLike[str] | None = None
    remove_titles: Sequence[str] = ()
    remove_users: Sequence[str] = ()
    where: str | None = None
    seen: str | PathLike[str] | None = None

    takes_unknown: ClassVar[bool] = False  # whether what users have seen may be of nobody who is known, and be all

    def __post_init__(self) -> None:
        """Take one id for a list of one; raises UsageError for what is no list of ids, and no path."""
        for name in ("remove_titles", "remove_users"):
            object.__setattr__(self, name, names_of(getattr(self, name), name))
        for name, path in (("folder", self.folder), ("seen", self.seen)):
            object.__setattr__(self, name, None if path is None else path_of(path, name))


@dataclass(frozen=True)
class Kind:
    """What a change does to the titles, or to the users.

    Attributes:
        ids: of those that the folder names, in its order.
        rows: int64 (ids,), their rows in the index; -1 for new ones.
        written: bool (ids,), True for new and changed ones.
        vectors: float32 (ids,...), those of the written ones, in order.
        removed: int64, ascending: rows that are removed.
        unknown: ids that were to be removed and are not there.
    """

    ids: Sequence[str]
    rows: Rows
    written: Mask
    vectors: Vectors
    removed: Rows
    unknown: Sequence[str] = ()

    @property
    def new(self) -> int:
        """How many come."""
        return int((self.rows < 0).sum())

    @property
    def changed(self) -> int:
        """How many are there and change."""
        return int((self.written & (self.rows >= 0)).sum())

    @property
    def unchanged(self) -> int:
        """How many are named and as they were."""
        return int((~self.written).sum())

    @property
    def replaced(self) -> Rows:
        """The rows of the changed ones, in their order: int64."""
        return self.rows[self.written & (self.rows >= 0)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is written or removed."""
        return not self.written.any() and not len(self.removed)


@dataclass(frozen=True)
class UpdatePlan:
    """What a change does to an index.

    Attributes:
        titles: to its titles.
        users: to its users.
        lines: the records of the written titles, with the keys that they are found by.
        fields: the metadata fields of all titles afterwards, and their types.
        brought: those of them that no title had before.
        emptied: by field, the changed titles that have a value of it and will have none.
        seen: files of what users have seen since.
        takes_unknown: whether these may name nobody who is known, and be all of the change.
    """

    titles: Kind
    users: Kind
    lines: Sequence[tuple[bytes, list[str]]]
    fields: dict[str, str]
    brought: tuple[str, ...] = ()
    emptied: Mapping[str, int] = field(default_factory=dict)
    seen: tuple[Path, ...] = field(default=())
    takes_unknown: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the index is as it is to be."""
        return self.titles.is_empty and self.users.is_empty and not self.seen

    def refuse_unknown(self) -> None:
        """Raise NotFoundError where something was to be removed that is not there."""
        for kind, what in ((self.titles, "title"), (self.users, "user")):
            if kind.unknown:
                named = ", ".join(map(repr, kind.unknown[:_NAMED]))
                are = f"{what} to be removed is" if len(kind.unknown) == 1 else f"{what}s to be removed are"
                raise NotFoundError(
                    f"{len(kind.unknown):,} {are} not in the index, such as {named}",
                    fix="leave them out, or leave --strict out: then they are counted",
                )


def planned(saved: SavedIndex, change: Change) -> UpdatePlan:
    """Hold a change against an index.

    Raises:
        NotFoundError: there is no such folder.
        DataError: the folder is inconsistent, or has vectors of another dimension or model, or none for new titles.
        UsageError: a title is to be changed and removed, the filter is not understood, or no title would be left.
    """
    none = ChangeFolder(None, None, None, None, None)
    folder = none if change.folder is None else find_change_folder(Path(change.folder))
    titles, lines, fields, emptied = _titles(saved, folder, change)
    users = _users(saved, folder, change)
    for kind, what in ((titles, "title"), (users, "user")):
        _check_not_both(kind, what)
    if saved.titles.count + titles.new == len(titles.removed):
        raise UsageError(f"all {saved.titles.count:,} titles would be removed", fix="an index holds at least one title")
    seen = tuple(Path(path) for path in (folder.seen, change.seen) if path is not None)
    if seen and saved.users is None and not len(users.ids):
        raise UsageError("the index holds no users who could have seen something", fix="add the users in the folder")
    brought = tuple(name for name in fields if name not in fields_of(saved.generation))
    return UpdatePlan(titles, users, lines, fields, brought, emptied, seen, change.takes_unknown)


def _check_not_both(kind: Kind, what: str) -> None:
    removed, unknown = set(kind.removed.tolist()), set(kind.unknown)
    both = [each for each, row in zip(kind.ids, kind.rows.tolist(), strict=True) if row in removed or each in unknown]
    if both:
        raise UsageError(
            f"{len(both):,} {what}s are in the folder and to be removed, {both[0]!r} first", fix="leave them out of one"
        )


def _titles(
    saved: SavedIndex, folder: ChangeFolder, change: Change
) -> tuple[Kind, Sequence[tuple[bytes, list[str]]], dict[str, str], Mapping[str, int]]:
    known = fields_of(saved.generation)
    removed, unknown = _removed_titles(saved, change)
    dim = saved.generation.manifest.dim
    if folder.metadata is None:
        return Kind((), _no_rows(), np.empty(0, np.bool_), _no_vectors(dim), removed, unknown), (), known, {}
    texts = texts_of(saved, folder.media_vectors)
    vectors = texts
    if texts is None and folder.media_vectors is not None:
        vectors = _read_vectors(saved, folder.media_vectors)
    _check_embedding(saved, folder)
    count = None if vectors is None else len(vectors)
    catalog = Catalog.read(folder.metadata, expect_count=count, known=known, parts=parts_of(saved.generation))
    lines = list(stored_records(catalog))
    records = [json.loads(line) for line, _ in lines]
    ids = [str(record["media_id"]) for record in records]
    rows = saved.titles.known_rows(ids)
    there = rows >= 0
    if vectors is None and saved.transformation is not None and not text_dim(saved.transformation):
        texts = np.empty((len(ids), 0), np.float32)  # learned without texts: new titles are as good as any
    if texts is not None:
        vectors = vectors_by_texts(saved, texts, rows)
        check_products(vectors, 0, folder.media_vectors or folder.metadata)
    if vectors is None and not there.all():
        new = [ids[at] for at in np.flatnonzero(~there)[:_NAMED]]
        count = int((~there).sum())
        are = "title is" if count == 1 else "titles are"
        raise DataError(
            f"{folder.metadata}: {count:,} {are} new, such as {', '.join(map(repr, new))}, and there are no vectors",
            fix="add media/content_vectors.npy, a vector a title",
        )
    written = ~there
    pairs = list(zip(saved.titles.records(rows[there]), [records[at] for at in np.flatnonzero(there)], strict=True))
    changed = _differ(pairs, catalog.fields)
    written[there] = changed if vectors is None else _or_vectors_differ(saved, rows[there], changed, vectors[there])
    kept = _vectors_of_titles(saved, rows, written) if vectors is None else vectors[written]
    return (
        Kind(ids, rows, written, kept, removed, unknown),
        [line for line, is_written in zip(lines, written.tolist(), strict=True) if is_written],
        held_exactly(saved, known, catalog.fields),
        Counter(name for old, new in pairs for name in _said(old) if new.get(name) is None),
    )


def _vectors_of_titles(saved: SavedIndex, rows: Rows, written: Mask) -> Vectors:
    """Return the vectors that titles have, which keep them; their files are hashed first."""
    return saved.vectors.vectors(rows[written]) if written.any() else _no_vectors(saved.generation.manifest.dim)


def _differ(pairs: Sequence[tuple[Record, Record]], fields: Mapping[str, str]) -> Mask:
    """Tell which titles of the index differ from what the folder says of them; a null is as good as no field.

    Args:
        pairs: what the index has of each title, and what the folder says.
        fields: the types of all fields.
    """
    mixed = [name for name, kind in fields.items() if "JSON" in kind]

    def differs(old: Record, new: Record) -> bool:
        return _said(old) != _said(new) or not all(_alike(old.get(name), new.get(name)) for name in mixed)

    return np.array([differs(old, new) for old, new in pairs], np.bool_)


def _or_vectors_differ(saved: SavedIndex, rows: Rows, changed: Mask, vectors: Vectors) -> Mask:
    same = np.flatnonzero(~changed)
    if len(same):
        changed[same] = (saved.vectors_to_compare(rows[same]) != vectors[same]).any(axis=1)
    return changed


def _alike(old: Any, new: Any) -> bool:
    """Tell whether two values of JSON are the same: 1 and 1.0 are, but true is not a number, as Python has it."""
    if old != new or isinstance(old, bool) != isinstance(new, bool):
        return False
    if isinstance(old, dict):
        return all(_alike(value, new[name]) for name, value in old.items())
    return not isinstance(old, list) or all(map(_alike, old, new))


def _said(record: Record) -> Record:
    return {name: value for name, value in record.items() if value is not None}


def _read_vectors(saved: SavedIndex, path: Path) -> Vectors:
    """Read vectors as the index compares them."""
    mapped = open_vectors(path, expect_dim=saved.generation.manifest.dim)
    vectors = read_float32(mapped, normalize=saved.config.index.normalize, path=path)
    check_products(vectors, 0, path)
    return vectors


def _check_embedding(saved: SavedIndex, folder: ChangeFolder) -> None:
    """Refuse vectors that another text model made, where that is known of both."""
    ours = saved.generation.manifest.embedding
    theirs = None if folder.media_vectors is None else read_embedding(folder.media_vectors)
    if ours is None or theirs is None or ours == theirs:
        return
    raise DataError(
        f"{folder.media_vectors} was made by {theirs.model} of {theirs.recipe}, the index's vectors by {ours.model} of"
        f" {ours.recipe}",
        fix="embed the changed titles as the index's were embedded, or build the index anew",
    )


def _removed_titles(saved: SavedIndex, change: Change) -> tuple[Rows, list[str]]:
    asked = list(dict.fromkeys(change.remove_titles))
    rows = saved.titles.known_rows(asked) if asked else _no_rows()
    unknown = [media_id for media_id, row in zip(asked, rows.tolist(), strict=True) if row < 0]
    found = rows[rows >= 0]
    if change.where is not None:
        found = np.concatenate((found, saved.matching(change.where)))
    return np.unique(found), unknown


def _users(saved: SavedIndex, folder: ChangeFolder, change: Change) -> Kind:
    asked = list(dict.fromkeys(change.remove_users))
    gone = _user_rows(saved, asked)
    unknown = [user_id for user_id, row in zip(asked, gone.tolist(), strict=True) if row < 0]
    removed = np.unique(gone[gone >= 0])
    dim = saved.generation.manifest.dim
    if folder.user_ids is None:
        return Kind((), _no_rows(), np.empty(0, np.bool_), _no_vectors(dim), removed, unknown)
    given = None if folder.user_vectors is None else _read_vectors(saved, folder.user_vectors)
    ids = read_user_ids(folder.user_ids, expect_count=None if given is None else len(given))
    rows = _user_rows(saved, ids)
    vectors = _mean_users(saved, folder.user_ids, len(ids)) if given is None else given
    written = rows < 0
    there = np.flatnonzero(~written)
    # Where there is a profile, users' vectors are made of what they have seen, whatever the folder says.
    if len(there) and saved.users is not None and saved.config.profile is None:
        written[there] = (saved.users.vectors[rows[there]] != vectors[there]).any(axis=1)
    return Kind(ids, rows, written, vectors[written], removed, unknown)


def _mean_users(saved: SavedIndex, path: Path, count: int) -> Vectors:
    """Return the mean user's vector ``count`` times, for users whose own are made of what they have seen."""
    if saved.config.profile is None or saved.users is None or not saved.users.has_seen:
        raise DataError(
            f"{path} names users without vectors, and the index does not make them of what users have seen",
            fix=f"add {USER_VECTORS}, or build the index with users/seen.parquet and profile:",
        )
    mean = np.asarray(saved.users.vectors[:]).mean(axis=0, dtype=np.float64)[None].astype(np.float32)
    return np.repeat(of_unit_length(mean, 0) if saved.config.index.normalize else mean, count, axis=0)


def _user_rows(saved: SavedIndex, ids: Sequence[str]) -> Rows:
    return np.full(len(ids), -1, np.int64) if saved.users is None or not ids else saved.users.known_rows(ids)


def _no_rows() -> Rows:
    return np.empty(0, np.int64)


def _no_vectors(dim: int) -> Vectors:
    return np.empty((0, dim), np.float32)
