"""Choosing k of a larger pool: maximal marginal relevance, and at most so many titles of one franchise."""

from __future__ import annotations

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
        asked = None if queries is None else queries[part]
        vectors = _vectors(vectors_of or index.vectors, pool.rows[part]) if variety.diversity else None
        rows[part], scores[part] = _choose(asked, pool.rows[part], pool.scores[part], vectors, k, variety, groups)
    return rows, scores


def _choose(
    asked: Vectors | None,
    candidates: Rows,
    scores: Scores,
    vectors: Vectors | None,
    k: int,
    variety: Variety,
    groups: Mapping[str, Groups],
) -> tuple[Rows, Scores]:
    queries = np.arange(len(candidates))
    open_ = candidates >= 0
    most = min(k, candidates.shape[1])
    gain = (1 - variety.diversity) * _relevance(asked, scores, vectors)
    likeness = None if vectors is None else _Likeness(vectors, most)
    codes = {name: np.where(open_, groups[name].codes[np.maximum(candidates, 0)], -1) for name in variety.max_per}
    for own in codes.values():
        open_ &= own != UNREAD
    chosen_rows = np.full((len(candidates), k), -1, np.int64)
    chosen_scores = np.full((len(candidates), k), -np.inf, np.float32)
    for position in range(most):
        raise_if_late("the lists were not chosen when their time was up")
        if likeness is None or not position:
            best = np.argmax(np.where(open_, gain, -np.inf), axis=1)
        else:
            best = likeness.best(open_, gain, variety.diversity)
        alive = open_[queries, best]
        chosen_rows[alive, position] = candidates[queries, best][alive]
        chosen_scores[alive, position] = scores[queries, best][alive]
        open_[queries, best] = False
        for name, limit in variety.max_per.items():
            open_ &= ~_is_full(codes[name], groups[name], chosen_rows[:, : position + 1], best, limit)
        if likeness is not None:
            likeness.add(best)
    return chosen_rows, chosen_scores


class _Likeness:
    """The highest similarity of each candidate to a title that was chosen, which may be more than any score is.

    It is brought up to date when a candidate might be the next. As it only grows, who is worth less than another by one
    that is not up to date is worth less.
    """

    def __init__(self, vectors: Vectors, most: int) -> None:
        """Compare titles by ``vectors``, float32 (lists, candidates, …), of which each list chooses ``most``."""
        self._vectors = vectors
        self._lists = np.arange(len(vectors))
        self._chosen = np.empty((len(vectors), most, vectors.shape[2]))  # float64, as the products are
        self._count = 0
        self._nearest = np.zeros(vectors.shape[:2])  # of those chosen first, as many as `_compared` says
        self._compared = np.ones(vectors.shape[:2], np.int64)

    def add(self, best: Rows) -> None:
        """Take what each list has chosen next."""
        self._chosen[:, self._count] = added = self._vectors[self._lists, best]
        if not self._count:
            self._nearest = wide_products(added, self._vectors)
        self._count += 1

    def best(self, open_: Mask, gain: Scores, diversity: float) -> Rows:
        """Return the candidate of each list that is worth the most, of equal ones the first."""
        worth = np.where(open_, gain - diversity * self._nearest, -np.inf)
        every = zip(range(len(worth)), worth, gain, strict=True)
        return np.array([self._best_of(at, own, gained, diversity) for at, own, gained in every], np.int64)

    def _best_of(self, at: int, worth: NDArray[np.float64], gain: Scores, diversity: float) -> int:
        nearest, compared = self._nearest[at], self._compared[at]
        while True:
            best = int(worth.argmax())
            if compared[best] == self._count or worth[best] == -np.inf:
                return best
            later = self._chosen[at, compared[best] : self._count]
            found = np.einsum("d,cd->c", self._vectors[at, best].astype(np.float64), later)
            nearest[best], compared[best] = max(nearest[best], found.max()), self._count
            worth[best] = gain[best] - diversity * nearest[best]


def _relevance(queries: Vectors | None, scores: Scores, vectors: Vectors | None) -> Scores:
    """Return the candidates' scores, which rounding must not turn round; by score alone, their places say it all."""
    if vectors is None:
        return np.broadcast_to(-np.arange(scores.shape[1], dtype=np.float32), scores.shape)
    if queries is None:
        # An empty place holds -inf, which 0 does not cancel.
        return np.where(np.isfinite(scores), scores, np.float32(0))
    return inner_products(queries, vectors)


def _vectors(vectors_of: VectorsOf, candidates: Rows) -> Vectors:
    found, inverse = np.unique(np.maximum(candidates, 0), return_inverse=True)
    gathered: Vectors = vectors_of(found)[inverse.reshape(candidates.shape)]
    return gathered


def _is_full(codes: Rows, groups: Groups, chosen: Rows, best: Rows, most: int) -> NDArray[np.bool_]:
    """Tell which candidates share the value that the latest choice has used up."""
    latest = codes[np.arange(len(codes)), best]
    taken = np.where(chosen >= 0, groups.codes[np.maximum(chosen, 0)], -1)
    used_up = (latest >= 0) & ((taken == latest[:, None]).sum(axis=1) >= most)
    full: NDArray[np.bool_] = used_up[:, None] & (codes == latest[:, None])
    return full
