"""A query vector for somebody without one: titles they like, dislike or have rated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import Names, mapping_of, names_of, number_of
from semrec_faiss.config.profile import Profile
from semrec_faiss.data.interactions.profiles import profile_weights
from semrec_faiss.data.titles.titles import Record
from semrec_faiss.data.users import History
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.vector_index import VectorIndex

DISLIKE_WEIGHT = -0.5
"""A disliked title pushes half as hard as a liked one pulls: the opposite of a film is no place for good films."""

RATING_RANGE = (0.5, 5.0)


@dataclass(frozen=True)
class Taste:
    """What somebody has said about titles.

    Attributes:
        likes: titles or media_ids, weight 1 each; one text is a list of one.
        dislikes: titles or media_ids, weight -0.5 each; one text is a list of one.
        ratings: title or media_id → 0.5 to 5 stars, weight (rating - 1) / 4, or what the index's profile says.

    Example:
        >>> from semrec_faiss import Taste
        >>> Taste(likes="Alien (1979)", ratings={"Toy Story (1995)": 2}).weights()
        [('Alien (1979)', 1.0), ('Toy Story (1995)', 0.25)]
    """

    likes: Names = ()
    dislikes: Names = ()
    ratings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take everything as texts and numbers; raises UsageError for what is neither, and for ratings out of range."""
        low, high = RATING_RANGE
        object.__setattr__(self, "likes", names_of(self.likes, "likes"))
        object.__setattr__(self, "dislikes", names_of(self.dislikes, "dislikes"))
        ratings = mapping_of(self.ratings, "ratings")
        for title, rating in ratings.items():
            if not low <= number_of(rating, f"the rating of {quoted(title)}") <= high:
                raise UsageError(f"the rating of {quoted(title)} is {rating}; ratings go from {low} to {high}")
        object.__setattr__(self, "ratings", ratings)

    def weights(self, profile: Profile | None = None) -> list[tuple[str, float]]:
        """Return title and weight of everything that was said; raises UsageError when nothing was.

        Args:
            profile: how ratings are weighed, where the index has one.

        Example:
            >>> from semrec_faiss import Taste
            >>> Taste(likes=["Alien (1979)"], dislikes=["Heat (1995)"]).weights()
            [('Alien (1979)', 1.0), ('Heat (1995)', -0.5)]
        """
        likes, dislikes = names_of(self.likes, "likes"), names_of(self.dislikes, "dislikes")
        weights = [(title, 1.0) for title in likes] + [(title, DISLIKE_WEIGHT) for title in dislikes]
        stars = np.array(list(self.ratings.values()), np.float32)
        said = History(np.array([0, len(stars)]), np.arange(len(stars), dtype=np.int32), stars)
        # Without a profile a rating below 1 pushes away, a little.
        given = (stars - 1) / 4 if profile is None else profile_weights(said, profile)
        weights += zip(self.ratings, given.tolist(), strict=True)
        if not weights:
            raise UsageError("nothing is liked, disliked or rated", fix='name a title that is liked: "Alien (1979)"')
        return weights


def said_once(taste: Taste, rows: Sequence[int]) -> list[int]:
    """Return the places of what counts: a title that is liked, or disliked, twice counts once, however it is called.

    Args:
        taste: what was said.
        rows: the titles' rows in the order of ``taste.weights()``.

    Raises:
        UsageError: a title is liked and disliked, or rated twice.
    """
    said = [("liked", title) for title in names_of(taste.likes, "likes")]
    said += [("disliked", title) for title in names_of(taste.dislikes, "dislikes")]
    said += [("rated", title) for title in taste.ratings]
    first = dict[tuple[str, int], int]()
    for place, ((what, title), row) in enumerate(zip(said, rows, strict=True)):
        if what == "disliked" and ("liked", row) in first:
            raise UsageError(f"{quoted(title)} is liked and disliked", fix="leave one of them out")
        if what == "rated" and (what, row) in first:
            raise UsageError(f"{quoted(title)} is rated twice", fix="leave one of them out")
        first.setdefault((what, row), place)
    return list(first.values())


def told_weights(titles: Sequence[Record], weights: Sequence[float]) -> dict[str, float]:
    """Return what titles weigh in all, by their names; of several with one name each has its media_id behind it."""
    named = Counter(name for name, _ in {(one["title"], one["media_id"]) for one in titles})
    told: dict[str, float] = {}
    for one, weight in zip(titles, weights, strict=True):
        name = str(one["title"]) if named[one["title"]] == 1 else f"{one['title']} [{one['media_id']}]"
        told[name] = told.get(name, 0.0) + weight
    return told


def taste_vector(index: VectorIndex, rows: Sequence[int], weights: Sequence[float]) -> NDArray[np.float32]:
    """Return the weighted mean of titles as a query: float32 (1, dim), of unit length where the index normalises.

    Raises:
        UsageError: the weights cancel out, so that no direction is left.
    """
    vectors = index.vectors(np.asarray(rows, dtype=np.int64)).astype(np.float64)
    factors = np.asarray(weights)
    mean = factors @ vectors / np.abs(factors).sum() if np.abs(factors).sum() else np.zeros(index.dim)
    if np.linalg.norm(mean) <= np.finfo(np.float32).eps * np.abs(vectors).max():
        raise UsageError("the likes and dislikes cancel out", fix="like at least one title, or rate one above 1")
    return index.prepare(mean[None, :])
