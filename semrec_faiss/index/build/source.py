"""What an index is built from: titles and users, opened and cross-checked, and how the users are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.dataset import Dataset
from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.schema import Config
from semrec_faiss.data.folder.layout import (
    DataFolder,
    find_data_folder,
    iter_float32_blocks,
    open_vectors,
)
from semrec_faiss.data.folder.parquet import parquet_parts
from semrec_faiss.data.folder.relation import Relation
from semrec_faiss.data.interactions.hybrid import Transformation
from semrec_faiss.data.interactions.transformation_file import (
    ARRAYS_NAME,
    JSON_NAME,
    has_transformation,
    read_transformation,
)
from semrec_faiss.data.tables.histories import PROFILE_NAME, default_profile
from semrec_faiss.data.text.provenance import Embedding, read_embedding
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import History, read_history, read_user_ids
from semrec_faiss.errors import ConfigError, DataError
from semrec_faiss.index.build.vectors import check_longest, check_products
from semrec_faiss.progress import Progress
from semrec_faiss.storage import read_small


@dataclass(frozen=True)
class TitleRange:
    """Some of the titles of a data folder that was checked as a whole.

    Attributes:
        first: the first row.
        last: the row after the last.
        fields: the DuckDB type of every field of all titles.
    """

    first: int
    last: int
    fields: Mapping[str, str]


@dataclass(frozen=True)
class SourceUsers:
    """Users that an index is built with.

    Attributes:
        ids: of the users.
        vectors: float (users, dim); None: they are made of the history.
        name: where the vectors are from, for messages.
        seen: what they have seen, a file or rows; None where that is not known.
        read: what ``seen`` holds, where somebody has read it already.
    """

    ids: Sequence[str]
    vectors: NDArray[Any] | None
    name: Path | str
    seen: Path | Relation | None
    read: History | None = None

    def history(self, catalog: Catalog, *, strict: bool) -> History | None:
        """Return what they have seen; ``strict`` refuses what names unknown users or titles."""
        if self.seen is None or self.read is not None:
            return self.read
        return read_history(self.seen, self.ids, catalog, strict=strict)


@dataclass(frozen=True)
class Source:
    """Titles and users, cross-checked, in a data folder or in memory.

    Attributes:
        name: where the titles' vectors are from, for messages.
        vectors: float (n, dim).
        catalog: the titles.
        users: None where there are none.
        profile: how users are made of what they did, unless a config says otherwise.
        transformation: what the vectors were learned by.
        transformation_folder: where its files are.
        embedding: which model made the vectors of texts.
    """

    name: Path | str
    vectors: NDArray[Any]
    catalog: Catalog
    users: SourceUsers | None = None
    profile: Profile | None = None
    transformation: Transformation | None = None
    transformation_folder: Path | None = None
    embedding: Embedding | None = None

    @property
    def count(self) -> int:
        """The number of titles."""
        return int(self.vectors.shape[0])

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.vectors.shape[1])

    def blocks(self, *, normalize: bool) -> Iterator[tuple[int, Vectors]]:
        """Yield the titles' vectors as they are compared, and the row of the first of each block.

        Args:
            normalize: whether they are brought to unit length.

        Yields:
            a row, and float32 (rows, dim).

        Raises:
            DataError: a vector is not finite, all zero where it is to have a length, or too long for float32 scores, or
                all are too short for them.
        """
        longest = 0.0
        for first, block in iter_float32_blocks(self.vectors, normalize=normalize, path=self.name):
            longest = max(longest, check_products(block, first, self.name))
            yield first, block
        check_longest(longest, self.name)


def open_source(
    dataset: Dataset, progress: Progress, part: TitleRange | None = None, *, ids_alone: bool = False
) -> Source:
    """Open a data folder, whose fields play the parts that the config says, and hold its files against one another.

    Args:
        dataset: the folder.
        progress: told what is checked.
        part: some of its titles, without users; all by default.
        ids_alone: hold of all titles' metadata the ids and the fields' types alone; see `Catalog.read`.

    Raises:
        NotFoundError: there is no such folder.
        DataError: it is inconsistent.
    """
    folder = find_data_folder(dataset.folder or "")
    vectors = open_vectors(folder.media_vectors)
    parts = dataset.fields.parts
    if part is None:
        count = len(vectors)
        catalog = Catalog.read(folder.metadata, expect_count=count, progress=progress, parts=parts, ids_alone=ids_alone)
    else:
        vectors = vectors[part.first : part.last]
        catalog = Catalog.read_range(folder.metadata, part.first, part.last, part.fields, parts)
    media = folder.media_vectors.parent
    learned = (
        read_transformation(media / JSON_NAME, media / ARRAYS_NAME, vectors=folder.media_vectors)
        if has_transformation(media)
        else None
    )
    return Source(
        folder.media_vectors,
        vectors,
        catalog,
        users=_users_of(folder, int(vectors.shape[1])) if part is None else None,
        profile=_profile_of(folder) if learned is None else learned.settings.profile,
        transformation=learned,
        transformation_folder=media,
        embedding=read_embedding(folder.media_vectors),
    )


def _users_of(folder: DataFolder, dim: int) -> SourceUsers | None:
    if folder.user_ids is None:
        return None
    if folder.user_vectors is None:  # they are made of what users have seen
        return SourceUsers(read_user_ids(folder.user_ids), None, folder.user_ids, folder.seen)
    vectors = open_vectors(folder.user_vectors, expect_dim=dim)
    ids = read_user_ids(folder.user_ids, expect_count=len(vectors))
    return SourceUsers(ids, vectors, folder.user_vectors, folder.seen)


def profile_of(config: Config, source: Source) -> Profile | None:
    """Return how users are made of titles: as the config says, or else as the vectors were learned for.

    Raises:
        ConfigError: learned vectors would be normalised, or a profile has no histories to work on.
    """
    if source.transformation is not None:
        _refuse_unit_length(source.name, config.index)
    if config.profile is None:
        return source.profile
    if source.users is None or source.users.seen is None:
        raise ConfigError(
            f"profile: is given, but the data of {source.name} does not know what its users have seen",
            fix="add users/seen.parquet to the data, or interactions from Python, or leave profile: out",
        )
    return config.profile


def check_lengths_stay(dataset: str | Path, index: IndexConfig) -> None:
    """Raise ConfigError where an index would bring the vectors of a data folder to unit length, and they were learned.

    Raises:
        NotFoundError, DataError: as `find_data_folder`.
    """
    if has_transformation(find_data_folder(dataset).media_vectors.parent):
        _refuse_unit_length(dataset, index)


def _refuse_unit_length(name: object, index: IndexConfig) -> None:
    if index.normalize:
        raise ConfigError(
            f"{name} holds learned vectors, whose lengths tell how well a title is liked; index.normalize is true",
            fix="set normalize: false for the index, as configs/learned.yaml does",
        )


def _profile_of(folder: DataFolder) -> Profile | None:
    """Return how users are made of what they did: as `semrec dataset import` says, or where they have no vectors."""
    path = folder.root / PROFILE_NAME
    if folder.seen is None:
        return None
    if not path.is_file():
        return None if folder.user_vectors is not None else default_profile(has_times=_has_times(folder.seen))
    try:
        return Profile.model_validate_json(read_small(path))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a profile: {error}", fix="remove it, or import the interactions anew"
        ) from error


def _has_times(seen: Path) -> bool:
    """Tell whether it says when; what cannot be read is refused when the history is."""
    try:
        return "timestamp" in pq.read_schema(parquet_parts(seen)[0]).names
    except (OSError, pa.ArrowInvalid):
        return False
