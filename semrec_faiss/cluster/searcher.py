"""Runs a wish over all shards: each filters and searches its own titles, and the best of all are chosen here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.cluster.index import ShardedIndex
from semrec_faiss.cluster.shard import Allowed
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.cluster.titles import ShardedTitles
from semrec_faiss.data.folder.database import connect
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.data.titles.table import create_table, insert_titles
from semrec_faiss.deadline import time_left
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions, either
from semrec_faiss.search.diversity import UNREAD, Groups
from semrec_faiss.search.filters.filter import Filter
from semrec_faiss.search.filters.missing import conditions, notes, together
from semrec_faiss.search.likeness import LikenessQuery
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.restricted.restriction import Restriction
from semrec_faiss.search.restricted.topk import Strategy
from semrec_faiss.search.searcher import Searcher
from semrec_faiss.search.user_rows import UserRows
from semrec_faiss.search.wish import Wish


class ShardedSearcher(Searcher):
    """A `Searcher` of an index in shards."""

    index: ShardedIndex

    def __init__(
        self, index: ShardedIndex, titles: ShardedTitles, shards: OpenShards, parts: Mapping[str, str]
    ) -> None:
        """Search ``index``, whose rows are ``titles``; ``parts`` are fields that play one under another name."""
        super().__init__(index, titles)
        self._shards = shards
        self._fields = dict(titles.fields)
        self._parts = parts
        self._with_genres: Catalog | None = None

    def run(self, queries: Vectors | UserRows, wish: Wish, exclusions: Exclusions | None = None) -> TopK:
        """Find what ``wish`` asks for; see `Searcher.run`."""
        if isinstance(queries, UserRows):
            exclusions, queries = either(queries.exclusions, exclusions), queries.vectors
        self._check_k(wish)
        allowed = self.allowed(wish)
        if wish.variety.is_plain:
            return self.index.best(queries, wish.k, allowed, exclusions, wish.strategy)

        def pool(at: Rows, size: int, strategy: Strategy) -> TopK:
            mine = None if exclusions is None else exclusions.take(at)
            return self.index.best(np.ascontiguousarray(queries[at]), size, allowed, mine, strategy)

        return self.varied(len(queries), wish, pool, queries)

    def run_given(self, given: NDArray[Any], wish: Wish) -> TopK:
        """Find what ``wish`` asks for, of vectors that are prepared here; see `Searcher.run_given`."""
        return self.run(self.index.prepare(given), wish)

    def alike(self, asked: LikenessQuery, wish: Wish, exclusions: Exclusions) -> TopK:
        """Find the titles most like what is asked."""
        allowed = self.allowed(wish)

        def pool(at: Rows, size: int, strategy: Strategy) -> TopK:
            return self.index.gathered("alike", size, exclusions, lambda mine: (asked, size, allowed, mine))

        return self.chosen(1, wish, pool, asked.directions(self.index))

    def allowed(self, wish: Wish) -> Allowed:
        """Return what a wish allows, as shards are told; raises UsageError and NotFoundError as `run`."""
        clauses = self._clauses(wish.filter) if wish.filter.says_something else ()
        left_out = tuple(self.titles.find(title) for title in wish.exclude)
        return Allowed(clauses, left_out, time_left() if clauses else None)

    def restriction(self, wish: Wish, queries: int = 1, exclusions: Exclusions | None = None) -> Restriction:
        """Return what ``wish`` and exclusions allow, fetched as a mask of all titles."""
        allowed = self.allowed(wish)
        if allowed == Allowed():
            return Restriction(self.index.count, None, exclusions)
        mask = np.zeros(self.index.count, np.bool_)
        for number, packed in self._shards.ask_all("mask", allowed).items():
            shard = self._shards.listed.shards[number]
            mask[shard.first : shard.first + shard.titles] = np.unpackbits(packed, count=shard.titles)
        return Restriction(self.index.count, mask, exclusions)

    def check(self, wish: Wish) -> None:
        """Look at everything in a wish that can be a mistake, and raise what `run` would, without searching."""
        self._check_k(wish)
        self.allowed(wish)
        for name in wish.variety.max_per:
            self.group(name)

    def _check_k(self, wish: Wish) -> None:
        limit = self.index.k_limit
        if limit is not None and wish.k > limit and wish.strategy != "subset":
            raise UsageError(f"k is {wish.k}; it must be from 1 to {limit}", fix="lower k, or take strategy subset")

    def _clauses(self, wanted: Filter) -> tuple[str, ...]:
        """Make the clauses of a filter, and look for mistakes in them."""
        names_genres = bool(wanted.genres or wanted.any_genres or wanted.not_genres)
        example = self._example_with_genres() if names_genres else self._example
        try:
            clauses = wanted.clauses(example)
        except UsageError:
            if names_genres and "genres" in self._fields and self._with_genres is None:
                replace(wanted, genres=(), any_genres=(), not_genres=()).clauses(example)  # whose mistakes are told
                raise self._shards.lost_one() from None  # which may have titles of that genre
            raise
        matching_rows(example, *clauses)
        return clauses

    @cached_property
    def _example(self) -> Catalog:
        """A catalogue with the fields of all titles and none of them."""
        return _catalog_of_one(self._fields, [], self._parts)

    def _example_with_genres(self) -> Catalog:
        """Return the same with one title that has every genre that there is."""
        if "genres" not in self._fields:
            return self._example
        if self._with_genres is not None:
            return self._with_genres
        found = self._shards.ask_all("genres")
        genres = sorted({genre for own in found.values() for genre in own})
        example = _catalog_of_one(self._fields, genres, self._parts)
        if len(found) == len(self._shards):  # or a shard that is lost now would have none for ever
            self._with_genres = example
        return example

    def unmet(self, wanted: Filter) -> tuple[str, ...]:
        """Say what `Searcher.unmet` does; nothing where a shard is lost, whose titles may satisfy the conditions."""
        asked = conditions(self._example, wanted)
        found = self._shards.ask_all("instead_of", asked, time_left()) if asked else {}
        if len(found) < len(self._shards):
            return ()
        parts = zip(*found.values(), strict=True)
        return notes([(one, together(self._example, one, of_each)) for one, of_each in zip(asked, parts, strict=True)])

    def group(self, name: str) -> Groups:
        """Return the values of a field; where a shard is lost, the next question asks for them again."""
        with self._lock:
            if name in self._groups:
                return self._groups[name]
            groups = self._groups_of_shards(name)
            if groups.titles_seen == 1:
                self._groups[name] = groups
            return groups

    def _groups_of_shards(self, name: str) -> Groups:
        """Return the values of a field; a shard that is lost may be back when it is asked for the titles."""
        Groups.of(self._example, name)  # says what is wrong with the name
        numbers: dict[str, int] = {}
        codes = np.full(self.index.count, UNREAD, np.int64)
        found = self._shards.ask_all("group", name)
        for number, (own, texts) in found.items():
            shard = self._shards.listed.shards[number]
            table = np.array([*(numbers.setdefault(text, len(numbers)) for text in texts), -1], np.int64)
            codes[shard.first : shard.first + shard.titles] = table[own]
        return Groups(codes, lambda: list(numbers), titles_seen=float((codes != UNREAD).mean()))


def _catalog_of_one(fields: dict[str, str], genres: list[str], parts: Mapping[str, str]) -> Catalog:
    connection = connect()
    create_table(connection, fields)
    line = json.dumps({"media_id": "", "title": "", "genres": genres})
    return Catalog(connection, sum(1 for _ in insert_titles(connection, fields, iter([line]))), fields, parts=parts)
