"""A world of 2,100 titles full of nulls, random filters over it with their true masks, and an index of any type."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.factory import holds_vectors_exactly, resolve
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.search.filters.filter import Filter

Mask = NDArray[np.bool_]
Entry = dict[str, Any]

TITLES = 2100  # more than the 2,048 results that a GPU gives at once
COPIES = 40
QUERIES = 200
DIM = 32
GENRES = ("Drama", "Comedy", "Sci-Fi", "Film-Noir", "Rock 'n' Roll", "日本映画")


@dataclass(frozen=True)
class World:
    """Titles and queries, and what brute force says of them.

    Attributes:
        entries: the metadata in row order.
        catalog: the same in DuckDB.
        titles: float32 (2100, 32), unit length; the last 40 are copies of the first.
        queries: float32 (200, 32), unit length, near titles.
        scores: float64 (200, 2100), every query against every title.
    """

    entries: list[Entry]
    catalog: Catalog
    titles: NDArray[np.float32]
    queries: NDArray[np.float32]
    scores: NDArray[np.float64]


def draw_entries(count: int, seed: int) -> list[Entry]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)

    def maybe(value: Any, share: float) -> Any:
        return None if rng.random() < share else value

    return [
        {
            "media_id": f"m{row:05d}",
            "title": f"Film {row}",
            "year": maybe(int(rng.integers(1950, 2025)), 0.15),
            "genres": maybe([GENRES[g] for g in np.flatnonzero(rng.random(len(GENRES)) < 0.3)], 0.1),
            "runtime": maybe(int(rng.integers(60, 200)), 0.1),
            "rating": maybe(int(rng.integers(1, 11)) / 2, 0.2),
            "ok": maybe(bool(rng.random() < 0.6), 0.25),
            "franchise": maybe(f"F{int(rng.integers(12))}", 0.5),
            "place": int(order[row]),
        }
        for row in range(count)
    ]


def index_of(vectors: NDArray[Any], settings: dict[str, Any], device: Device | None = None) -> VectorIndex:
    """Build a VectorIndex of the config section ``settings`` over unit vectors."""
    stored = np.ascontiguousarray(vectors, dtype=np.float32)
    count, dim = stored.shape

    def blocks() -> Iterator[tuple[int, NDArray[np.float32]]]:
        yield 0, stored

    resolved = resolve(config_from_dict({"index": settings}).index, count, dim)
    index = build_faiss_index(resolved, blocks, count, dim, device or Device())
    return VectorIndex(index, resolved, device, originals=None if holds_vectors_exactly(index) else stored)


@pytest.fixture(scope="session")
def make_index() -> Callable[..., VectorIndex]:
    """`index_of`: a searchable index from unit vectors and the ``index`` section of a config."""
    return index_of


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, clusters: Any, unit: Any) -> World:
    """The 2,100 titles and 200 queries."""
    entries = draw_entries(TITLES, seed=1)
    path = tmp_path_factory.mktemp("world") / "metadata.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    titles = clusters(TITLES, DIM, clusters=40, spread=0.7, seed=2)
    titles[-COPIES:] = titles[:COPIES]
    rng = np.random.default_rng(3)
    near = titles[rng.integers(TITLES, size=QUERIES)] + rng.normal(size=(QUERIES, DIM)) * 0.1
    queries = unit(near).astype(np.float32)
    return World(entries, Catalog.read(path), titles, queries, queries.astype(np.float64) @ titles.T)


@dataclass(frozen=True)
class Tri:
    """An expression in SQL, and for which titles it is true and for which it is known."""

    sql: str
    true: Mask
    known: Mask

    def __and__(self, other: Tri) -> Tri:
        false = (self.known & ~self.true) | (other.known & ~other.true)
        true = self.true & other.true
        return Tri(f"({self.sql}) AND ({other.sql})", true, true | false)

    def __or__(self, other: Tri) -> Tri:
        true = self.true | other.true
        known = true | (self.known & other.known)
        return Tri(f"({self.sql}) OR ({other.sql})", true, known)

    def __invert__(self) -> Tri:
        return Tri(f"NOT ({self.sql})", self.known & ~self.true, self.known)

    def is_true(self) -> Tri:
        return Tri(f"({self.sql}) IS TRUE", self.true, np.ones_like(self.known))

    def is_unknown(self) -> Tri:
        return Tri(f"({self.sql}) IS NULL", ~self.known, np.ones_like(self.known))


class FilterMaker:
    """Draws random filters: conjunctions, negations and nulls, letting through none, all, and any share between."""

    def __init__(self, entries: list[Entry], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._everywhere = np.ones(len(entries), np.bool_)
        self._known, self._values = {}, {}
        for name in ("year", "runtime", "rating", "ok", "place"):
            column = [entry[name] for entry in entries]
            self._known[name] = np.array([value is not None for value in column])
            self._values[name] = np.array([value or 0 for value in column], np.float64)
        self._genres_known = np.array([entry["genres"] is not None for entry in entries])
        self._has = {g: np.array([g in (entry["genres"] or ()) for entry in entries]) for g in GENRES}

    def draw(self) -> tuple[Filter, Mask]:
        """Return a filter and the rows it lets through: bool (titles,)."""
        kind = self._rng.random()
        if kind < 0.04:
            return Filter(where="year > 3000"), ~self._everywhere
        if kind < 0.08:
            return Filter(where="year IS NULL OR year > 0"), self._everywhere
        if kind < 0.25:
            return self._shorthand()
        tree = self._tree(int(self._rng.integers(0, 4)))
        if kind < 0.7:
            tree = tree & self._share() if self._rng.random() < 0.7 else tree | self._share()
        return Filter(where=tree.sql), tree.true

    def _share(self) -> Tri:
        """A condition for a share of titles from one to all, few as often as many."""
        limit = int(np.exp(self._rng.uniform(0, np.log(len(self._everywhere) + 1))))
        return Tri(f"place < {limit}", self._values["place"] < limit, self._everywhere)

    def _shorthand(self) -> tuple[Filter, Mask]:
        rng = self._rng
        all_of, any_of, none_of = (
            tuple(str(name) for name in rng.choice(GENRES, size=int(rng.integers(0, most)), replace=False))
            for most in (3, 4, 3)
        )
        first, last = sorted(int(year) for year in rng.integers(1945, 2030, size=2))
        years = [None, (first, last), (first, None), (None, last)][int(rng.integers(4))]
        tree = self._tree(1) if rng.random() < 0.5 else None
        mask = self._everywhere.copy() if tree is None else tree.true.copy()
        for name in all_of:
            mask &= self._has[name]
        if any_of:
            mask &= np.any([self._has[name] for name in any_of], axis=0)
        for name in none_of:
            mask &= ~self._has[name]
        if years is not None:
            year = self._values["year"]
            mask &= self._known["year"] & (year >= (years[0] or 0)) & (year <= (years[1] or 9999))
        return Filter(None if tree is None else tree.sql, all_of, any_of, none_of, years), mask

    def _tree(self, depth: int) -> Tri:
        if depth == 0:
            return self._leaf()
        kind = self._rng.integers(7)
        first = self._tree(depth - 1)
        if kind < 2:
            return first & self._tree(depth - 1)
        if kind < 4:
            return first | self._tree(depth - 1)
        return (~first, first.is_true(), first.is_unknown())[kind - 4]

    def _leaf(self) -> Tri:
        rng = self._rng
        kind = rng.integers(5)
        if kind == 0:
            genre = str(rng.choice(GENRES))
            quoted = genre.replace("'", "''")
            return Tri(f"'{quoted}' IN genres", self._has[genre], self._genres_known)
        if kind == 1:
            return Tri("ok", self._values["ok"] > 0, self._known["ok"])
        name = str(rng.choice(["year", "runtime", "rating"]))
        known, values = self._known[name], self._values[name]
        limits = np.sort(rng.choice(values[known], size=2))
        if kind == 2:
            within = (values >= limits[0]) & (values <= limits[1])
            return Tri(f"{name} BETWEEN {limits[0]} AND {limits[1]}", known & within, known)
        sign = str(rng.choice(["<", ">=", "=", "<>"]))
        holds = {"<": np.less, ">=": np.greater_equal, "=": np.equal, "<>": np.not_equal}[sign](values, limits[0])
        return Tri(f"{name} {sign} {limits[0]}", known & holds, known)


@pytest.fixture(scope="session")
def filter_maker() -> type[FilterMaker]:
    """`FilterMaker`: draws random filters over a world's entries together with their masks."""
    return FilterMaker


