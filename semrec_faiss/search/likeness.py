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
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.index.cpu.cosines import lengths_of, most_alike
from semrec_faiss.index.cpu.exact import SCAN_ROWS, VectorsOf
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.restricted.found import Stage, TopK
from semrec_faiss.search.restricted.topk import Strategy
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.wish import Wish

VectorPart = Literal["whole", "people", "text"]
"""By what titles are alike: the whole vector, what people did with them, or what their texts say."""


@dataclass(frozen=True)
class LikenessQuery:
    """What titles are compared with: float32 (columns,), of unit length, and the part of their vectors that it is."""

    query: Vectors
    by: VectorPart

    def directions(self, index: VectorIndex) -> VectorsOf:
        """Return what gives titles' vectors, or that part of them, at unit length: float32 (rows, columns)."""
        size = len(self.query)
        columns = slice(index.dim - size, None) if self.by == "text" else slice(0, size)

        def vectors_of(rows: Rows) -> Vectors:
            own = index.vectors(rows)[:, columns].astype(np.float64)
            lengths = np.linalg.norm(own, axis=1, keepdims=True)
            return np.asarray(own / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)

        return vectors_of


class Likeness:
    """Finds titles by cosine in an index of inner products, exactly; its own search would bring up popular titles."""

    def __init__(self, searcher: Searcher, transformation: Transformation | None) -> None:
        """Scan the vectors of ``searcher``; ``transformation`` knows the parts, where they were learned."""
        self._searcher = searcher
        self._transformation = transformation
        self._lengths = lru_cache(len(get_args(VectorPart)))(self._measure)

    def run(self, row: int, by: VectorPart, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find the titles most like one.

        Raises:
            UsageError: an index whose vectors have no parts, or another word for one.
        """
        asked = self.asked(row, by)

        def pool(at: Rows, size: int, strategy: Strategy) -> TopK:
            return self.pool(asked, replace(wish, k=size), exclusions)

        return self._searcher.chosen(1, wish, pool, asked.directions(self._searcher.index))

    def asked(self, row: int, by: VectorPart) -> LikenessQuery:
        """Return what `pool` compares with for a title; raises as `run`."""
        length = self._lengths(by)[row]
        # Of unit length, so that products of long vectors fit float32.
        return LikenessQuery(
            (self._searcher.index.vectors([row])[0, self._columns(by)] / length).astype(np.float32), by
        )

    def pool(self, asked: LikenessQuery, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find the ``wish.k`` titles most like what is asked, however varied they are to be."""
        started = time.perf_counter()
        restriction = self._searcher.restriction(wish, 1, exclusions)
        allowed = restriction.rows[restriction.allows(restriction.rows[None, :])[0]]
        index = self._searcher.index
        query = np.zeros(index.dim, np.float32)
        query[self._columns(asked.by)] = asked.query
        k = min(wish.k, index.count)
        best, cosines = most_alike(query, k, allowed, self._lengths(asked.by), self._blocks(), index.vectors)
        rows, found = np.full((1, k), -1, np.int64), np.full((1, k), -np.inf, np.float32)
        rows[0, : len(best)], found[0, : len(best)] = best, cosines
        stage = Stage("cosines", 1, index.count, (time.perf_counter() - started) * 1e3)
        return TopK(rows, found, np.array([len(allowed)]), True, "cosine", [stage])

    def _columns(self, by: VectorPart) -> slice:
        if by not in get_args(VectorPart):
            raise UsageError(f"titles are alike by {', '.join(get_args(VectorPart))}, not by {quoted(by)}")
        if by == "whole":
            return slice(None)
        if self._transformation is None:
            raise UsageError(
                f"the index's vectors have no part {quoted(by)}: they were not made by `semrec dataset learn`",
                fix="leave `by` out",
            )
        rank = self._transformation.rank
        if by == "text" and self._searcher.index.dim == rank:
            raise UsageError(
                "the index's vectors have no part 'text': they were learned of what people did alone",
                fix="leave `by` out, or learn beside text vectors, which `semrec dataset embed` makes",
            )
        return slice(0, rank) if by == "people" else slice(rank, None)

    def _measure(self, by: VectorPart) -> Values:
        columns = self._columns(by)
        return lengths_of(block[:, columns] for block in self._blocks())

    def _blocks(self) -> Iterator[Vectors]:
        index = self._searcher.index
        for first in range(0, index.count, SCAN_ROWS):
            yield index.block(first, min(first + SCAN_ROWS, index.count))
