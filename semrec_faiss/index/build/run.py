"""From a data folder and a config to a published generation of an index directory."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from semrec_faiss._version import __version__
from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.schema import Config
from semrec_faiss.data.folder.layout import (
    DataFolder,
    find_data_folder,
    iter_float32_blocks,
    open_vectors,
    read_float32,
)
from semrec_faiss.data.folder.npy import NpyWriter, Writable
from semrec_faiss.data.interactions.hybrid import Transformation
from semrec_faiss.data.interactions.profiles import user_vectors, users_without_likes
from semrec_faiss.data.interactions.transformation_file import (
    ARRAYS_NAME,
    JSON_NAME,
    has_transformation,
    read_transformation,
)
from semrec_faiss.data.tables.histories import PROFILE_NAME
from semrec_faiss.data.text.provenance import read_embedding
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import History, read_history, read_user_ids
from semrec_faiss.errors import ConfigError, DataError
from semrec_faiss.index.factory import holds_vectors_exactly, resolve
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import FORMAT_VERSION, KnownAnswer, Manifest
from semrec_faiss.index.hardware.device import Device, choose_device, load_faiss
from semrec_faiss.index.queries import prepared_block
from semrec_faiss.index.saved.saved_index import INDEX_NAME, VECTORS_NAME
from semrec_faiss.index.saved.titles import write_titles
from semrec_faiss.index.saved.users import LIKELESS_NAME, write_seen, write_user_ids
from semrec_faiss.index.train import VectorBlocks, build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import read_small

USERS_NAME = "users.npy"

KNOWN_ANSWER_K = 10


LONGEST = math.sqrt(float(np.finfo(np.float32).max))
"""From this length on the inner product of two vectors may overflow float32."""


@dataclass(frozen=True)
class _Source:
    """A data folder, opened and cross-checked."""

    folder: DataFolder
    vectors: NDArray[Any]
    catalog: Catalog
    user_vectors: NDArray[Any] | None
    user_ids: Sequence[str]
    transformation: Transformation | None = None

    @property
    def count(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


def build_index(
    config: Config, progress: Progress = silent, *, strict: bool = False, keep_dataset: bool = True
) -> Generation:
    """Build the index that ``config`` describes and publish it in ``config.output``.

    Whatever index was there stays in use until the last step, and stays on disk for `semrec rollback`.

    Args:
        config: needs ``dataset`` and ``output``.
        progress: told the steps.
        strict: refuse a history that names users or titles that there are not, instead of counting such rows.
        keep_dataset: whether the index remembers where its data lay; False where that goes away.

    Returns:
        The generation that is now in use.

    Raises:
        ConfigError: no dataset or output, or settings that do not fit the data.
        NotFoundError: the dataset folder does not exist.
        DataError: it is inconsistent.
        MissingPackageError: FAISS is not installed.
        DeviceError: the GPU cannot do it.
        StorageError: the disk is full or refuses.
        UsageError: the output is something else than an index, or another process writes it.
    """
    if config.dataset is None:
        raise ConfigError("no dataset is given", fix="set dataset: in the config, or --dataset DIR")
    if config.output is None:
        raise ConfigError("no output is given", fix="set output: in the config, or --output DIR")
    device = choose_device(config.device, config.index)
    source = _open_source(config.dataset, progress)
    profile = _profile_of(config, source)
    resolved = resolve(config.index, source.count, source.dim)
    directory = IndexDirectory(config.output)
    with directory.writing(), directory.new_generation() as new:
        known = write_vectors(new, resolved, _blocks_of(source, resolved), source.count, source.dim, device, progress)
        write_titles(new, source.catalog)
        ignored = _write_users(new, resolved, profile, source, progress, strict=strict)
        _carry_transformation(new, source)
        progress("publishing", 0, 1)
        manifest = Manifest(
            format=FORMAT_VERSION,
            generation=new.name,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            semrec_version=__version__,
            faiss_version=load_faiss().__version__,
            count=source.count,
            dim=source.dim,
            users=len(source.user_ids),
            config=config.model_copy(
                update={"index": resolved, "profile": profile, "dataset": config.dataset if keep_dataset else None}
            ),
            files=new.files,
            known_answers=known,
            previous=new.previous,
            embedding=read_embedding(source.folder.media_vectors),
            ignored_history=ignored or None,
        )
        generation = directory.publish(new, manifest)
        progress("publishing", 1, 1)
        return generation


def _open_source(dataset: Path, progress: Progress) -> _Source:
    folder = find_data_folder(dataset)
    vectors = open_vectors(folder.media_vectors)
    catalog = Catalog.read(folder.metadata, expect_count=len(vectors), progress=progress)
    media = folder.media_vectors.parent
    learned = (
        read_transformation(media / JSON_NAME, media / ARRAYS_NAME, vectors=folder.media_vectors)
        if has_transformation(media)
        else None
    )
    if folder.user_vectors is None or folder.user_ids is None:
        return _Source(folder, vectors, catalog, None, (), learned)
    users = open_vectors(folder.user_vectors, expect_dim=vectors.shape[1])
    ids = read_user_ids(folder.user_ids, expect_count=len(users))
    return _Source(folder, vectors, catalog, users, ids, learned)


def _profile_of(config: Config, source: _Source) -> Profile | None:
    """Return how users are made of titles: as the config says, or else as the vectors were learned for.

    Raises:
        ConfigError: learned vectors would be normalised, or a profile has no histories to work on.
    """
    if source.transformation is not None and config.index.normalize:
        raise ConfigError(
            f"{source.folder.media_vectors} holds learned vectors, whose lengths tell how well a title is liked;"
            " index.normalize is true",
            fix="set index.normalize: false, as configs/learned.yaml has it",
        )
    if config.profile is None:
        return (
            _profile_of_folder(source.folder)
            if source.transformation is None
            else (source.transformation.settings.profile)
        )
    if source.folder.seen is None:
        raise ConfigError(
            f"profile: is given, but {source.folder.root} does not know what its users have seen",
            fix="add users/seen.parquet to the data, or leave profile: out",
        )
    return config.profile


def _profile_of_folder(folder: DataFolder) -> Profile | None:
    """Return how `semrec dataset import` made users of what they did, where it has made them."""
    path = folder.root / PROFILE_NAME
    if folder.seen is None or not path.is_file():
        return None
    try:
        return Profile.model_validate_json(read_small(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no profile: {error}", fix="remove it, or import the interactions again") from error


def _carry_transformation(new: NewGeneration, source: _Source) -> None:
    if source.transformation is None:
        return
    for name in (JSON_NAME, ARRAYS_NAME):
        shutil.copyfile(source.folder.media_vectors.parent / name, new.folder / name)
        new.adopt(name)


def _blocks_of(source: _Source, config: IndexConfig) -> VectorBlocks:
    def blocks() -> Iterator[tuple[int, Vectors]]:
        path = source.folder.media_vectors
        for first, block in iter_float32_blocks(source.vectors, normalize=config.normalize, path=path):
            check_products(block, first, path)
            yield first, block

    return blocks


def write_vectors(
    new: NewGeneration,
    config: IndexConfig,
    blocks: VectorBlocks,
    count: int,
    dim: int,
    device: Device,
    progress: Progress,
) -> tuple[KnownAnswer, ...]:
    """Train, fill and write a FAISS index, and the vectors beside it where it does not hold them; raises as building.

    Args:
        new: where it is written.
        config: the index section, autos resolved.
        blocks: the vectors, float32 (count, dim) in all, as they are to be compared.
        count: the number of titles.
        dim: dimensions of a vector.
        device: where it is trained.
        progress: told the vectors done.
    """
    faiss = load_faiss()
    index = build_faiss_index(config, blocks, count, dim, device, progress)
    originals = None
    if not holds_vectors_exactly(index):
        with new.create(VECTORS_NAME) as file:
            write_npy(file, blocks, (count, dim))
        originals = np.load(new.folder / VECTORS_NAME, mmap_mode="r")
    with new.create(INDEX_NAME) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    return _known_answers(VectorIndex(index, config, originals=originals))


def check_products(block: Vectors, first: int, path: Path) -> None:
    """Refuse vectors whose inner product with one as long overflows float32: all such scores would be equal.

    Args:
        block: float32 (rows, dim).
        first: the row of its first vector, for messages.
        path: where it is from, for messages.

    Raises:
        DataError: there is such a vector.
    """
    squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    row = int(squares.argmax())
    if squares[row] > np.finfo(np.float32).max:
        raise DataError(
            f"{path}: row {first + row} has length {math.sqrt(squares[row]):.4g}; from {LONGEST:.4g} on, scores"
            " overflow float32 and titles can no longer be told apart",
            fix="set index.normalize: true, or divide all vectors by one number",
        )


def write_npy(file: Writable, blocks: VectorBlocks, shape: tuple[int, int]) -> None:
    """Write vectors as one float32 .npy of ``shape``."""
    with NpyWriter(file, shape, np.float32) as vectors:
        for _, block in blocks():
            vectors.write(block)


def _write_users(
    new: NewGeneration,
    config: IndexConfig,
    profile: Profile | None,
    source: _Source,
    progress: Progress,
    *,
    strict: bool,
) -> int:
    """Write the users; return how many rows of their history were ignored."""
    folder, users, path = source.folder, source.user_vectors, source.folder.user_vectors
    if users is None or path is None:
        return 0

    history = None if folder.seen is None else read_history(folder.seen, source.user_ids, source.catalog, strict=strict)
    blocks = (
        iter_float32_blocks(users, normalize=config.normalize, path=path)
        if profile is None or history is None
        else _made_users(history, source, config, profile)
    )
    with new.create(USERS_NAME) as file, NpyWriter(file, (len(users), source.dim), np.float32) as vectors:
        for first, block in blocks:
            check_products(block, first, path)
            progress("writing users", first + len(block), len(users))
            vectors.write(block)
    write_user_ids(new, source.user_ids)
    if history is not None:
        write_seen(new, history)
    if history is not None and profile is not None:
        write_rows(new, LIKELESS_NAME, users_without_likes(history, profile))
    return 0 if history is None else history.ignored


def write_rows(new: NewGeneration, name: str, rows: Rows) -> None:
    """Write integers as a .npy; nothing where there are none."""
    if len(rows):
        with new.create(name) as file:
            np.lib.format.write_array(cast("Any", file), np.ascontiguousarray(rows), allow_pickle=False)


def of_unit_length(block: Vectors, first: int) -> Vectors:
    """Bring users' vectors to unit length, each the same in any block; raises DataError where one is all zero.

    Args:
        block: float32 (users, dim).
        first: the number of its first user, for messages.
    """
    wide = block.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    if not (lengths > 0).all() or not np.isfinite(lengths).all():
        return prepared_block(block, first, normalize=True)  # says which, or scales what vanishes
    return np.ascontiguousarray(wide / lengths[:, None], dtype=np.float32)


def _made_users(
    history: History, source: _Source, config: IndexConfig, profile: Profile
) -> Iterator[tuple[int, Vectors]]:
    """Make users' vectors of what they have seen; those of whom nothing counts get the mean of the others."""
    titles = read_float32(source.vectors, normalize=config.normalize, path=source.folder.media_vectors)
    for first, block in user_vectors(history, titles, profile):
        yield first, of_unit_length(block, first) if config.normalize else block


def _known_answers(index: VectorIndex) -> tuple[KnownAnswer, ...]:
    """Ask for the neighbours of the first, the middle and the last title, on the CPU."""
    rows = sorted({0, index.count // 2, index.count - 1})
    queries = index.vectors(rows)
    found = index.search(queries, KNOWN_ANSWER_K, prepared=True)
    return tuple(
        KnownAnswer(query=tuple(query.tolist()), rows=tuple(rows.tolist()), scores=tuple(scores.tolist()))
        for query, rows, scores in zip(queries, found.rows, found.scores, strict=True)
    )
