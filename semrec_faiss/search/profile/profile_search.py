"""Users to lists by a `Profile`: several interests, a popularity that reorders, and popular titles for the unknown."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import ValidationError

from semrec_faiss.arguments import did_you_mean
from semrec_faiss.arrays import Mask, Rows, Values
from semrec_faiss.config.profile import PLAIN, Profile
from semrec_faiss.data.interactions.profiles import profile_weights
from semrec_faiss.data.users import History
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.saved.users import SavedUsers
from semrec_faiss.search.diversity import Variety
from semrec_faiss.search.profile.interests import Interests, Weighed, interest_vectors
from semrec_faiss.search.profile.merging import added_by_popularity, merged
from semrec_faiss.search.restricted.allowed import take_first
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.restricted.topk import Strategy
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish

SEED = 7
"""Of the clustering into interests; `semrec evaluate` takes the same by default."""

BLOCK_CELLS = 8 << 20
"""Titles fetched for a block of users, all interests together: bounds the memory."""

LEAST_LIST = 100
"""Titles that popularity reorders at least, as `semrec evaluate` does."""

FIRST_PLACES, MOST_PLACES = 1_000, 16_000
"""Places of a user's list among which a title is looked for, at first and at most."""


def changed_profile(given: Profile | None, changes: Mapping[str, Any] | None) -> Profile:
    """Return a profile with some settings changed.

    Raises:
        UsageError: an unknown setting, or a value that it cannot have.
    """
    if changes is None:
        return given or PLAIN
    try:
        return Profile(**((given or PLAIN).model_dump() | dict(changes)))
    except (ValidationError, TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise UsageError(f"the profile is {quoted(changes)}; settings and their values are expected") from error
        first = error.errors()[0]
        name, known = ".".join(map(str, first["loc"])), f"settings: {', '.join(Profile.model_fields)}"
        if name not in Profile.model_fields:
            offer = did_you_mean(name, list(Profile.model_fields))
            raise UsageError(f"the profile has no setting {quoted(name)}", fix=offer + known) from error
        raise UsageError(f"the profile's {name}: {first['msg']}, not {quoted(first['input'])}", fix=known) from error


@dataclass(frozen=True)
class Served:
    """Where a user's list has a title.

    Attributes:
        rank: its place, from 1; None where it is not among the first ``most``.
        score: what it is listed with, or None.
        most: how many places were looked at.
        popular: whether the list is of popular titles, since nothing that counts is known of the user.
    """

    rank: int | None
    score: float | None
    most: int
    popular: bool


class ProfileSearch:
    """Recommends to the users of an index by what they have seen; safe from many threads."""

    def __init__(self, searcher: Searcher, users: SavedUsers) -> None:
        """Search with ``searcher``; histories are read when the first one is needed."""
        self._searcher = searcher
        self._users = users
        self._lock = threading.Lock()
        self._history: History | None = None
        self._likes: dict[float, Rows] = {}

    @property
    def history(self) -> History:
        """What all users have seen.

        Raises:
            UsageError: the index does not know.
        """
        with self._lock:
            if self._history is None:
                if not self._users.has_seen:
                    raise UsageError(
                        "the index does not know what its users have seen, which a profile works on",
                        fix="leave the profile out, or add users/seen.parquet to the data, and build the index again",
                    )
                self._history = self._users.history
            return self._history

    def liked_by(self, liked: float) -> Rows:
        """Return how many users like each title: int64 (titles,); where there are no ratings, who have seen it."""
        history = self.history
        with self._lock:
            if liked not in self._likes:
                rows = history.rows if history.ratings is None else history.rows[history.ratings >= liked]
                self._likes[liked] = np.bincount(rows, minlength=self._searcher.index.count)
            return self._likes[liked]

    def weighed(self, users: Rows, profile: Profile) -> Weighed:
        """Return the titles that users, int64 (users,), have seen, and the weight of each."""
        seen = self.history.take(users)
        return Weighed(seen.offsets, seen.rows.astype(np.int64), profile_weights(seen, profile))

    def run(self, users: Rows, profile: Profile, wish: Wish, exclusions: Exclusions | None) -> tuple[TopK, Mask]:
        """Find what ``wish`` asks for.

        Args:
            users: int64 (users,), their rows.
            profile: how they become queries.
            wish: what is wanted.
            exclusions: rows that single users must not be given.

        Returns:
            The lists, and bool (users,), for whom they are popular titles since nothing that counts is known of them.

        Raises:
            UsageError: the index knows no histories, or what `Searcher.run` raises.
        """
        size = wish.k if wish.variety.is_plain else wish.variety.pool(wish.k)
        step = self._users_at_once(profile, wish, size)
        blocks = [users[first : first + step] for first in range(0, len(users), step)] or [users]
        found = []
        for number, block in enumerate(blocks):
            mine = _taken(exclusions, np.arange(number * step, number * step + len(block)))
            found.append(self._block(self.weighed(block, profile), profile, wish, mine))
        lists = [one for one, _ in found]
        return _joined(lists), np.concatenate([unknown for _, unknown in found])

    def for_taste(self, rows: Rows, weights: Values, profile: Profile, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find what ``wish`` asks for, for somebody who is no user; ``weights`` as `profile_weights` has them."""
        return self._block(Weighed(np.array([0, len(rows)]), rows, weights), profile, wish, exclusions)[0]

    def served(self, user: int, row: int, profile: Profile, left_out: Rows) -> Served:
        """Find a title in a user's list; of an exact index the place is that in `recommend`, whatever its k.

        In turns a title's score is the best of the interests that list it, of which a shorter list knows fewer.

        Args:
            user: the user's row.
            row: the title's.
            profile: by which the list is made.
            left_out: int64, ascending, rows that are not in it.
        """
        count = self._searcher.index.count
        most = min(MOST_PLACES, self._searcher.index.k_limit or count, count)
        if profile.popularity:  # of longer lists than that it reorders more, so that places differ
            most = self._fetch(profile, Wish(1), 1)
        size, exclusions = min(FIRST_PLACES, most), Exclusions.of([left_out.tolist()])
        while True:
            found, popular = self.run(np.array([user]), profile, Wish(size), exclusions)
            for at in np.flatnonzero(found.rows[0] == row).tolist():
                return Served(at + 1, float(found.scores[0, at]), most, bool(popular[0]))
            if size == most:
                return Served(None, None, most, bool(popular[0]))
            size = min(most, 4 * size)

    def _fetch(self, profile: Profile, wish: Wish, size: int) -> int:
        """Return how many titles an interest is searched for where ``size`` are to be chosen from."""
        index = self._searcher.index
        limit = index.count if wish.strategy == "subset" else index.k_limit or index.count
        more = min(max(LEAST_LIST, profile.pool), limit) if profile.popularity else 1
        return min(max(size, more), index.count)

    def _users_at_once(self, profile: Profile, wish: Wish, size: int) -> int:
        """Return for how many users lists of ``size`` titles are made at once."""
        return max(1, BLOCK_CELLS // (self._fetch(profile, wish, size) * profile.interests))

    def _block(
        self, weighed: Weighed, profile: Profile, wish: Wish, exclusions: Exclusions | None
    ) -> tuple[TopK, Mask]:
        asked = self._interests(weighed, profile)

        def pool(at: Rows, size: int, strategy: Strategy) -> TopK:
            plain = replace(wish, k=size, variety=Variety(), strategy=strategy)
            # Of all that was fetched a varied list is chosen, and of a plain one no more is looked at.
            width = size if wish.variety.is_plain else self._fetch(profile, plain, size)
            step = self._users_at_once(profile, plain, size)  # fewer than a block's users where pools have grown
            parts = [at[first : first + step] for first in range(0, len(at), step)] or [at]
            return _joined(
                [self._pool(asked.take(part), profile, plain, width, _taken(exclusions, part)) for part in parts]
            )

        return self._searcher.chosen(len(asked.counts), wish, pool), asked.counts == 0

    def _interests(self, weighed: Weighed, profile: Profile) -> Interests:
        """Make the queries of users, one user after another: FAISS clusters one set of titles at a time."""
        index, made = self._searcher.index, []
        for first, last in pairwise(weighed.offsets.tolist()):
            vectors = index.vectors(weighed.rows[first:last])
            made.append(interest_vectors(vectors, weighed.weights[first:last], profile.interests, SEED)[0])
        vectors = np.concatenate([np.empty((0, index.dim)), *made])
        queries = index.prepare(vectors) if len(vectors) else vectors.astype(np.float32)
        return Interests(queries, np.array([len(own) for own in made], dtype=np.int64))

    def _pool(self, asked: Interests, profile: Profile, plain: Wish, width: int, exclusions: Exclusions | None) -> TopK:
        """Make a list of those of each user's interests, of ``width`` titles or all that match."""
        fetch = self._fetch(profile, plain, plain.k)
        pools = self._searcher.run(asked.queries, replace(plain, k=fetch), _taken(exclusions, asked.owners))
        started = time.perf_counter()
        scores = pools.scores.astype(np.float64)
        if profile.popularity:
            scores += added_by_popularity(profile, self.liked_by(profile.liked))[np.maximum(pools.rows, 0)]
        rows, best = merged(pools.rows, scores, asked.counts, width, profile.merge)
        matching = np.zeros(len(asked.counts), np.int64)
        matching[asked.owners] = pools.matching
        result = TopK(rows, best, matching, pools.exact, pools.strategy, list(pools.stages), pools.titles_seen)
        unknown = np.flatnonzero(asked.counts == 0)
        if len(unknown):
            self.fill_popular(result, unknown, profile.liked, replace(plain, k=width), exclusions)
        result.stages.append(Stage("profile", len(asked.counts), fetch, (time.perf_counter() - started) * 1e3))
        return result

    def _popular(self, users: int, liked: float, wish: Wish, exclusions: Exclusions | None) -> TopK:
        """List the titles that most users like, the same for everybody but for what is excluded; scores count users."""
        restriction = self._searcher.restriction(wish, users, exclusions)
        exclusions = restriction.exclusions
        counts = self.liked_by(liked).astype(np.float32)
        order = np.argsort(-counts, kind="stable")
        if restriction.mask is not None:
            order = order[restriction.mask[order]]
        most = 0 if exclusions is None else int(exclusions.counts.max(initial=0))
        lists = TopK.empty(users, min(wish.k, self._searcher.index.count), exact=True)
        order = order[: lists.rows.shape[1] + most]
        step = max(1, BLOCK_CELLS // max(1, len(order)))
        for first in range(0, users, step):
            block = np.arange(first, min(first + step, users))
            rows = np.broadcast_to(order, (len(block), len(order)))
            keep = restriction.take(block).allows(rows)
            take_first(rows, np.broadcast_to(counts[order], rows.shape), keep, block, lists)
        matching = restriction.allowed - restriction.excluded_counts(users)
        return replace(lists, matching=np.asarray(matching, dtype=np.int64), strategy="popular")

    def fill_popular(self, lists: TopK, unknown: Rows, liked: float, wish: Wish, exclusions: Exclusions | None) -> None:
        """Put popular titles, in place, where nothing is known: at the positions ``unknown`` of a batch."""

        def pool(at: Rows, size: int, strategy: Strategy) -> TopK:
            return self._popular(len(at), liked, replace(wish, k=size), _taken(exclusions, unknown[at]))

        found = self._searcher.chosen(len(unknown), wish, pool)
        width = lists.rows.shape[1]
        lists.rows[unknown] = found.rows[:, :width]
        lists.scores[unknown] = found.scores[:, :width]
        lists.matching[unknown] = found.matching
        known = len(unknown) < len(lists.rows)
        lists.strategy = f"{lists.strategy}+popular" if known else "popular"


def _taken(exclusions: Exclusions | None, queries: Rows) -> Exclusions | None:
    return None if exclusions is None else exclusions.take(queries)


def _joined(lists: Sequence[TopK]) -> TopK:
    if len(lists) == 1:
        return lists[0]
    return TopK(
        np.concatenate([one.rows for one in lists]),
        np.concatenate([one.scores for one in lists]),
        np.concatenate([one.matching for one in lists]),
        all(one.exact for one in lists),
        "+".join(dict.fromkeys(part for one in lists for part in one.strategy.split("+"))),
        [stage for one in lists for stage in one.stages],
        min(one.titles_seen for one in lists),
    )
