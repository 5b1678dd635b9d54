"""Titles that are like one where lengths mean something else: by the cosine of the vector, or of a part of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from semrec_faiss.arrays import Rows, Values, Vectors
from semrec_faiss.data.interactions.hybrid import Transformation
from semrec_faiss.errors import UsageError
from semrec_faiss.index.cpu.exact import SCAN_ROWS
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.restricted.topk import Strategy
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish

Part = Literal["whole", "people", "text"]
"""By what titles are alike: the whole vector, what people did with them, or what their texts say."""


@dataclass(frozen=True)
class Asked:
    """What titles are compared with: float32 (columns,), of unit length, and the part of their vectors that it is."""

    query: Vectors
    by: Part


class Likeness:
    """Finds titles by cosine in an index of inner products, exactly; its own search would bring up popular titles."""

    def __init__(self, searcher: Searcher, transformation: Transformation | None) -> None:
        """Scan the vectors of ``searcher``; ``transformation`` knows the parts, where they were learned."""
        self._searcher = searcher
        self._transformation = transformation
        self._lengths = lru_cache(len(get_args(Part)))(self._measure)

    def run(self, row: int, by: Part, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find the titles most like one.

        Raises:
            UsageError: an index whose vectors have no parts, or another word for one.
        """
        asked = self.asked(row, by)

        def pool(at: Rows, size: int, strategy: Strategy) -> TopK:
            return self.pool(asked, replace(wish, k=size), exclusions)

        return self._searcher.chosen(1, wish, pool)

    def asked(self, row: int, by: Part) -> Asked:
        """Return what `pool` compares with for a title; raises as `run`."""
        length = self._lengths(by)[row]
        # Of unit length, so that products of long vectors fit float32.
        return Asked((self._searcher.index.vectors([row])[0, self._columns(by)] / length).astype(np.float32), by)

    def pool(self, asked: Asked, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find the ``wish.k`` titles most like what is asked, however varied they are to be."""
        started = time.perf_counter()
        restriction = self._searcher.restriction(wish, exclusions)
        scores = self._cosines(asked)
        order = np.lexsort((np.arange(len(scores)), -scores))
        order = order[restriction.allows(order[None, :])[0]]
        rows = np.full((1, min(wish.k, len(scores))), -1, np.int64)
        rows[0, : len(order)] = order[: wish.k]
        found = np.where(rows >= 0, scores[np.maximum(rows, 0)], -np.inf).astype(np.float32)
        stage = Stage("cosines", 1, len(scores), (time.perf_counter() - started) * 1e3)
        return TopK(rows, found, np.array([len(order)]), True, "cosine", [stage])

    def _columns(self, by: Part) -> slice:
        if by not in get_args(Part):
            raise UsageError(f"titles are alike by {', '.join(get_args(Part))}, not by {by!r}")
        if by == "whole":
            return slice(None)
        if self._transformation is None:
            raise UsageError(
                f"the index's vectors have no part {by!r}: they were not made by `semrec dataset learn`",
                fix="leave --by out",
            )
        rank = self._transformation.rank
        return slice(0, rank) if by == "people" else slice(rank, None)

    def _measure(self, by: Part) -> Values:
        squares = [np.einsum("ij,ij->i", part, part, dtype=np.float64) for part in self._parts(by)]
        lengths = np.sqrt(np.concatenate(squares))
        return np.where(lengths > 0, lengths, 1.0)

    def _cosines(self, asked: Asked) -> Values:
        products = np.concatenate([part @ asked.query for part in self._parts(asked.by)]).astype(np.float64)
        return np.asarray(products / self._lengths(asked.by))

    def _parts(self, by: Part) -> Iterator[Vectors]:
        columns, index = self._columns(by), self._searcher.index
        for first in range(0, index.count, SCAN_ROWS):
            yield index.vectors(np.arange(first, min(first + SCAN_ROWS, index.count)))[:, columns]
