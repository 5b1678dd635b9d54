"""How many queries are searched in a moment, together or between two requests, as the warm-up measures it."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from functools import partial

from semrec_faiss.arrays import Vectors
from semrec_faiss.index.hardware.faiss_threads import one_core
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.warming import WARM_BATCHES
from semrec_faiss.search.wish import Wish

INLINE_SECONDS = 0.008
"""A batch that is searched in this time is searched on one core, a small one between two requests."""

JOINED = (16, 32, 64)
"""How many are tried whether they are searched sooner together, on all cores, than so few after one another."""

LOOP_SECONDS = 0.002
"""A batch that is searched in this time on a CPU is searched between two requests, too: a thread beside takes lock and
caches in turns with the event loop's. What takes longer is not, for so long nobody would be answered."""

LEAST_TRIES, TRYING_SECONDS = 3, 0.4
"""A batch is searched so often and for so long, at least, before it is said to take longer."""


def _first_vectors(recommender: Recommender, count: int) -> Vectors:
    return recommender.index.vectors([row % recommender.index.count for row in range(count)])


def queries_within(recommender: Recommender, seconds: float) -> int:
    """Return how many queries are searched together in so many seconds on one core, 0 where even one takes longer."""
    most = 0
    with one_core():
        for size in WARM_BATCHES:
            vectors = _first_vectors(recommender, size)
            if not is_quick(partial(Searcher.run, recommender.searcher, vectors, Wish(10)), seconds):
                break
            most = size
    return most


def joined_from(recommender: Recommender) -> int:
    """Return how many queries are searched sooner together than one after the other, 0 where none of `JOINED` are."""
    with one_core():
        alone = _least_seconds(recommender, 1)
    return next((size for size in JOINED if _least_seconds(recommender, size) < size * alone), 0)


def _least_seconds(recommender: Recommender, queries: int) -> float:
    search = partial(Searcher.run, recommender.searcher, _first_vectors(recommender, queries), Wish(10))
    return min(timeit.repeat(search, number=1, repeat=LEAST_TRIES))


def is_quick(search: Callable[[], object], seconds: float) -> bool:
    """Tell whether one of several searches is made in time: others may hold up most, and one for very long."""
    began, tries = time.perf_counter(), 0
    while tries < LEAST_TRIES or time.perf_counter() - began < TRYING_SECONDS:
        started, tries = time.perf_counter(), tries + 1
        search()
        if time.perf_counter() - started <= seconds:
            return True
    return False
