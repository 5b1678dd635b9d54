"""What a data folder holds, whether it is consistent, and what is worth knowing before an index is built from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.folder.database import quoted_name
from semrec_faiss.data.folder.layout import DataFolder, find_data_folder, open_vectors
from semrec_faiss.data.folder.vectors import NormStats, equal_rows, vector_norms
from semrec_faiss.data.interactions.transformation_file import has_transformation
from semrec_faiss.data.seen_checks import date_of
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.spelling import caseless
from semrec_faiss.data.titles.table import TABLE
from semrec_faiss.data.users import read_history, read_user_ids
from semrec_faiss.progress import Progress, silent

TOP_GENRES = 10
EXAMPLES = 3


@dataclass(frozen=True)
class VectorsReport:
    """One file of vectors: its shape and type, the lengths of its vectors, and how many equal an earlier one."""

    path: Path
    count: int
    dim: int
    dtype: str
    bytes: int
    norms: NormStats
    normalized: bool
    duplicates: int


@dataclass(frozen=True)
class FieldReport:
    """One metadata field: its DuckDB type and how many titles have no value for it."""

    name: str
    type: str
    nulls: int


@dataclass(frozen=True)
class UsersReport:
    """The users; what is about seen titles is None without users/seen.parquet, dates (UTC) without timestamps.

    ``vectors`` is None where a build makes them of what users have seen.
    """

    count: int
    vectors: VectorsReport | None
    seen_total: int | None = None
    seen_min: int | None = None
    seen_mean: float | None = None
    seen_max: int | None = None
    first_date: str | None = None
    last_date: str | None = None


@dataclass(frozen=True)
class FolderReport:
    """What a consistent data folder holds.

    Attributes:
        root: the folder itself, which may be the ``embeddings/`` inside the one that was given.
        vectors: content_vectors.npy.
        fields: the metadata fields, in record order.
        year_min: the earliest year; None without years.
        year_max: the latest year.
        genre_count: the number of different genres.
        top_genres: the most frequent genres with their numbers of titles.
        duplicate_titles: how many titles carry the same title as an earlier one, year included.
        users: None without users.
        warnings: what is allowed but worth knowing, each with what to do about it.
    """

    root: Path
    vectors: VectorsReport
    fields: list[FieldReport]
    year_min: int | None
    year_max: int | None
    genre_count: int
    top_genres: list[tuple[str, int]]
    duplicate_titles: int
    users: UsersReport | None
    warnings: list[str]

    @property
    def titles(self) -> int:
        """The number of titles."""
        return self.vectors.count

    def as_dict(self) -> dict[str, Any]:
        """Return everything as values that JSON knows."""
        plain: dict[str, Any] = _plain({"titles": self.titles, **asdict(self)})
        return plain


def check_data_folder(root: str | Path, progress: Progress = silent) -> FolderReport:
    """Read everything in the data folder at ``root``.

    Raises:
        NotFoundError: there is no such folder.
        DataError: files are missing, malformed or inconsistent.
    """
    folder = find_data_folder(root)
    vectors = open_vectors(folder.media_vectors)
    catalog = Catalog.read(folder.metadata, expect_count=len(vectors), progress=progress)
    warnings: list[str] = []
    is_learned = has_transformation(folder.media_vectors.parent)
    media = _check_vectors(folder.media_vectors, vectors, catalog, warnings, progress, is_learned=is_learned)
    if is_learned:
        path = folder.media_vectors
        warnings.append(f"{path}: learned vectors, whose lengths count: build with configs/learned.yaml")
    fields = _fields(catalog)
    warnings += [
        f"field {name!r} holds {mixture}, and is kept as JSON text; to filter by it as it is, write values of one type"
        for name, mixture in catalog.mixtures.items()
    ]
    years = _rows(catalog, f"SELECT min(year), max(year) FROM {TABLE}")[0] if "year" in catalog.fields else (None, None)
    genres = _genres(catalog)
    warnings += _spellings([name for name, _ in genres])
    return FolderReport(
        root=folder.root,
        vectors=media,
        fields=fields,
        year_min=years[0],
        year_max=years[1],
        genre_count=len(genres),
        top_genres=genres[:TOP_GENRES],
        duplicate_titles=_duplicate_titles(catalog, warnings),
        users=_check_users(folder, media.dim, catalog, warnings, progress, is_learned=is_learned),
        warnings=warnings,
    )


def _check_vectors(
    path: Path,
    vectors: NDArray[Any],
    catalog: Catalog | None,
    warnings: list[str],
    progress: Progress,
    *,
    is_learned: bool,
) -> VectorsReport:
    """Measure one file of vectors; ``catalog`` names the titles they belong to, None for users."""
    progress(f"measuring {path.name}", 0, 2)
    norms = vector_norms(vectors, path=path)
    progress(f"measuring {path.name}", 1, 2)
    duplicates, example = equal_rows(vectors)
    progress(f"measuring {path.name}", 2, 2)
    if not norms.normalized and not is_learned:
        warnings.append(
            f"{path}: not unit length (norms from {norms.min:.4g} to {norms.max:.4g}); "
            "`normalize: true` (the default) takes care"
        )
    if example is not None and catalog is not None:
        one, other = (f"{record['title']} [{record['media_id']}]" for record in catalog.records(example))
        warnings.append(
            f"{path}: {duplicates:,} vectors equal an earlier one, such as those of {one} and {other}; such titles get "
            f"the same score in every search; to tell them apart, {_more(path, is_learned=is_learned)}"
        )
    return VectorsReport(
        path=path,
        count=len(vectors),
        dim=vectors.shape[1],
        dtype=vectors.dtype.newbyteorder("=").name,
        bytes=path.stat().st_size,
        norms=norms,
        normalized=norms.normalized,
        duplicates=duplicates,
    )


def _more(path: Path, *, is_learned: bool) -> str:
    """Say what tells titles apart whose vectors are equal, by where the vectors come from."""
    if is_learned:
        return "learn from more interactions, or with text vectors that differ (`semrec dataset embed`)"
    of_text = path.with_suffix(".json").is_file()  # as `dataset embed` leaves it
    return f"make their vectors from more {'text' if of_text else 'of what is known about them'}"


def _check_users(
    folder: DataFolder, dim: int, catalog: Catalog, warnings: list[str], progress: Progress, *, is_learned: bool
) -> UsersReport | None:
    if folder.user_ids is None:
        return None
    report, count = None, None
    if folder.user_vectors is not None:
        vectors = open_vectors(folder.user_vectors, expect_dim=dim, what="user vectors")
        report = _check_vectors(folder.user_vectors, vectors, None, warnings, progress, is_learned=is_learned)
        count = len(vectors)
    user_ids = read_user_ids(folder.user_ids, expect_count=count)
    if folder.seen is None:
        return UsersReport(len(user_ids), report)
    progress(f"reading {folder.seen.name}", 0, 1)
    history = read_history(folder.seen, user_ids, catalog)
    progress(f"reading {folder.seen.name}", 1, 1)
    if history.ignored:
        warnings.append(f"{folder.seen}: {history.ignored:,} rows name unknown users or titles: ignored")
    counts, times = np.diff(history.offsets), history.timestamps
    dates = () if times is None or not len(times) else (date_of(int(times.min())), date_of(int(times.max())))
    return UsersReport(
        len(user_ids), report, int(counts.sum()), int(counts.min()), float(counts.mean()), int(counts.max()), *dates
    )


def _fields(catalog: Catalog) -> list[FieldReport]:
    nulls = _rows(
        catalog, f"SELECT {', '.join(f'count(*) - count({quoted_name(name)})' for name in catalog.fields)} FROM {TABLE}"
    )
    return [
        FieldReport(name, kind, count) for (name, kind), count in zip(catalog.fields.items(), nulls[0], strict=True)
    ]


def _genres(catalog: Catalog) -> list[tuple[str, int]]:
    """Return every genre with its number of titles, the most frequent first."""
    if "genres" not in catalog.fields:
        return []
    return _rows(
        catalog,
        f"SELECT genre, count(*) AS titles FROM (SELECT unnest(list_distinct(genres)) AS genre FROM {TABLE})"
        " GROUP BY genre ORDER BY titles DESC, genre",
    )


def _spellings(genres: list[str]) -> list[str]:
    """Warn of genres that differ only in case, Unicode form or white space."""
    same: dict[str, list[str]] = {}
    for name in sorted(genres):
        same.setdefault(caseless(name), []).append(name)
    return [
        f"the genres {' and '.join(map(ascii, names))} differ only in case, Unicode form or white space: --genre takes "
        "them as one, a WHERE clause does not; write one of them throughout"
        for names in same.values()
        if len(names) > 1
    ]


def _duplicate_titles(catalog: Catalog, warnings: list[str]) -> int:
    """Count the titles that carry the title and year of an earlier one."""
    same = "title, year" if "year" in catalog.fields else "title"
    repeated = _rows(
        catalog,
        f"SELECT title, count(*) AS times, sum(count(*) - 1) OVER () FROM {TABLE} GROUP BY {same}"
        f" HAVING count(*) > 1 ORDER BY times DESC, title LIMIT {EXAMPLES}",
    )
    if not repeated:
        return 0
    count = int(repeated[0][2])
    examples = ", ".join(f"{title!r} ({times} times)" for title, times, _ in repeated)
    warnings.append(f"{count:,} titles repeat an earlier title and year: {examples}; look these up by media_id")
    return count


def _rows(catalog: Catalog, sql: str) -> list[Any]:
    return catalog.cursor().execute(sql).fetchall()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
