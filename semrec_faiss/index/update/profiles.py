"""Users whose vectors are made of what they have seen, made anew where that has changed."""

from __future__ import annotations

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.config.profile import Profile
from semrec_faiss.data.interactions.profiles import user_vectors
from semrec_faiss.data.users import History
from semrec_faiss.index.build.users import of_unit_length
from semrec_faiss.index.build.vectors import write_rows
from semrec_faiss.index.generations.file_names import LIKELESS_NAME, file_of
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.generations.manifest import Segment
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.index.update.plan import Kind, UpdatePlan
from semrec_faiss.index.update.segment import Written, places_of, write_users


def affected_users(before: SavedIndex, after: SavedIndex, plan: UpdatePlan, written: Written) -> Rows:
    """Return the users of ``after`` whose vectors have to be made anew: int64, ascending.

    They are new, have seen something since, or had seen a title that has another vector, is gone, or is back; all of
    them where the first rating comes, or the last one goes: what is not rated counts otherwise then.
    """
    assert after.users is not None
    those = [user_id for user_id, is_written in zip(plan.users.ids, plan.users.written, strict=True) if is_written]
    named = list(dict.fromkeys([*those, *written.seen_users]))
    rows = after.users.known_rows(named) if named else np.empty(0, np.int64)
    touched = np.concatenate([_with_other_vectors(before, plan.titles), plan.titles.removed])
    is_seen_otherwise = bool(written.seen_users or written.returned or len(touched) or len(plan.users.removed))
    if is_seen_otherwise and _is_rated(before) != _is_rated(after):
        return np.arange(after.users.count)
    if before.users is not None and before.users.has_seen and len(touched):
        offsets, titles = before.users.seen
        of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        own = np.unique(of[np.isin(titles, touched)])
        old, new = places_of(before)[1], places_of(after)[1]
        rows = np.concatenate([rows, new.now[old.rows[own]]])
    if written.returned:
        offsets, titles = after.users.seen
        of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        rows = np.concatenate([rows, of[titles >= after.titles.count - written.segment.titles]])
    return np.unique(rows[rows >= 0])


def _is_rated(saved: SavedIndex) -> bool:
    """Tell whether anything is known of ratings."""
    return saved.users is not None and saved.users.has_seen and saved.users.history.ratings is not None


def _with_other_vectors(before: SavedIndex, titles: Kind) -> Rows:
    """Return the rows in ``before`` of changed titles whose vectors have changed, which users' are made of: int64."""
    rows = titles.replaced
    if not len(rows):
        return rows
    vectors = titles.vectors[titles.rows[titles.written] >= 0]
    return np.asarray(rows[(before.vectors_to_compare(rows) != vectors).any(axis=1)])


def write_affected(new: NewGeneration, saved: SavedIndex, profile: Profile, affected: Rows, name: str) -> Segment:
    """Write the vectors of ``affected`` users, made of their histories, as a segment of users."""
    users = saved.users
    assert users is not None
    vectors, likeless = _vectors_of(saved, users, profile, affected)
    places = places_of(saved)[1]
    first = len(places.now)
    replaced = np.stack([places.rows[affected], first + np.arange(len(affected))], axis=1)
    ids = users.ids
    write_users(new, name, [ids[row] for row in affected.tolist()], vectors, replaced)
    write_rows(new, file_of(name, LIKELESS_NAME), likeless)
    return Segment(name=name, titles=0, users=len(affected))


def _vectors_of(saved: SavedIndex, users: SavedUsers, profile: Profile, affected: Rows) -> tuple[Vectors, Rows]:
    """Make users' vectors as a build does; of whom nothing counts, keep what they have: float32 and their positions."""
    own = users.history.take(affected)
    titles, rows = np.unique(own.rows, return_inverse=True)
    compact = History(own.offsets, rows, own.ratings, own.timestamps)
    held = np.array(users.vectors[affected], dtype=np.float32)
    vectors = saved.vectors.vectors(titles.astype(np.int64))
    blocks = list(user_vectors(compact, vectors, profile))
    made, unknown = (np.concatenate([block[at] for block in blocks]) for at in (1, 2))
    known = np.flatnonzero(~unknown)
    held[known] = of_unit_length(made[known], 0) if saved.config.index.normalize else made[known]
    return held, np.flatnonzero(unknown)
