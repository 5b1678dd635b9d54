"""Searcher: runs a wish over a batch of query vectors; the one owner of the index and the titles it searches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.index.cpu.exact import VectorsOf
from semrec_faiss.index.exclusions import MOST_LISTED, Exclusions, either
from semrec_faiss.index.queries import as_batch
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.diversity import Groups, choose_varied
from semrec_faiss.search.filters.filter import Filter, Selections
from semrec_faiss.search.filters.missing import conditions, instead_of, notes
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.strategy import USUAL_BATCH
from semrec_faiss.search.restricted.topk import FEW_EXCLUDED, Strategy, restricted_top_k, users_top_k
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import Wish, plain

if TYPE_CHECKING:
    from semrec_faiss.index.fused.titles.users import HeldUsers

PoolOf = Callable[[Rows, int, Strategy], TopK]
"""Finds the best titles of some queries: their positions in a batch, int64 (some,), how many, and by which strategy."""

POOL_CELLS = 8 << 20
"""Titles of which varied lists are chosen at once, of all queries together: bounds the memory."""

HELD_AT = 2
"""How many questions about users come before they are copied to the GPU."""


class Searcher:
    """Runs wishes over batches of prepared query vectors; safe from many threads."""

    def __init__(self, index: VectorIndex, titles: Titles) -> None:
        """Search ``index``, whose rows are ``titles``."""
        self.index = index
        self.titles = titles
        self._groups: dict[str, Groups] = {}
        self._lock = threading.Lock()
        self._held: HeldUsers | None = None
        self._user_questions = 0

    @cached_property
    def selections(self) -> Selections:
        """The titles that filters let through, by filter; the first one loads the catalogue."""
        return Selections(self.titles.catalog, self.index)

    def run(self, queries: Vectors | UserRows, wish: Wish, exclusions: Exclusions | None = None) -> TopK:
        """Find what ``wish`` asks for.

        Args:
            queries: float32 (queries, dim), prepared by the index; or users, who say themselves what they exclude.
            wish: what is wanted.
            exclusions: rows that single queries must not return besides.

        Raises:
            UsageError: k, the filter or the variety is out of range or not understood.
            NotFoundError: an excluded title that does not exist.
        """
        wish, exclusions = self.listed(wish, len(queries), exclusions)
        if isinstance(queries, UserRows):
            held = self._on_gpu(queries, wish, exclusions)
            if held is not None:
                return users_top_k(self.index, held, queries, wish.k, self._restriction(wish, exclusions))
            exclusions, queries = either(queries.exclusions, exclusions), queries.vectors
        started = time.perf_counter()
        restriction = self._restriction(wish, exclusions)
        gathered = self._gathered(wish, restriction)
        filtering = Stage("filter", len(queries), restriction.allowed, (time.perf_counter() - started) * 1e3)
        if wish.variety.is_plain:
            found = restricted_top_k(
                self.index, queries, wish.k, restriction, strategy=wish.strategy, gathered=gathered
            )
        else:

            def pool(at: Rows, size: int, strategy: Strategy) -> TopK:
                mine = restriction.take(at)
                return restricted_top_k(self.index, queries[at], size, mine, strategy=strategy, gathered=gathered)

            found = self.varied(len(queries), wish, pool, queries)
        if restriction.mask is not None:
            found.stages.insert(0, filtering)
        return found

    def run_given(self, given: NDArray[Any], wish: Wish) -> TopK:
        """Find what ``wish`` asks for, of vectors that are not prepared; see `run`.

        Type fused prepares many on their way to a GPU, while it searches for those before them.

        Raises:
            UsageError, DataError: as `VectorIndex.prepare`.
        """
        given = as_batch(given, self.index.dim, or_one=True)
        if wish is not plain(wish.k) or self.index.fused is None or not self.index.exact:
            return self.run(self.index.prepare(given), wish)
        return restricted_top_k(self.index, given, wish.k, Restriction(self.index.count), prepared=False)

    def listed(self, wish: Wish, queries: int, exclusions: Exclusions | None) -> tuple[Wish, Exclusions | None]:
        """Join what a wish excludes with what single queries do, so that it costs no mask of all titles.

        A wish that excludes too many titles for that is returned as it is. How many are too many must not hang on the
        batch where what is found hangs on the strategy.

        Raises:
            NotFoundError: an excluded title that does not exist.
        """
        many = len(wish.exclude) * (queries if self.index.exact else USUAL_BATCH)
        if not 0 < many <= MOST_LISTED:
            return wish, exclusions
        rows = [self.titles.find(title) for title in wish.exclude]
        return replace(wish, exclude=()), either(exclusions, Exclusions.same_for_all(queries, rows))

    def _on_gpu(self, asked: UserRows, wish: Wish, exclusions: Exclusions | None) -> HeldUsers | None:
        """Return the users on the GPU where they are, and the wish is one that the kernels grant.

        ``exclusions`` besides what users have seen are dropped from longer lists, so they must be few.

        They are copied there when the second question about users comes: for one it would not pay.
        """
        if self.index.fused is None or not wish.variety.is_plain or wish.strategy not in ("auto", "masked"):
            return None
        few = 0 if exclusions is None else int(exclusions.counts.max(initial=0))
        if few > FEW_EXCLUDED or wish.k + few > min(self.index.count, self.index.k_limit or self.index.count):
            return None
        with self._lock:
            self._user_questions += 1
            if self._user_questions == HELD_AT:
                self._held = self.index.hold_users(asked.users)
            return self._held

    def restriction(self, wish: Wish, queries: int = 1, exclusions: Exclusions | None = None) -> Restriction:
        """Return what ``wish`` allows so many queries, and exclusions each of them; raises as `run` does."""
        return self._restriction(*self.listed(wish, queries, exclusions))

    def chosen(self, count: int, wish: Wish, pool_of: PoolOf, vectors_of: VectorsOf | None = None) -> TopK:
        """Take what ``wish`` asks for from lists that are scored in another way than by one vector per query.

        Args:
            count: how many queries there are.
            wish: how many titles, and how varied.
            pool_of: see `varied`.
            vectors_of: returns what titles are compared by; see `choose_varied`.
        """
        if not wish.variety.is_plain:
            return self.varied(count, wish, pool_of, vectors_of=vectors_of)
        k = min(wish.k, self.index.count)
        pool = pool_of(np.arange(count), k, wish.strategy)
        return replace(pool, rows=pool.rows[:, :k], scores=pool.scores[:, :k])

    def check(self, wish: Wish) -> None:
        """Look at everything in a wish that can be a mistake, and raise what `run` would, without searching."""
        self.restriction(wish)
        for name in wish.variety.max_per:
            self.group(name)

    def unmet(self, wanted: Filter) -> tuple[str, ...]:
        """Say of each condition of a filter that no title satisfies so, and what titles have instead."""
        catalog = self.titles.catalog
        return notes([(one, instead_of(catalog, one)) for one in conditions(catalog, wanted)])

    def _restriction(self, wish: Wish, exclusions: Exclusions | None) -> Restriction:
        titles = self.index.count
        selection = self.selections.get(wish.filter) if wish.filter.says_something else None
        if wish.exclude:
            mask = np.ones(titles, np.bool_) if selection is None else selection.mask.copy()
            mask[[self.titles.find(title) for title in wish.exclude]] = False
            return Restriction(titles, mask, exclusions)
        if selection is None or len(selection.rows) == titles:  # a mask of everything would only cost time
            return Restriction(titles, None, exclusions)
        return Restriction(titles, selection.mask, exclusions, selection.rows)

    def _gathered(self, wish: Wish, restriction: Restriction) -> Vectors | None:
        """Return a filter's titles' vectors, float32, where a batch has use for them and the filter came before."""
        has_use = wish.strategy == "subset" or (wish.strategy == "auto" and self.index.fused is None)
        if restriction.mask_rows is None or not has_use:
            return None
        selection = self.selections.get(wish.filter)
        return selection.gathered if selection is not None and selection.gathers_soon() else None

    def varied(
        self,
        count: int,
        wish: Wish,
        pool_of: PoolOf,
        queries: Vectors | None = None,
        vectors_of: VectorsOf | None = None,
    ) -> TopK:
        """Choose from pools that grow, each query's own, until it has k titles or its pool is all that matches.

        Args:
            count: how many queries there are.
            wish: what is wanted.
            pool_of: finds the best of some of the queries: their positions, how many at least, and by which strategy.
            queries: float32 (queries, dim), prepared; None where scores are not those of one vector per query.
        """
        groups = {name: self.group(name) for name in wish.variety.max_per}
        k = min(wish.k, self.index.count)
        most = min(self.index.count, self.index.k_limit or self.index.count)
        size = min(most, wish.variety.pool(wish.k))
        strategy = wish.strategy
        result = TopK.empty(count, k)
        result.titles_seen = min((group.titles_seen for group in groups.values()), default=1.0)
        active = np.arange(count)
        while True:
            step = max(1, POOL_CELLS // size)  # pools grow: of as many users as the first time they would take more
            short = []
            for at in [active[first : first + step] for first in range(0, len(active), step)] or [active]:
                pool = pool_of(at, size, strategy)
                started = time.perf_counter()
                asked = None if queries is None else queries[at]
                rows, scores = choose_varied(self.index, asked, pool, k, wish.variety, groups, vectors_of)
                stage = Stage("variety", len(at), size, (time.perf_counter() - started) * 1e3)
                result.rows[at], result.scores[at], result.matching[at] = rows, scores, pool.matching
                result.strategy = f"{pool.strategy}+variety"
                result.titles_seen = min(result.titles_seen, pool.titles_seen)
                result.stages += [*pool.stages, stage]
                short.append(at[(rows[:, -1] < 0) & (pool.matching > size)])
            active = np.concatenate(short)
            if len(active) and size == most < self.index.count:  # a GPU finds no more; a scan of what matches does
                strategy, most = "subset", self.index.count
            if not len(active) or size == most:
                return result
            size = min(most, 4 * size)

    def group(self, name: str) -> Groups:
        """Return the values of a field; raises UsageError where there is none, or it holds lists."""
        with self._lock:
            if name not in self._groups:
                self._groups[name] = self._read_group(name)
            return self._groups[name]

    def _read_group(self, name: str) -> Groups:
        return Groups.of(self.titles.catalog, name)
