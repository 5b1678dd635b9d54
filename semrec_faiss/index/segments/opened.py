"""The segments of a generation on disk: their files' names, read and held against what the manifest says."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.data.titles.stored import StoredTexts
from semrec_faiss.errors import DamagedIndexError
from semrec_faiss.index.generations.file_names import (
    BOUNDS_NAME,
    LIKELESS_NAME,
    RECORDS,
    SEEN_NAME,
    USER_LOOKUP,
    USERS_NAME,
    VECTORS_NAME,
    file_of,
)
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.index.generations.manifest import Segments, unreadable
from semrec_faiss.index.generations.texts import read_texts
from semrec_faiss.index.segments.joined import JoinedTexts
from semrec_faiss.index.segments.places import GONE, Places, Replaced

REPLACED = "replaced.npy"
USERS_REPLACED = "users_replaced.npy"
MEDIA_IDS = "media_ids.parquet"


class OpenSegments:
    """The segments of one generation; each file is read when it is first needed."""

    def __init__(self, generation: Generation, about: Segments) -> None:
        """Wrap what the manifest of ``generation`` says ``about`` its segments."""
        self._generation = generation
        self.about = about

    @cached_property
    def titles(self) -> Places:
        """Where titles lie; raises DamagedIndexError where that cannot be."""
        counts = [self.about.base_titles, *(part.titles for part in self.about.parts)]
        return self._places(counts, REPLACED, self._generation.manifest.count)

    @cached_property
    def users(self) -> Places:
        """Where users lie; raises DamagedIndexError where that cannot be."""
        counts = [self.about.base_users, *(part.users for part in self.about.parts)]
        return self._places(counts, USERS_REPLACED, self._generation.manifest.users)

    @cached_property
    def title_vectors(self) -> Vectors:
        """The vectors of the rows after the base's: float32 (n, dim), C-contiguous."""
        found = self._joined(self.titles, VECTORS_NAME, self._generation.manifest.dim, np.float32)
        return np.ascontiguousarray(found, dtype=np.float32)

    def title_bounds(self, width: int) -> NDArray[np.float16]:
        """Return the bounds of the rows after the base's: float16 (n, width), C-contiguous; all segments have some."""
        return np.ascontiguousarray(self._joined(self.titles, BOUNDS_NAME, width, np.float16))

    @cached_property
    def user_vectors(self) -> Vectors:
        """The same of users, float32 (users, dim)."""
        found = self._joined(self.users, USERS_NAME, self._generation.manifest.dim, np.float32)
        return np.ascontiguousarray(found, dtype=np.float32)

    def records(self, base: StoredTexts) -> JoinedTexts:
        """Join the records of the base with those of the segments."""
        return JoinedTexts([base, *self._texts(RECORDS, [part.titles for part in self.about.parts])], self.titles)

    def user_ids(self, base: StoredTexts | None) -> JoinedTexts:
        """Join the user ids of the base, None where it has no users, with those of the segments."""
        first = [_NO_TEXTS if base is None else base]
        return JoinedTexts([*first, *self._texts(USER_LOOKUP, [part.users for part in self.about.parts])], self.users)

    def without_likes(self, base: Rows) -> Rows:
        """Return the users of whom nothing is known that counts; ``base`` are those of the base: int64, ascending."""
        lists = [base, *(self._array(part.name, LIKELESS_NAME, (None,)) for part in self.about.parts)]
        places = np.concatenate([start + own for start, own in zip(self.users.starts, lists, strict=True)])
        rows = self.users.row_of[places]
        return np.sort(rows[rows != GONE])

    @property
    def names(self) -> list[str]:
        """The segments' names, oldest first."""
        return [part.name for part in self.about.parts]

    @cached_property
    def media_ids(self) -> dict[int, str]:
        """The media_ids of titles by place: of those that were removed, and of those that brought history along."""
        import pyarrow.parquet as pq

        found: dict[int, str] = {}
        for name in [file_of(part, MEDIA_IDS) for part in self.names]:
            if self._generation.has(name):  # an earlier version wrote none
                table = pq.read_table(self._generation.file(name))
                found |= zip(table["place"].to_pylist(), table["media_id"].to_pylist(), strict=True)
        return dict(sorted(found.items()))

    @property
    def seen(self) -> list[str]:
        """The files of what users have seen, oldest first."""
        names = [file_of(part.name, SEEN_NAME) for part in self.about.parts]
        return [name for name in names if self._generation.has(name)]

    def _places(self, counts: list[int], name: str, expected: int) -> Places:
        replaced = []
        for number, part in enumerate(self.about.parts, start=1):
            moves: Replaced = self._array(part.name, name, (None, 2))
            limits = (sum(counts[:number]), sum(counts))
            if len(moves) and (moves.min() < GONE or moves[:, 0].min() < 0 or (moves.max(axis=0) >= limits).any()):
                raise DamagedIndexError(f"{file_of(part.name, name)} names places that there are none of")
            replaced.append(moves)
        places = Places.of(counts, replaced)
        if len(places.rows) != expected:
            raise DamagedIndexError(f"{len(places.rows)} are left by {name}, the manifest says {expected}")
        return places

    def _joined(self, places: Places, name: str, width: int, kind: type[np.generic]) -> NDArray[Any]:
        """Put together what is left of an array of all segments: (rows, width)."""
        counts = places.counts[1:]
        parts = []
        for number, (part, count) in enumerate(zip(self.about.parts, counts, strict=True), start=1):
            if not count:
                continue
            vectors = self._array(part.name, name, (count, width))
            left = places.within(number)
            parts.append(vectors if len(left) == count else vectors[left])
        if len(parts) == 1:
            return np.asarray(parts[0])
        return np.concatenate([np.empty((0, width), kind), *parts])

    def _texts(self, name: str, counts: list[int]) -> list[StoredTexts]:
        return [
            read_texts(self._generation, file_of(part.name, name), count) if count else _NO_TEXTS
            for part, count in zip(self.about.parts, counts, strict=True)
        ]

    def _array(self, segment: str, name: str, shape: tuple[int | None, ...]) -> Any:
        """Map an array; an empty one where the segment has no such file, which stands for a list of nothing."""
        file = file_of(segment, name)
        if not self._generation.has(file):
            return np.empty(tuple(length or 0 for length in shape), np.int64)
        try:
            found = np.load(self._generation.file(file), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise unreadable(self._generation.folder / file, error) from error
        expected = tuple(own if wanted is None else wanted for own, wanted in zip(found.shape, shape, strict=False))
        if found.ndim != len(shape) or found.shape != expected:
            raise DamagedIndexError(f"{file} is {found.shape}, the manifest says {shape}", fix="build the index again")
        return found


class _NoTexts(StoredTexts):
    """Texts of nothing: an empty file cannot be mapped."""

    def __init__(self) -> None:
        self.count = 0

    def lines(self, rows: Any) -> list[bytes]:
        return []  # there is no row that could be asked for

    def rows_of(self, key: str) -> list[int]:
        return []

    def first_rows(self, keys: Any) -> Rows:
        return np.full(len(keys), -1, np.int64)


_NO_TEXTS = _NoTexts()
