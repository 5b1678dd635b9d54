"""Choosing k of a larger pool: maximal marginal relevance, and at most so many titles of one franchise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask, Rows, Scores, Vectors
from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.deadline import raise_if_late
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.cpu.exact import VectorsOf, inner_products, wide_products
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.filters.field_filters import known_field
from semrec_faiss.search.restricted.found import TopK

POOL_FACTOR = 5
"""The pool holds this many candidates for each title that is returned …"""

POOL_LEAST = 50
"""… and at least so many, so that a short list has something to choose from."""

UNREAD = -2
"""The code of a title whose value is not known, as while its shard was lost: no limit could be held with it."""

BLOCK_BYTES = 64 << 20
"""Candidate vectors gathered at once."""


@dataclass(frozen=True)
class Variety:
    """How a list is kept from repeating itself.

    Attributes:
        diversity: 0 ranks by score alone, 1 by difference from what is chosen already.
        max_per: field name → the most titles that may share a value of it; titles without a value are not limited.
    """

    diversity: float = 0.0
    max_per: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if not 0.0 <= self.diversity <= 1.0:
            raise UsageError(f"diversity is {self.diversity}; it must be from 0 to 1")
        for name, most in self.max_per.items():
            if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1:
                raise UsageError(f"at most {quoted(most)} titles per {name}; it must be a whole number of at least 1")

    @property
    def is_plain(self) -> bool:
        """Whether the ranking by score stays as it is."""
        return self.diversity == 0.0 and not self.max_per

    def pool(self, k: int) -> int:
        """How many candidates to choose k from."""
        return max(POOL_LEAST, POOL_FACTOR * k)


class Groups:
    """The values of one metadata field as whole numbers.

    Attributes:
        codes: int64 (titles,), -1 where a title has none, `UNREAD` where that is not known: it is in no list then.
        titles_seen: the share of titles of which it is known.
    """

    def __init__(self, codes: Rows, texts: Callable[[], list[str]], titles_seen: float = 1.0) -> None:
        """Take the values as numbers; ``texts`` reads what these stand for."""
        self.codes = codes
        self.texts = texts
        self.titles_seen = titles_seen

    @classmethod
    def of(cls, catalog: Catalog, name: str) -> Groups:
        """Read the field of all titles.

        Raises:
            UsageError: there is no such field, or it holds lists.
        """
        field, kind = known_field(catalog, name)
        if kind.endswith("[]"):
            able = [each for each, own in catalog.names.items() if not catalog.fields[own].endswith("[]")]
            raise UsageError(
                f"field {quoted(name)} holds lists; a limit needs one value a title",
                fix=f"fields of one value: {', '.join(able)}",
            )
        column = quoted_name(field)
        sql = (
            f"SELECT CASE WHEN {column} IS NULL THEN -1 ELSE dense_rank() OVER (ORDER BY {column}) - 1 END AS code"
            " FROM titles ORDER BY _semrec_row"
        )
        distinct = f"SELECT DISTINCT {column} AS value FROM titles WHERE {column} IS NOT NULL"
        texts = f"SELECT value::VARCHAR FROM ({distinct}) ORDER BY value"
        codes = np.asarray(catalog.cursor().execute(sql).fetchnumpy()["code"], dtype=np.int64)
        return cls(codes, lambda: [text for (text,) in catalog.cursor().execute(texts).fetchall()])


def choose_varied(
    index: VectorIndex,
    queries: Vectors | None,
    pool: TopK,
    k: int,
    variety: Variety,
    groups: Mapping[str, Groups],
    vectors_of: VectorsOf | None = None,
) -> tuple[Rows, Scores]:
    """Choose up to k titles a query from a pool, best choice first.

    Maximal marginal relevance (Carbonell and Goldstein 1998): each next title maximises
    (1 - diversity) · score - diversity · (its highest similarity to a title chosen before).

    Args:
        index: where the candidates' vectors are.
        queries: float32 (queries, dim), prepared; None where scores are not those of one vector per query.
        pool: candidates by descending score; -1 where there are no more.
        k: how many to choose.
        variety: the weight, and the limits per field.
        groups: the values of every limited field.
        vectors_of: returns what titles are compared by, float32 (rows, …); their vectors by default.

    Returns:
        rows int64 and scores float32 (queries, k); -1 and -inf where no candidate is left.

    Raises:
        TooLateError: nobody waits any more: thousands of titles for each of hundreds of queries take minutes.
    """
    rows = np.full((len(pool.rows), k), -1, np.int64)
    scores = np.full((len(pool.rows), k), -np.inf, np.float32)
    step = max(1, BLOCK_BYTES // (4 * index.dim * max(1, pool.rows.shape[1])))
    for start in range(0, len(pool.rows), step):
        part = slice(start, start + step)
        gains = vectors = None
        if variety.diversity:
            vectors = _vectors(vectors_of or index.vectors, pool.rows[part])
            relevance = _relevance(None if queries is None else queries[part], pool.scores[part], vectors)
            gains = ((1 - variety.diversity) * relevance).astype(np.float64)
        for at, candidates in enumerate(pool.rows[part]):
            raise_if_late("the lists were not chosen when their time was up")
            limits = _Limits(candidates, groups, variety.max_per)
            if gains is None or vectors is None:
                chosen = _first(k, limits)
            else:
                chosen = _varied(k, limits, _Worth(gains[at], variety.diversity, vectors[at], limits.open, k))
            rows[start + at, : len(chosen)] = candidates[chosen]
            scores[start + at, : len(chosen)] = pool.scores[start + at, chosen]
    return rows, scores


def _first(k: int, limits: _Limits) -> list[int]:
    """Return the first places whose values are not used up by those before."""
    chosen: list[int] = []
    for place in np.flatnonzero(limits.open).tolist():
        if len(chosen) == k:
            break
        if limits.take(place):
            chosen.append(place)
    return chosen


def _varied(k: int, limits: _Limits, worth: _Worth) -> list[int]:
    """Return the places that are worth the most, each beside those before, while their values are not used up."""
    chosen: list[int] = []
    while len(chosen) < k and (best := worth.best()) is not None:
        raise_if_late("the lists were not chosen when their time was up")
        limits.take(best)
        worth.choose(best, limits.used_up_by(best))
        chosen.append(best)
    return chosen


class _Limits:
    """How many titles of one list may share a value of each limited field.

    Attributes:
        open: bool (candidates,), which may be in the list at all.
    """

    def __init__(self, candidates: Rows, groups: Mapping[str, Groups], max_per: Mapping[str, int]) -> None:
        codes = [groups[name].codes[np.maximum(candidates, 0)] for name in max_per]
        self.open = np.logical_and.reduce([candidates >= 0, *(own != UNREAD for own in codes)])
        self._codes = codes
        self._fields: list[tuple[list[int], Counter[int], int]] = [
            (own.tolist(), Counter(), most) for own, most in zip(codes, max_per.values(), strict=True)
        ]

    def take(self, place: int) -> bool:
        """Take a candidate into the list, and tell so; not where one of its values is used up."""
        for own, times, most in self._fields:
            if own[place] >= 0 and times[own[place]] >= most:
                return False
        for own, times, _ in self._fields:
            times[own[place]] += 1
        return True

    def used_up_by(self, place: int) -> Mask:
        """Return who shares a value with what was taken last that is used up by it."""
        shares = np.zeros(len(self.open), np.bool_)
        for codes, (own, times, most) in zip(self._codes, self._fields, strict=True):
            if own[place] >= 0 and times[own[place]] == most:
                shares |= codes == own[place]
        return shares


class _Worth:
    """What the candidates of one list are worth beside those that were chosen.

    A candidate's highest similarity to these, which may be more than any score is, is brought up to date when it might
    be the next. As it only grows, who is worth less than another by one that is not up to date is worth less.
    """

    def __init__(self, gain: NDArray[np.float64], diversity: float, vectors: Vectors, open_: Mask, k: int) -> None:
        """Begin with ``gain``, what each is worth where nothing is chosen; at most k of those that are open are."""
        self._gain, self._diversity, self._vectors = gain, diversity, vectors
        self._worth = np.where(open_, gain, -np.inf)
        self._chosen = np.empty((min(k, len(vectors)), vectors.shape[1]))  # float64, as the products are
        self._count = 0
        self._compared = np.zeros(len(vectors), np.int64)  # with how many of them
        self._nearest = np.full(len(vectors), -np.inf)

    def best(self) -> int | None:
        """Return the place of who is worth the most, of equal ones the first; None where nobody is left."""
        while True:
            best = int(self._worth.argmax())
            if self._worth[best] == -np.inf:
                return None
            if self._compared[best] == self._count:
                return best
            later = self._chosen[self._compared[best] : self._count]
            found = np.einsum("d,cd->c", self._vectors[best].astype(np.float64), later)
            self._nearest[best], self._compared[best] = max(self._nearest[best], found.max()), self._count
            self._worth[best] = self._gain[best] - self._diversity * self._nearest[best]

    def choose(self, place: int, used_up: Mask) -> None:
        """Take a candidate into the list, and close it and who is used up."""
        self._chosen[self._count] = self._vectors[place]
        self._worth[place] = -np.inf
        self._worth[used_up] = -np.inf
        if not self._count:
            self._nearest = wide_products(self._vectors[None, place], self._vectors[None])[0]
            self._compared[:] = 1
            closed = self._worth == -np.inf
            self._worth = np.where(closed, -np.inf, self._gain - self._diversity * self._nearest)
        self._count += 1


def _relevance(queries: Vectors | None, scores: Scores, vectors: Vectors) -> Scores:
    """Return the candidates' scores, which rounding must not turn round."""
    if queries is None:
        # An empty place holds -inf, which 0 does not cancel.
        return np.where(np.isfinite(scores), scores, np.float32(0))
    return inner_products(queries, vectors)


def _vectors(vectors_of: VectorsOf, candidates: Rows) -> Vectors:
    found, inverse = np.unique(np.maximum(candidates, 0), return_inverse=True)
    gathered: Vectors = vectors_of(found)[inverse.reshape(candidates.shape)]
    return gathered
