"""A model of an index that changes: lists and dicts, written as a data folder whenever a rebuild is wanted."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index

DIM = 12
GENRES = ("Drama", "Comedy", "Crime", "Western")

Vector = NDArray[np.float32]
Row = tuple[str, str, float, int]
"""A user, a title, a rating and a time."""


def write_seen(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    kinds = (pa.string(), pa.string(), pa.float64(), pa.int64())
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(arrays, names=["user_id", "media_id", "rating", "timestamp"]), path)


def write_folder(
    root: Path,
    titles: dict[str, tuple[dict[str, Any], Vector]],
    users: dict[str, Vector] | None = None,
    seen: list[Row] | None = None,
    *,
    with_vectors: bool = True,
) -> Path:
    """Write a data folder, or a folder of changes, anew."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    if titles:
        (root / "media").mkdir()
        lines = [json.dumps({"media_id": media_id} | record) + "\n" for media_id, (record, _) in titles.items()]
        (root / "media/metadata.jsonl").write_text("".join(lines), encoding="utf-8")
        if with_vectors:
            np.save(root / "media/content_vectors.npy", np.stack([vector for _, vector in titles.values()]))
    if users:
        (root / "users").mkdir()
        np.save(root / "users/preference_vectors.npy", np.stack(list(users.values())))
        (root / "users/user_ids.json").write_text(json.dumps(list(users)), encoding="utf-8")
    if seen is not None:
        write_seen(root / "users/seen.parquet", seen)
    return root


@dataclass
class Model:
    """What an index holds, in its order; a change takes what it names out and puts it at the end.

    What was seen of a title that is not there stays, and counts when it comes; a user who goes is forgotten.
    """

    titles: dict[str, tuple[dict[str, Any], Vector]] = field(default_factory=dict)
    users: dict[str, Vector] = field(default_factory=dict)
    seen: list[Row] = field(default_factory=list)

    def put_titles(self, changed: dict[str, tuple[dict[str, Any], Vector]]) -> None:
        for media_id, (record, vector) in changed.items():
            old = self.titles.get(media_id)
            if old is not None and old[0] == record and (old[1] == vector).all():
                continue
            self.titles.pop(media_id, None)
            self.titles[media_id] = (record, vector)

    def put_users(self, changed: dict[str, Vector]) -> None:
        for user_id, vector in changed.items():
            if user_id not in self.users or not (self.users[user_id] == vector).all():
                self.users.pop(user_id, None)
                self.users[user_id] = vector

    def remove(self, titles: list[str], users: list[str]) -> None:
        for media_id in titles:
            self.titles.pop(media_id, None)
        for user_id in users:
            self.users.pop(user_id, None)
        self.seen = [row for row in self.seen if row[0] not in users]

    def see(self, rows: list[Row]) -> None:
        self.seen += [row for row in rows if row[0] in self.users]

    def write(self, root: Path) -> Path:
        return write_folder(root, self.titles, self.users, self.seen if self.users else None)

    def build(self, root: Path, settings: dict[str, Any], profile: dict[str, Any] | None = None) -> Path:
        """Build an index of what there is."""
        data = self.write(root / "data")
        more = {} if profile is None else {"profile": profile}
        paths = {"dataset": str(data), "output": str(root / "index"), "device": "cpu"}
        build_index(config_from_dict(paths | {"index": settings} | more))
        return root / "index"


class Draws:
    """Random titles, users and histories; equal vectors and titles among them, so that there are ties."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.made = 0
        self.vectors = self.random.normal(size=(30, DIM)).astype(np.float32)

    def vector(self) -> Vector:
        if self.random.random() < 0.3:  # one that others have, too
            return self.vectors[self.random.integers(len(self.vectors))]
        return self.random.normal(size=DIM).astype(np.float32)

    def record(self) -> dict[str, Any]:
        year = int(self.random.integers(1950, 2020))
        record: dict[str, Any] = {"title": f"Film {self.random.integers(40)} ({year})", "year": year}
        record["genres"] = [GENRES[at] for at in np.flatnonzero(self.random.random(len(GENRES)) < 0.4)]
        if self.random.random() < 0.2:
            record["stars"] = float(self.random.integers(2, 11) / 2 + 0.25)
        return record

    def titles(self, count: int, known: list[str] | None = None) -> dict[str, tuple[dict[str, Any], Vector]]:
        """New ones, or new versions of ``known`` ones."""
        ids = known or [f"m{self.made + number:05d}" for number in range(count)]
        self.made += 0 if known else count
        return {media_id: (self.record(), self.vector()) for media_id in ids}

    def absent(self, model: Model) -> list[str]:
        """Titles that were once and are no more."""
        return [media_id for number in range(self.made) if (media_id := f"m{number:05d}") not in model.titles]

    def some(self, ids: list[str], most: int) -> list[str]:
        count = min(len(ids), int(self.random.integers(0, most + 1)))
        return [ids[at] for at in self.random.choice(len(ids), size=count, replace=False)] if count else []

    def rows(self, users: list[str], titles: list[str], count: int) -> list[Row]:
        return [
            (
                users[self.random.integers(len(users))],
                titles[self.random.integers(len(titles))],
                float(self.random.integers(1, 11) / 2),
                int(self.random.integers(1, 10**9)),
            )
            for _ in range(count)
        ]


def begun(seed: int, titles: int = 60, users: int = 12) -> tuple[Model, Draws]:
    """A model with some titles and users who have seen some of them."""
    draws, model = Draws(seed), Model()
    model.put_titles(draws.titles(titles))
    model.put_users({f"u{number}": draws.vector() for number in range(users)})
    model.see(draws.rows(list(model.users), list(model.titles), 60))
    return model, draws
