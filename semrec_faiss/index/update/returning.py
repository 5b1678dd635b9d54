"""Titles that come, or come back, and have been seen already: history that named them without effect counts again.

While a title is not there, what users have seen of it is kept: by its place until the next compaction, and by its
media_id afterwards, as are rows that named it before it ever came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.data.seen_table import DelistedRows, SeenRows
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.saved.delisted import read_delisted
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.index.segments.opened import DELISTED, REMOVED, file_of
from semrec_faiss.index.segments.places import GONE, Places
from semrec_faiss.index.update.plan import Kind


@dataclass(frozen=True)
class Returning:
    """What titles that come bring back.

    Attributes:
        moves: int64 (n, 2), a `Replaced`: from where each was last to where it will be.
        seen: rows by user place and title place, oldest first.
    """

    moves: Rows
    seen: Sequence[SeenRows]

    @property
    def any(self) -> bool:
        """Whether anything comes back."""
        return bool(len(self.moves) or self.seen)


def returning(saved: SavedIndex, titles: Kind, places: Places) -> Returning:
    """Find out what the new ones of ``titles`` bring back; ``places`` are those of ``saved``."""
    written = np.flatnonzero(titles.written)
    new = np.flatnonzero(titles.rows[written] < 0)
    ids = [titles.ids[at] for at in written[new].tolist()]
    removed = {} if saved.segments is None else {each: place for place, each in saved.segments.removed.items()}
    last = np.array([removed.get(each, GONE) for each in ids], np.int64)  # the latest one
    back = np.flatnonzero(last != GONE)
    moves = np.stack([last[back], len(places.now) + new[back]], axis=1)
    # What was kept by media_id until a title's last place was written, has come back with that.
    since = np.full(len(ids), GONE, np.int64)
    since[back] = np.searchsorted(places.starts, last[back], side="right") - 1
    names = [] if saved.segments is None else saved.segments.names
    seen = []
    for number, prefix in enumerate(("", *(f"{name}." for name in names))):
        here = {ids[at]: len(places.now) + int(new[at]) for at in np.flatnonzero(since < number).tolist()}
        kept = read_delisted(saved.generation, prefix + DELISTED, list(here)) if here else None
        if kept is not None and len(kept.users):
            rows = np.array([here[media_id] for media_id in kept.media_ids.tolist()], np.int64)
            seen.append(SeenRows(kept.users.astype(np.int32), rows.astype(np.int32), kept.ratings, kept.timestamps, 0))
    return Returning(moves, seen)


def write_removed(new: NewGeneration, name: str, saved: SavedIndex, rows: Rows, places: Places) -> None:
    """Write the media_ids of the titles in ``rows``, which segment ``name`` removes; no file where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not len(rows) or saved.users is None:
        return
    ids = [str(record["media_id"]) for record in saved.titles.records(rows)]
    pq.write_table(pa.table({"place": places.rows[rows], "media_id": ids}), new.folder / file_of(name, REMOVED))
    new.adopt(file_of(name, REMOVED))


def delisted_of(saved: SavedIndex, users: SavedUsers) -> DelistedRows | None:
    """Return what users have seen of titles that there are not, oldest first, by user row; None where nothing."""
    rows = users.delisted()
    if rows is None or not len(rows.users):
        return None
    ids, at = np.unique(rows.media_ids.astype(str), return_inverse=True)
    return rows.take(np.flatnonzero(saved.titles.known_rows(ids.tolist())[at] < 0))
