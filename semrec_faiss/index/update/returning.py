"""Titles that come, or come back, and have been seen already: history that named them without effect counts again.

While a title is not there, what users have seen of it is kept: by its place until the next compaction, and by its
media_id afterwards, as are rows that named it before it ever came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.data.seen_table import SeenRows
from semrec_faiss.index.generations.file_names import DELISTED_NAME, file_of
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.saved.delisted import read_delisted
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.segments.opened import MEDIA_IDS
from semrec_faiss.index.segments.places import GONE, Places
from semrec_faiss.index.update.plan import Kind


@dataclass(frozen=True)
class Returning:
    """What titles that come bring back.

    Attributes:
        moves: int64 (n, 2), a `Replaced`: from where each was last to where it will be.
        seen: rows by user place and title place, oldest first.
        media_ids: of the titles in ``seen``, by place.
    """

    moves: Rows
    seen: Sequence[SeenRows]
    media_ids: dict[int, str]

    @property
    def any(self) -> bool:
        """Whether anything comes back."""
        return bool(len(self.moves) or self.seen)


def returning(saved: SavedIndex, titles: Kind, places: Places) -> Returning:
    """Find out what the new ones of ``titles`` bring back; ``places`` are those of ``saved``."""
    written = np.flatnonzero(titles.written)
    new = np.flatnonzero(titles.rows[written] < 0)
    ids = [titles.ids[at] for at in written[new].tolist()]
    known = {} if saved.segments is None else {each: place for place, each in saved.segments.media_ids.items()}
    last = np.array([known.get(each, GONE) for each in ids], np.int64)  # the latest one
    back = np.flatnonzero(last != GONE)
    moves = np.stack([last[back], len(places.now) + new[back]], axis=1)
    # What was kept by media_id until a title's last place was written, has come back with that.
    since = np.array([places.part_of(place) if place != GONE else GONE for place in last.tolist()], np.int64)
    names = [] if saved.segments is None else saved.segments.names
    seen, brought = [], dict[int, str]()
    for number, prefix in enumerate(("", *(f"{name}." for name in names))):
        here = {ids[at]: len(places.now) + int(new[at]) for at in np.flatnonzero(since < number).tolist()}
        kept = read_delisted(saved.generation, prefix + DELISTED_NAME, list(here)) if here else None
        if kept is not None and len(kept.users):
            rows = np.array([here[media_id] for media_id in kept.media_ids.tolist()], np.int64)
            brought |= zip(rows.tolist(), kept.media_ids.tolist(), strict=True)
            seen.append(SeenRows(kept.users, rows, kept.ratings, kept.timestamps, 0))
    return Returning(moves, seen, brought)


def write_media_ids(
    new: NewGeneration, name: str, saved: SavedIndex, removed: Rows, places: Places, back: Returning
) -> None:
    """Write how history is found of the titles that segment ``name`` removes, and of those that bring some.

    Args:
        new: where it is written; no file where there are none.
        name: the segment's.
        saved: the index before.
        removed: int64, rows of it.
        places: of its titles.
        back: what comes back.
    """
    import pyarrow as pa

    if saved.users is None or not (len(removed) or back.media_ids):
        return
    ids = [str(record["media_id"]) for record in saved.titles.records(removed)] if len(removed) else []
    table = {"place": [*places.rows[removed].tolist(), *back.media_ids], "media_id": [*ids, *back.media_ids.values()]}
    new.write_table(file_of(name, MEDIA_IDS), pa.table(table))
