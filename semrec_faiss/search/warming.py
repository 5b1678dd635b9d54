"""An open index made ready for what it will be asked: kernels compiled, batches recorded, memory touched; timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from semrec_faiss.data.folder.database import quoted_text
from semrec_faiss.errors import NotFoundError
from semrec_faiss.index.fused.filters.known_filters import MOST_SHELVES_BYTES
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.batching.joined import MOST_TOGETHER
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.searcher import HELD_AT
from semrec_faiss.search.wish import Wish

WARM_BATCHES = (1, 2, 4, 8, 16, 32, 64)
WARM_BATCHES_GPU = (*WARM_BATCHES, 128, 256, 512, 1024)
"""Queries asked together. The largest come first: of what is recorded, that stays longest which came last."""

WARM_BATCHES_KERNELS = (*WARM_BATCHES_GPU, 2048, MOST_TOGETHER)
"""As many as callers are searched for at once: type fused has kernels of its own for thousands."""

SHARES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.001, 0.01)
"""Of the titles, let through by filters that are asked. Copies of them that lie together are searched by kernels of
their own, others for more titles: of up to half of a few hundred thousand titles these shares take all of them, of more
titles nearly all. The last is asked until it is recorded."""

SAMPLED_IDS = 1000

TIMES_GPU = 3
"""How often a batch is asked on a GPU: the first compiles, users are copied there for the second, both are recorded."""


@dataclass(frozen=True)
class Warmed:
    """One kind of question.

    Attributes:
        what: was asked.
        queries: together.
        first_ms: what the first took, with whatever had to be compiled, read or copied for it.
        again_ms: what the last one took; None where it was asked once.
    """

    what: str
    queries: int
    first_ms: float
    again_ms: float | None


@dataclass(frozen=True)
class _Kind:
    what: str
    queries: int
    ask: Callable[[], object]
    times: int = 1


def warm(recommender: Recommender, k: int = 10, progress: Progress = silent, *, kernels: bool = True) -> list[Warmed]:
    """Ask every kind of question that an index will be asked, so that nobody's first one waits for what that needs.

    On a GPU batches of every size are asked for titles, for those that a filter lets through, and for users, as often
    as it takes until they are recorded; of type fused those of filters whose titles it copies together, too. On a CPU,
    where nothing is compiled, each is asked once.

    Args:
        recommender: the index, opened.
        k: titles per query; kernels are compiled for some sizes of it.
        progress: told the kinds done.
        kernels: on a GPU, ask once what needs nothing but kernels, too; a process that has done so has them.
    """
    kinds = list(_kinds(recommender, k, kernels=kernels))
    if kernels and recommender.index.device.gpus:
        kinds[:0] = _many(recommender, Wish(k))
    told = []
    for done, kind in enumerate(kinds):
        progress("warming", done, len(kinds))
        times_ms = [_timed(kind.ask) for _ in range(kind.times)]
        told.append(Warmed(kind.what, kind.queries, times_ms[0], times_ms[-1] if kind.times > 1 else None))
    progress("warming", len(kinds), len(kinds))
    return told


def _timed(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    with suppress(NotFoundError):
        ask()
    return round((time.perf_counter() - started) * 1e3, 3)


def _many(recommender: Recommender, wish: Wish) -> Iterator[_Kind]:
    """Ask as many as callers are searched for at once."""
    rows, users = np.arange(MOST_TOGETHER), recommender.saved.users
    vectors = recommender.index.vectors(rows % recommender.index.count)
    yield _Kind("titles", MOST_TOGETHER, partial(recommender.searcher.run, vectors, wish))
    if users is not None:
        lists = partial(recommender.lists_for, rows % len(users.ids), wish, include_seen=False)
        yield _Kind("users", MOST_TOGETHER, lists, HELD_AT)


def _kinds(recommender: Recommender, k: int, *, kernels: bool) -> Iterator[_Kind]:
    on_gpu = bool(recommender.index.device.gpus)
    searched, users = recommender.searcher.run, recommender.saved.users
    first = recommender.titles.records([0])[0]["media_id"]
    wish, but_one = Wish(k), Wish.of(k, where="media_id <> '" + first.replace("'", "''") + "'")
    for size in sorted(WARM_BATCHES_GPU if on_gpu else WARM_BATCHES, reverse=True):
        rows = np.arange(size)
        vectors = recommender.index.vectors(rows % recommender.index.count)
        times, is_restricted = (TIMES_GPU, True) if on_gpu else (1, size == 1)
        yield _Kind("titles", size, partial(searched, vectors, wish), times)
        if is_restricted:
            yield _Kind("titles, filtered", size, partial(searched, vectors, but_one), times)
        if is_restricted and users is not None:
            lists = partial(recommender.lists_for, rows % len(users.ids), wish, include_seen=False)
            yield _Kind("users", size, lists, times)
    if recommender.index.fused is not None:
        yield from _of_filters(recommender, k, kernels=kernels)
    yield _Kind("a title, as JSON", 1, lambda: recommender.similar(first, k).as_json_bytes())
    find = recommender.titles.catalog.find
    yield _Kind("a title that nobody made", 1, partial(find, "no title that anybody made"))
    if users is not None:
        yield _Kind("a user that nobody knows", 1, partial(users.rows_of, ["no user that anybody knows"]))


def _of_filters(recommender: Recommender, k: int, *, kernels: bool) -> Iterator[_Kind]:
    """Ask with filters whose titles type fused copies together; it does so now, and not when that has come to pay."""
    count, dim, users = recommender.index.count, recommender.index.dim, recommender.saved.users
    sampled = recommender.titles.records(np.arange(0, count, -(-count // SAMPLED_IDS)))
    title, ids = sampled[0]["media_id"], sorted(record["media_id"] for record in sampled)
    sizes = sorted(WARM_BATCHES_KERNELS if kernels else WARM_BATCHES_GPU, reverse=True)
    batches = [(np.arange(size), recommender.index.vectors(np.arange(size) % count)) for size in sizes]
    for share in SHARES if kernels else SHARES[-1:]:
        if 2 * share * count * dim > MOST_SHELVES_BYTES:
            continue
        where = f"media_id <= {quoted_text(ids[int(share * (len(ids) - 1))])}"
        wish, which = Wish.of(k, where=where), f"filtered to {100 * share:g}%"
        shelved, times = partial(_shelved, recommender, wish), TIMES_GPU if share == SHARES[-1] else 1
        for rows, vectors in batches:
            titles = partial(recommender.searcher.run, vectors, wish)
            yield _Kind(f"titles, {which}", len(rows), partial(shelved, titles), times)
            if users is not None:
                lists = partial(recommender.lists_for, rows % len(users.ids), wish, include_seen=False)
                yield _Kind(f"users, {which}", len(rows), partial(shelved, lists), times)
        alike = partial(recommender.similar, title, k, where=where)
        yield _Kind(f"a title, {which}", 1, partial(shelved, alike), times)


def _shelved(recommender: Recommender, wish: Wish, ask: Callable[..., object], *given: object) -> None:
    """Ask when the titles that the wish's filter lets through lie together, where not all do."""
    mask, fused = recommender.searcher.restriction(wish).mask, recommender.index.fused
    if fused is not None and mask is not None:
        fused.shelve(mask)
    ask(*given)
