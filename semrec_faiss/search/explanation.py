"""Why a title is recommended to a user, and which users are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from semrec_faiss.arrays import Rows, Values, Vectors
from semrec_faiss.config.profile import Profile
from semrec_faiss.data.interactions.profiles import profile_weights
from semrec_faiss.data.titles.catalog import RowsLike
from semrec_faiss.data.titles.titles import Record
from semrec_faiss.index.cpu.cosines import most_alike
from semrec_faiss.index.cpu.exact import SCAN_ROWS, inner_products
from semrec_faiss.index.cpu.products import products_of_one
from semrec_faiss.index.queries import checked_count
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.profile.profile_search import Served


@dataclass(frozen=True)
class SimilarUser:
    """One user near another: rank, id and the cosine of the preference vectors."""

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
        share: where the index has a profile, its part of the score: those of all seen titles add up to 1, below 0 for
            what lowers it; None where the score is not above 0, of which nothing is a part. Without a profile its part
            of the sum of all seen titles' positive similarities, from 0 to 1.
        points: where the index has a profile, what it brings to the score: those of all seen titles add up to it.
        text_points: of these, what the texts bring, where the vectors were learned.
    """

    media_id: str
    title: str
    similarity: float
    share: float | None
    points: float | None = None
    text_points: float | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a title is, or is not, recommended to a user.

    Attributes:
        user_id: the user.
        media_id: the title's id.
        title: the title.
        score: inner product of the two vectors.
        rank: its place among all titles that the user is not known to have seen; 1 is the best.
        of: how many those are.
        seen: whether the user has seen it; then the rank is the one it would have.
        seen_titles: how many titles the user has seen; None where the index does not know.
        contributions: the seen titles nearest to it, nearest first; with a profile, those that bring most.
        other_points: with a profile, what the seen titles that are not named bring together.
        text_points: what the texts bring to the score, where the vectors were learned.
        served_rank: where the profile orders lists by more than the mean of what the user has seen, which is explained
            alone: its place in the user's list; None where it is too far down, or the index is not exact.
        served_score: what it is listed with there, or None.
        note: what orders the list beside what is explained.
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
    other_points: float | None = None
    text_points: float | None = None
    served_rank: int | None = None
    served_score: float | None = None
    note: str | None = None

    def as_dict(self) -> Record:
        """Return it as JSON has it, without points where the index has no profile, nor what is None of the list."""
        known = asdict(self)
        known["contributions"] = [_without_none(one, _POINTS) for one in known["contributions"]]
        return _without_none(known, (*_POINTS, *_SERVED))


_POINTS = ("points", "other_points", "text_points")
_SERVED = ("served_rank", "served_score", "note")


def _without_none(values: Record, names: tuple[str, ...]) -> Record:
    return {name: value for name, value in values.items() if name not in names or value is not None}


def similar_users(users: SavedUsers, user_id: str, k: int) -> list[SimilarUser]:
    """Find the users whose preference vectors point most nearly the same way as one user's, by an exact scan.

    The user is not among them. Cosines are compared, whatever the index does, as `Recommender.similar` compares titles:
    by inner products, users with long vectors would be like everybody.

    Raises:
        NotFoundError: an unknown user.
        UsageError: k is below 1.
    """
    k = checked_count(k)
    row, lengths = int(users.rows_of([user_id])[0]), users.lengths
    query = (users.vectors[row : row + 1][0] / lengths[row]).astype(np.float32)
    others = np.delete(np.arange(users.count), row)
    found, cosines = most_alike(query, k, others, lengths, users.blocks(), users.vectors.__getitem__)
    best = zip(found.tolist(), cosines.tolist(), strict=True)
    return [SimilarUser(rank, users.ids[other], cosine) for rank, (other, cosine) in enumerate(best, start=1)]


def explain(
    saved: SavedIndex,
    index: VectorIndex,
    users: SavedUsers,
    records_of: Callable[[RowsLike], Sequence[Record]],
    user_row: int,
    row: int,
    k: int,
    rank_of: Callable[[Vectors, int, Rows], int],
    served_of: Callable[[int, int, Rows], Served | None],
) -> Explanation:
    """Explain one title to one user.

    A preference vector is a mean of what the user has seen, so the score is a mean of the title's similarities to the
    seen titles: those with the highest similarity contribute most. Where the index has a profile the weights of that
    mean are known, and each title's points are what it brings; otherwise shares are of the unweighted similarities.

    Args:
        saved: what the index was built with.
        index: the title vectors.
        users: the users.
        records_of: reads metadata.
        user_row: the user.
        row: the title.
        k: how many contributions to name.
        rank_of: ranks a row among all but some for a query, as `rank_among`.
        served_of: finds a row in a user's list without some, where it is not by the user's vector alone; else None.
    """
    k = checked_count(k)
    query = np.ascontiguousarray(users.vectors[user_row])
    title_vector = index.vectors([row])[0]
    score = float(score_of(index, query, row))
    seen = _seen_by(users, user_row)
    record = records_of([row])[0]
    vectors = index.vectors(seen)
    similarities = vectors @ title_vector
    points = _points(saved, users, user_row, vectors, title_vector)
    positive = float(np.maximum(similarities, 0).sum()) or 1.0
    ranked = similarities if points is None else points.of_title
    nearest = [position for position in np.argsort(-ranked, kind="stable") if seen[position] != row][:k]
    named = records_of(seen[nearest])
    contributions = tuple(
        Contribution(
            near["media_id"],
            near["title"],
            float(similarities[position]),
            max(0.0, float(similarities[position])) / positive,
        )
        if points is None
        else points.contribution(near, position, float(similarities[position]), score)
        for near, position in zip(named, nearest, strict=True)
    )
    served = served_of(user_row, row, seen[seen != row])
    return Explanation(
        user_id=users.ids[user_row],
        media_id=record["media_id"],
        title=record["title"],
        score=score,
        rank=rank_of(query, row, seen),
        of=index.count - len(seen) + int(row in seen),
        seen=bool(row in seen),
        seen_titles=len(seen) if users.has_seen else None,
        contributions=contributions,
        other_points=None if points is None else float(np.delete(points.of_title, nearest).sum()),
        text_points=None if points is None or points.of_text is None else float(points.of_text.sum()),
        served_rank=None if served is None else served.rank,
        served_score=None if served is None else served.score,
        note=_note(saved.config.profile, served),
    )


