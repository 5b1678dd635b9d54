"""A planned change written as a segment: vectors, records and ids of what is new, and what it replaces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semrec_faiss.arrays import Rows, Scores, Vectors
from semrec_faiss.data.seen_table import (
    DelistedRows,
    IdTable,
    SeenRows,
    distinct_ids,
    joined_ratings_and_times,
    numbered,
    read_delisted_rows,
    read_seen_rows,
)
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.data.users import History, grouped_history
from semrec_faiss.errors import DataError
from semrec_faiss.index.build.vectors import write_npy, write_rows
from semrec_faiss.index.generations.file_names import (
    BOUNDS_NAME,
    DELISTED_NAME,
    RECORDS,
    SEEN_NAME,
    USER_LOOKUP,
    USERS_NAME,
    VECTORS_NAME,
    file_of,
)
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.generations.manifest import Segment
from semrec_faiss.index.generations.texts import write_texts
from semrec_faiss.index.saved.delisted import joined_rows, write_delisted
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.users import SavedUsers, line_of, write_seen
from semrec_faiss.index.screening.written import write_segment_bounds
from semrec_faiss.index.segments.opened import REPLACED, USERS_REPLACED
from semrec_faiss.index.segments.places import GONE, Places
from semrec_faiss.index.update.plan import Kind, UpdatePlan
from semrec_faiss.index.update.returning import returning, write_media_ids


class SeenCounts(NamedTuple):
    """What users have seen since, counted: pairs of a user and a title that are new, or were there already; and rows
    that name unknown users or titles.
    """

    added: int = 0
    known: int = 0
    ignored: int = 0


@dataclass(frozen=True)
class Written:
    """A segment that was written.

    Attributes:
        segment: what the manifest says of it.
        seen: what users have seen since, counted.
        seen_users: the ids of the users who have seen something since.
        returned: whether new titles had been seen before.
    """

    segment: Segment
    seen: SeenCounts
    seen_users: Sequence[str]
    returned: bool


def write_segment(new: NewGeneration, saved: SavedIndex, plan: UpdatePlan, name: str, *, strict: bool) -> Written:
    """Write what ``plan`` brings to ``saved`` as a segment called ``name``.

    The front of an index in shards is given a plan without the records of titles, and only takes note of their rows.

    Raises:
        DataError: what users have seen cannot be read, or ``strict`` and it names somebody or something unknown.
    """
    titles, users = places_of(saved)
    back = returning(saved, plan.titles, titles)
    write_media_ids(new, name, saved, plan.titles.removed, titles, back)
    _write_titles(new, name, plan.titles, plan.lines, np.concatenate((_replaced(plan.titles, titles), back.moves)))
    written = [user_id for user_id, is_written in zip(plan.users.ids, plan.users.written, strict=True) if is_written]
    write_users(new, name, written, plan.users.vectors, _replaced(plan.users, users))
    count = int(plan.titles.written.sum())
    segment = Segment(name=name, titles=count, users=len(written))
    if plan.lines:
        bounds = write_segment_bounds(new, file_of(name, BOUNDS_NAME), saved.generation, plan.titles.vectors)
        segment = segment.model_copy(update=bounds)
    if not plan.seen and not back.seen:
        return Written(segment, SeenCounts(), (), returned=back.any)
    since = _read_seen(saved, plan, titles, users, strict=strict)
    known = len(users.now) + len(written)
    if since.unlisted is not None:
        write_delisted(new, since.unlisted, known, file_of(name, DELISTED_NAME))
    seen = _joined([*back.seen, *since.parts])
    if len(seen.users) and not _is_known(saved, plan, titles, users, since):
        rows = (seen.users, seen.titles, seen.ratings, seen.timestamps)
        write_seen(new, grouped_history(*rows, known, len(titles.now) + count), file_of(name, SEEN_NAME))
    return Written(segment, since.counts, since.who, returned=back.any)


def counted_seen(saved: SavedIndex, plan: UpdatePlan, *, strict: bool) -> SeenCounts:
    """Count what users have seen, as `write_segment` would; raises as it does."""
    return _read_seen(saved, plan, *places_of(saved), strict=strict).counts


def places_of(saved: SavedIndex) -> tuple[Places, Places]:
    """Return the places of the titles and of the users of an index."""
    if saved.segments is not None:
        return saved.segments.titles, saved.segments.users
    manifest = saved.generation.manifest
    return Places.of([manifest.count], []), Places.of([manifest.users], [])


def write_users(new: NewGeneration, name: str, ids: Sequence[str], vectors: Vectors, replaced: Rows) -> None:
    """Write the users' part of a segment; no file where there is nothing to say.

    Args:
        new: where it is written.
        name: the segment's.
        ids: new and changed users.
        vectors: float32 (ids, dim), theirs.
        replaced: int64 (n, 2), see `Replaced`.
    """
    if ids:
        _write_vectors(new, file_of(name, USERS_NAME), vectors)
        write_texts(new, file_of(name, USER_LOOKUP), ((line_of(user_id), (user_id,)) for user_id in ids))
    write_rows(new, file_of(name, USERS_REPLACED), replaced)


def _write_titles(
    new: NewGeneration, name: str, kind: Kind, lines: Sequence[tuple[bytes, Iterable[str]]], replaced: Rows
) -> None:
    if lines:
        _write_vectors(new, file_of(name, VECTORS_NAME), kind.vectors)
        write_texts(new, file_of(name, RECORDS), lines)
    write_rows(new, file_of(name, REPLACED), replaced)


def _write_vectors(new: NewGeneration, name: str, vectors: Vectors) -> None:
    with new.create(name) as file:
        write_npy(file, lambda: [(0, vectors)], vectors.shape)


def _replaced(kind: Kind, places: Places) -> Rows:
    """Return what is replaced by what is written, in its order, after all that is there, and what is removed."""
    first = len(places.now)
    written = kind.rows[kind.written]
    changed = np.flatnonzero(written >= 0)
    moved = np.stack([places.rows[written[changed]], first + changed], axis=1)
    removed = places.rows[kind.removed]
    return np.concatenate([moved, np.stack([removed, np.full_like(removed, GONE)], axis=1)])


@dataclass(frozen=True)
class _SeenSince:
    """What users have seen since: by place, counted, the ids of these users, and what of it is not there."""

    parts: list[SeenRows]
    counts: SeenCounts
    who: list[str]
    unlisted: DelistedRows | None


def _read_seen(saved: SavedIndex, plan: UpdatePlan, titles: Places, users: Places, *, strict: bool) -> _SeenSince:
    """Read what users have seen since.

    A file of which no row would be kept, and that is all of the change, is taken for one of other ids.
    """
    parts, who, unlisted = [], [], []
    is_all = plan.titles.is_empty and plan.users.is_empty and not plan.takes_unknown
    for path in plan.seen:
        user_table = _table(plan.users, users, distinct_ids(path, "user_id"), saved.users)
        title_table = _table(plan.titles, titles, distinct_ids(path, "media_id"), saved.titles)
        may_be_none = bool(len(user_table["id"])) or not is_all  # what known users have seen may be listed later
        found = read_seen_rows(path, user_table, title_table, strict=strict, allow_none=may_be_none)
        _check_timestamps(saved, found, path)
        parts.append(found)
        unlisted += [read_delisted_rows(path, user_table, title_table)] if found.ignored else []
        who += user_table["id"][np.isin(user_table["number"], found.users)].tolist()
    if any((part.timestamps is None) != (parts[0].timestamps is None) for part in parts):
        raise DataError(f"{plan.seen[0]} or {plan.seen[1]} lacks timestamps", fix="give them to all rows, or to none")
    counts = _counts(saved, plan, titles, users, parts)
    return _SeenSince(parts, counts, list(dict.fromkeys(who)), joined_rows(unlisted))


def _counts(
    saved: SavedIndex, plan: UpdatePlan, titles: Places, users: Places, parts: Sequence[SeenRows]
) -> SeenCounts:
    """Hold what users have seen since against what is known of them."""
    who = np.concatenate([np.empty(0, np.int64), *(one.users for one in parts)])
    what = np.concatenate([np.empty(0, np.int64), *(one.titles for one in parts)])
    pairs = np.unique(np.stack([who, what]), axis=1)
    there = 0
    if saved.users is not None and saved.users.has_seen:
        rows = np.stack([_rows_before(plan.users, users)[pairs[0]], _rows_before(plan.titles, titles)[pairs[1]]])
        rows = rows[:, (rows != GONE).all(axis=0)]
        known = saved.users.seen_by(np.unique(rows[0]))
        there = int(np.isin(_numbered(rows, saved), _numbered(np.stack([known.users, known.titles]), saved)).sum())
    return SeenCounts(pairs.shape[1] - there, there, sum(one.ignored for one in parts))


def _is_known(saved: SavedIndex, plan: UpdatePlan, titles: Places, users: Places, since: _SeenSince) -> bool:
    """Tell whether the index would know no more: of all that was seen since, it has the rating and the time."""
    is_all = plan.titles.is_empty and plan.users.is_empty
    if saved.users is None or not is_all or since.counts.added or not since.counts.known:
        return False
    more = _joined(since.parts)
    more = replace(more, users=users.now[more.users], titles=titles.now[more.titles])
    known = saved.users.seen_by(np.unique(more.users))
    before, after = (_history(saved, one) for one in (known, _joined([known, more])))
    return (
        np.array_equal(before.rows, after.rows)
        and np.array_equal(_ratings(before), _ratings(after), equal_nan=True)
        and np.array_equal(_times(before), _times(after))
    )


def _history(saved: SavedIndex, seen: SeenRows) -> History:
    manifest = saved.generation.manifest
    return grouped_history(seen.users, seen.titles, seen.ratings, seen.timestamps, manifest.users, manifest.count)


def _ratings(history: History) -> Scores:
    return np.full(len(history.rows), np.nan, np.float32) if history.ratings is None else history.ratings


def _times(history: History) -> Rows:
    return np.empty(0, np.int64) if history.timestamps is None else history.timestamps


def _rows_before(kind: Kind, places: Places) -> Rows:
    """Return the row before the change of each place after it, `GONE` where there was none: int64 (places,)."""
    return np.concatenate([places.now, kind.rows[kind.written]])


def _numbered(pairs: Rows, saved: SavedIndex) -> Rows:
    """Return rows of users and of titles, int64 (2, n), as one number each."""
    return np.asarray(pairs[0] * saved.generation.manifest.count + pairs[1])


def _check_timestamps(saved: SavedIndex, found: SeenRows, path: Path) -> None:
    """Refuse rows without timestamps where the index has them, and the other way round."""
    known = None if saved.users is None else saved.users.has_timestamps
    if known is None or (found.timestamps is not None) == known:
        return
    told, lacks = ("the index", path) if known else (path, "the index")
    raise DataError(
        f"{told} knows when titles were seen, and {lacks} does not",
        fix="give every row a timestamp"
        if known
        else "leave the column of times out, as semrec append-seen does with --map time=-",
    )


def _table(kind: Kind, places: Places, ids: Sequence[str], held: SavedUsers | Titles | None) -> IdTable:
    """Return those of ``ids`` that there are after the change, each with its place."""
    written = {each: at for at, each in enumerate(np.array(kind.ids, dtype=object)[kind.written].tolist())}
    rows = np.full(len(ids), GONE, np.int64) if held is None or not ids else held.known_rows(ids)
    rows[np.isin(rows, kind.removed)] = GONE
    numbers = np.array([GONE if row == GONE else places.rows[row] for row in rows.tolist()], np.int64)
    for at, each in enumerate(ids):
        if each in written:
            numbers[at] = len(places.now) + written[each]
    kept = np.flatnonzero(numbers != GONE)
    return numbered(np.array([ids[at] for at in kept.tolist()], dtype=np.object_), numbers[kept])


def _joined(parts: Sequence[SeenRows]) -> SeenRows:
    return SeenRows(
        np.concatenate([one.users for one in parts]),
        np.concatenate([one.titles for one in parts]),
        *joined_ratings_and_times(parts),
        sum(one.ignored for one in parts),
    )