@dataclass(frozen=True)
class Library:
    """The world on disk: a data folder with 200 users, an index of it, and what each user has seen.

    Attributes:
        folder: the data folder.
        output: the index directory, a flat index on the CPU.
        user_ids: in row order; user ``n`` has the world's query ``n`` for a taste.
        seen: for each user the title rows seen: none, a few, two thousand, all but three, or all.
    """

    folder: Path
    output: Path
    user_ids: list[str]
    seen: list[list[int]]

    def unseen(self, titles: int) -> Mask:
        """Return what each user has not seen: bool (users, titles)."""
        table = np.ones((len(self.seen), titles), np.bool_)
        for user, rows in enumerate(self.seen):
            table[user, rows] = False
        return table


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, world: World) -> Library:
    """The world with users, built."""
    import duckdb

    root = tmp_path_factory.mktemp("library")
    folder = root / "data"
    (folder / "media").mkdir(parents=True)
    (folder / "users").mkdir()
    np.save(folder / "media" / "content_vectors.npy", world.titles)
    lines = "".join(json.dumps(entry) + "\n" for entry in world.entries)
    (folder / "media" / "metadata.jsonl").write_text(lines, encoding="utf-8")
    np.save(folder / "users" / "preference_vectors.npy", world.queries)
    user_ids = [f"user '{number:03d}'" for number in range(QUERIES)]
    (folder / "users" / "user_ids.json").write_text(json.dumps(user_ids), encoding="utf-8")
    rng = np.random.default_rng(21)
    sizes = {0: 0, 1: TITLES - 3, 2: TITLES} | {user: int(rng.integers(2000, 2090)) for user in range(3, 20)}
    seen = [
        sorted(rng.permutation(TITLES)[: sizes.get(user, int(rng.integers(1, 60)))].tolist()) for user in range(QUERIES)
    ]
    with duckdb.connect(":memory:") as connection:
        pairs = [(user, row) for user, rows in enumerate(seen) for row in rows]
        columns = {
            "user_id": np.array([user_ids[user] for user, _ in pairs], dtype=object),
            "media_id": np.array([world.entries[row]["media_id"] for _, row in pairs], dtype=object),
        }
        connection.register("seen", columns)
        connection.execute("COPY (FROM seen) TO $1 (FORMAT parquet)", [str(folder / "users" / "seen.parquet")])
    output = root / "index"
    build_index(config_from_dict({"dataset": str(folder), "output": str(output), "device": "cpu"}))
    return Library(folder, output, user_ids, seen)
