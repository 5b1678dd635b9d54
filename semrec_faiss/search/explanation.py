"""Why a title is recommended to a user, and which users are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.data.titles.catalog import RowsLike
from semrec_faiss.index.exact import SCAN_ROWS, best_of_one
from semrec_faiss.index.saved_users import SavedUsers
from semrec_faiss.index.vector_index import VectorIndex, checked_count
from semrec_faiss.search.result import Record


@dataclass(frozen=True)
class SimilarUser:
    """One user near another: rank, id and the inner product of the preference vectors."""

    rank: int
    user_id: str
    score: float

    def as_dict(self) -> Record:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Contribution:
    """A seen title near the one explained.

    Attributes:
        media_id: its id.
        title: its title.
        similarity: its inner product with the title explained.
        share: its part of the sum of all seen titles' positive similarities, from 0 to 1.
    """

    media_id: str
    title: str
    similarity: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """Why a title is, or is not, recommended to a user.

    Attributes:
        user_id: the user.
        media_id: the title's id.
        title: the title.
        score: inner product of the two vectors.
        rank: its place among all titles that the user has not seen; 1 is the best.
        of: how many those are.
        seen: whether the user has seen it; then the rank is the one it would have.
        seen_titles: how many titles the user has seen; None where the index does not know.
        contributions: the seen titles nearest to it, nearest first.
    """

    user_id: str
    media_id: str
    title: str
    score: float
    rank: int
    of: int
    seen: bool
    seen_titles: int | None
    contributions: tuple[Contribution, ...]

    def as_dict(self) -> Record:
        """Return it as JSON has it."""
        return asdict(self)


def similar_users(users: SavedUsers, user_id: str, k: int) -> list[SimilarUser]:
    """Find the users with the nearest preference vectors by an exact scan; the user is not among them.

    Raises:
        NotFoundError: an unknown user.
        UsageError: k is below 1.
    """
    k = checked_count(k)
    row = int(users.rows_of([user_id])[0])
    query = np.ascontiguousarray(users.vectors[row : row + 1])
    scores, rows = best_of_one(query, min(k + 1, users.count), users.vectors)
    others = [(int(found), float(score)) for found, score in zip(rows[0], scores[0], strict=True) if found != row]
    return [SimilarUser(rank, users.ids[found], score) for rank, (found, score) in enumerate(others[:k], start=1)]


def explain(
    index: VectorIndex,
    users: SavedUsers,
    records_of: Callable[[RowsLike], Sequence[Record]],
    user_row: int,
    row: int,
    k: int,
) -> Explanation:
    """Explain one title to one user.

    A preference vector is a mean of what the user has seen, so the score is a mean of the title's similarities to the
    seen titles: those with the highest similarity contribute most. The weights of that mean are not stored, so shares
    are of the unweighted similarities.

    Args:
        index: the title vectors.
        users: the users.
        records_of: reads metadata.
        user_row: the user.
        row: the title.
        k: how many contributions to name.
    """
    k = checked_count(k)
    query = np.ascontiguousarray(users.vectors[user_row])
    title_vector = index.vectors([row])[0]
    score = float(query @ title_vector)
    seen = _seen_by(users, user_row)
    record = records_of([row])[0]
    similarities = index.vectors(seen) @ title_vector
    positive = float(np.maximum(similarities, 0).sum()) or 1.0
    nearest = [position for position in np.argsort(-similarities, kind="stable") if seen[position] != row][:k]
    contributions = tuple(
        Contribution(
            near["media_id"],
            near["title"],
            float(similarities[position]),
            max(0.0, float(similarities[position])) / positive,
        )
        for near, position in zip(records_of(seen[nearest]), nearest, strict=True)
    )
    return Explanation(
        user_id=users.ids[user_row],
        media_id=record["media_id"],
        title=record["title"],
        score=score,
        rank=_rank(index, query, row, seen),
        of=index.count - len(seen) + int(row in seen),
        seen=bool(row in seen),
        seen_titles=len(seen) if users.has_seen else None,
        contributions=contributions,
    )


def _seen_by(users: SavedUsers, user_row: int) -> Rows:
    if not users.has_seen:
        return np.empty(0, np.int64)
    offsets, rows = users.seen
    return np.asarray(rows[offsets[user_row] : offsets[user_row + 1]], dtype=np.int64)


def _rank(index: VectorIndex, query: Vectors, row: int, left_out: Rows) -> int:
    """Return the place of ``row`` by score, ties by row, among the titles that are not left out."""
    scores = np.empty(index.count, np.float32)
    for start in range(0, index.count, SCAN_ROWS):
        rows = np.arange(start, min(start + SCAN_ROWS, index.count), dtype=np.int64)
        scores[rows] = index.vectors(rows) @ query
    before = (scores > scores[row]) | ((scores == scores[row]) & (np.arange(index.count) < row))
    before[left_out] = False
    return 1 + int(before.sum())