def _note(profile: Profile | None, served: Served | None) -> str | None:
    """Say what orders the user's list beside what is explained, and where it is too short for the title."""
    beyond = "" if served is None or served.rank is not None else f"; it is not among the first {served.most:,} of it"
    if served is not None and served.popular:
        return f"nothing that counts is known of this user, whose list is of the titles that most users like{beyond}"
    if profile is None or profile.is_one_search:
        return None
    more = [f"{profile.interests} interests"] * (profile.interests > 1) + ["popularity"] * bool(profile.popularity)
    told = "this is by the mean of what the user has seen"
    return f"the user's list is ordered by {' and '.join(more)} too{beyond}; {told}"


@dataclass(frozen=True)
class _Points:
    """What each seen title brings to a score: float64 (n,), and of that what the texts bring, where they are known."""

    of_title: Values
    of_text: Values | None

    def contribution(self, near: Record, position: int, similarity: float, score: float) -> Contribution:
        mine = float(self.of_title[position])
        text = None if self.of_text is None else float(self.of_text[position])
        share = mine / score if score > 0 else None
        return Contribution(near["media_id"], near["title"], similarity, share, mine, text)


def _points(saved: SavedIndex, users: SavedUsers, user_row: int, vectors: Vectors, title: Vectors) -> _Points | None:
    """Split a score into what each seen title brings; None where the user's vector is not known to be their mean."""
    profile = saved.config.profile
    if profile is None or not users.has_seen or user_row in users.without_likes:
        return None
    weights = profile_weights(users.history_of(user_row), profile)
    mean = weights @ vectors.astype(np.float64)
    # The stored vector is the mean divided by the weights' sum, or by its length where the index normalises.
    length = float(np.linalg.norm(mean)) if saved.config.index.normalize else float(np.abs(weights).sum())
    shares = weights / length
    learned, wide = saved.transformation, vectors.astype(np.float64)
    of_text = None if learned is None else shares * (wide[:, learned.rank :] @ title[learned.rank :])
    return _Points(shares * (wide @ title), of_text)


def _seen_by(users: SavedUsers, user_row: int) -> Rows:
    if not users.has_seen:
        return np.empty(0, np.int64)
    offsets, rows = users.seen
    return np.asarray(rows[offsets[user_row] : offsets[user_row + 1]], dtype=np.int64)


def rank_among(index: VectorIndex, query: Vectors, row: int, left_out: Rows) -> int:
    """Return the place of ``row`` by score, ties by row, among the titles that are not left out."""
    return 1 + count_before(index, query, row, score_of(index, query, row), left_out)


def score_of(index: VectorIndex, query: Vectors, row: int) -> np.float32:
    """Score one title as a search does."""
    score: np.float32 = inner_products(query[None, :], index.vectors([row])[None])[0, 0]
    return score


def count_before(index: VectorIndex, query: Vectors, row: int, score: np.float32, left_out: Rows) -> int:
    """Count the titles, but for ``left_out``, that come before one with this score and row.

    What float32's rounding cannot tell apart is scored again, as a search does.
    """
    slack, left = 2 * float(index.rounding_error(query[None, :])[0]), np.ones(index.count, np.bool_)
    left[left_out] = False
    before = 0
    for start in range(0, index.count, SCAN_ROWS):
        some = left[start : start + SCAN_ROWS]
        vectors = index.block(start, start + len(some))
        # One difference decides, of float64: rounded in two ways, a title could be counted twice, or not at all.
        ahead = products_of_one(query[None, :], vectors).astype(np.float64) - float(score)
        near = np.flatnonzero(some & (np.abs(ahead) <= slack))
        before += int(np.count_nonzero(some & (ahead > slack)))
        settled = inner_products(query[None, :], vectors[near][None])[0]
        before += int(np.count_nonzero((settled > score) | ((settled == score) & (near + start < row))))
    return before
