"""What the trials over one data folder share: titles, questions and their exact answers, popularity, slices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arguments import did_you_mean
from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.folder.layout import find_data_folder, iter_float32_blocks, open_vectors, read_float32
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.data.titles.table import TABLE
from semrec_faiss.data.users import read_seen, read_user_ids
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.quality.truth import ExactNeighbours, Truth, exact_index
from semrec_faiss.measure.trials.settings import QuerySettings
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_file, read_small, sha256_of_file

LARGEST_SLICES = 20
"""Values of a field that recall is told for: those that most titles have."""


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        vectors: float32 (queries, dim), titles first, then users.
        title_rows: int64, the data folder's rows of the titles asked, ascending; none of them is in the index.
        user_rows: int64, the rows of the users asked, ascending.
    """

    vectors: Vectors
    title_rows: Rows
    user_rows: Rows

    @property
    def are_titles(self) -> NDArray[np.bool_]:
        """Which of the questions are titles: bool (queries,)."""
        return np.arange(len(self.vectors)) < len(self.title_rows)


class SweepData:
    """A data folder with the titles that are asked taken out of it.

    Rows count over the titles that are left, in the folder's order, unless they are said to be the folder's.

    Attributes:
        count: the titles that are left.
        dim: dimensions of a vector.
        kept: int64 (count,), the folder's row of each.
    """

    def __init__(
        self,
        path: Path,
        digest: str,
        settings: QuerySettings,
        *,
        normalize: bool,
        cache: Path,
        progress: Progress = silent,
    ) -> None:
        """Open a folder; vectors are copied to the cache once, as float32 without the titles that are asked.

        Args:
            path: the data folder.
            digest: of its content; part of the cache's keys.
            settings: how many titles and users are asked.
            normalize: whether vectors are brought to unit length.
            cache: a folder for what is kept from run to run.
            progress: told the steps.

        Raises:
            DataError: the folder is inconsistent.
            StorageError: the cache's disk is full or refuses.
        """
        self._folder = find_data_folder(path)
        self._normalize = normalize
        self._cache = cache
        self._progress = progress
        self._settings = settings
        vectors = open_vectors(self._folder.media_vectors)
        self.dim = int(vectors.shape[1])
        asked = _sample(len(vectors), settings.titles, settings.seed)
        self.kept = np.delete(np.arange(len(vectors)), asked)
        self.count = len(self.kept)
        self.questions = self._questions(vectors, asked)
        self._key = f"{digest[:24]}-{settings.titles}-{settings.seed}-{'unit' if normalize else 'raw'}"
        self.vectors = self._kept_vectors(vectors)
        self._truths: dict[tuple[str | None, int], Truth] = {}
        self._neighbours = ExactNeighbours(
            lambda: exact_index(self.blocks, self.count, self.dim, normalize=normalize, progress=progress),
            self._key,
            cache=cache / "truth",
            metric=f"inner_product normalize={normalize}",
        )

    def blocks(self) -> Any:
        """Yield (first row, float32 block) over the titles that are left."""
        return iter_float32_blocks(self.vectors, normalize=False, path=self._folder.media_vectors)

    def vectors_of(self, rows: Rows) -> Vectors:
        """Return the vectors of ``rows``: float32 (rows, dim)."""
        return np.ascontiguousarray(self.vectors[rows])

    def _questions(self, vectors: NDArray[Any], asked: Rows) -> Questions:
        parts = [read_float32(vectors[asked], normalize=self._normalize, path=self._folder.media_vectors)]
        users = np.empty(0, np.int64)
        if self._settings.users and self._folder.user_vectors is not None:
            user_vectors = open_vectors(self._folder.user_vectors, expect_dim=self.dim)
            users = _sample(len(user_vectors), self._settings.users, self._settings.seed + 1)
            path = self._folder.user_vectors
            parts.append(read_float32(user_vectors[users], normalize=self._normalize, path=path))
        return Questions(np.concatenate(parts), asked, users)

    def _kept_vectors(self, vectors: NDArray[Any]) -> Vectors:
        """Map the vectors of the titles that are left; they are written when the cache does not have them whole."""
        path = self._cache / f"vectors-{self._key}.npy"
        digest = path.with_suffix(".sha256")
        if not _is_as_written(path, digest):
            try:
                self._cache.mkdir(parents=True, exist_ok=True)
                with new_file(path) as file, NpyWriter(file, (self.count, self.dim), np.float32) as writer:
                    self._write_kept(vectors, writer)
                with new_file(digest) as file:
                    file.write(sha256_of_file(path).encode())
            except OSError as error:
                raise StorageError(f"cannot write {path}: {error.strerror or error}", fix="free disk space") from error
        return open_vectors(path, expect_rows=self.count, expect_dim=self.dim)

    def _write_kept(self, vectors: NDArray[Any], writer: NpyWriter) -> None:
        path = self._folder.media_vectors
        for first, block in iter_float32_blocks(vectors, normalize=self._normalize, path=path):
            start, stop = np.searchsorted(self.kept, (first, first + len(block)))
            writer.write(block[self.kept[start:stop] - first])
            self._progress("reading vectors", first + len(block), len(vectors))

    @cached_property
    def catalog(self) -> Catalog:
        """The metadata of the whole folder, by the folder's rows."""
        count = len(open_vectors(self._folder.media_vectors))
        return Catalog.read(self._folder.metadata, expect_count=count, progress=self._progress)

    def mask(self, where: str | None) -> NDArray[np.bool_] | None:
        """Return which titles a filter lets through: bool (count,); None for no filter.

        Raises:
            UsageError: the filter is not understood.
        """
        if where is None:
            return None
        mask = np.zeros(self.count + len(self.questions.title_rows), np.bool_)
        mask[matching_rows(self.catalog, where)] = True
        return mask[self.kept]

    def truth(self, where: str | None, k: int) -> Truth:
        """Return the exact answers under a filter; a smaller k than asked for before is cut from those.

        Raises:
            UsageError: the filter is not understood.
        """
        found = next((truth for (known, most), truth in self._truths.items() if known == where and most >= k), None)
        if found is None:
            found = self._neighbours.find(self.questions.vectors, k, self.mask(where))
            self._truths[where, k] = found
        return Truth(found.rows[:, :k], found.scores[:, :k], found.matching, found.digest, found.from_cache)

    def release(self) -> None:
        """Let go of the exact index and its memory; a further question makes it again."""
        self._neighbours.release()

    @cached_property
    def user_ids(self) -> list[str]:
        """The ids of the folder's users, by their rows; empty where it has none."""
        return [] if self._folder.user_ids is None else read_user_ids(self._folder.user_ids)

    @cached_property
    def deciles(self) -> NDArray[np.int64] | NotMeasured:
        """The popularity decile of each title, 1 for the tenth that most users have seen: int64 (count,)."""
        folder = self._folder
        if folder.seen is None or folder.user_ids is None:
            return NotMeasured("the data folder has no users/seen.parquet, which tells popularity")
        _, rows = read_seen(folder.seen, self.user_ids, self.catalog)
        seen = np.bincount(rows, minlength=self.catalog.count)[self.kept]
        order = np.lexsort((np.arange(self.count), -seen))
        deciles = np.empty(self.count, np.int64)
        deciles[order] = 1 + np.arange(self.count) * 10 // self.count
        return deciles

    def slices(self, field: str) -> dict[str, NDArray[np.bool_]]:
        """Return which titles have each of a field's commonest values: bool (count,) by value, the commonest first.

        A list's items are values of their own; a title that has none is in no slice.

        Raises:
            UsageError: the titles have no such field.
        """
        check_slice(self.catalog, field)
        is_list = self.catalog.fields[field].endswith("[]")
        value = f"unnest({quoted_name(field)})" if is_list else quoted_name(field)
        sql = f"SELECT _semrec_row, ({value})::VARCHAR FROM {TABLE}"
        position = np.full(self.catalog.count, -1, np.int64)
        position[self.kept] = np.arange(self.count)
        members: dict[str, list[int]] = {}
        for row, name in self.catalog.cursor().execute(sql).fetchall():
            if name is not None and position[row] >= 0:
                members.setdefault(name, []).append(int(position[row]))
        largest = sorted(members, key=lambda name: (-len(members[name]), name))[:LARGEST_SLICES]
        masks = {}
        for name in largest:
            masks[name] = np.zeros(self.count, np.bool_)
            masks[name][members[name]] = True
        return masks


def check_slice(catalog: Catalog, field: str) -> None:
    """Refuse a field that no title has; raises UsageError with those that there are."""
    if field not in catalog.fields:
        known = list(catalog.fields)
        fix = f"{did_you_mean(field, known)}fields: {', '.join(known)}"
        raise UsageError(f"the titles have no field {field!r}", fix=fix)


def _is_as_written(path: Path, digest: Path) -> bool:
    """Tell whether a file of the cache is there whole, to the bit: with other vectors, recall would be of nothing."""
    try:
        return path.is_file() and read_small(digest).decode("ascii") == sha256_of_file(path)
    except (OSError, UnicodeDecodeError):
        return False


def _sample(count: int, wanted: int, seed: int) -> Rows:
    """Draw rows without repeats: int64, ascending."""
    return np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False)).astype(np.int64)
