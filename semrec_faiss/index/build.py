"""From a data folder and a config to a published generation of an index directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss._version import __version__
from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.schema import Config
from semrec_faiss.data.folder.layout import DataFolder, find_data_folder, iter_float32_blocks, open_vectors
from semrec_faiss.data.text.provenance import read_embedding
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import read_history, read_user_ids
from semrec_faiss.errors import ConfigError
from semrec_faiss.index.device import Device, choose_device, load_faiss
from semrec_faiss.index.factory import holds_vectors_exactly, resolve
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation, HashingFile, NewGeneration
from semrec_faiss.index.generations.manifest import FORMAT_VERSION, KnownAnswer, Manifest
from semrec_faiss.index.saved_users import write_seen, write_user_ids
from semrec_faiss.index.train import build_faiss_index
from semrec_faiss.index.vector_index import VectorIndex
from semrec_faiss.progress import Progress, silent

INDEX_NAME = "index.faiss"
VECTORS_NAME = "vectors.npy"
ITEMS_NAME = "items.parquet"
USERS_NAME = "users.npy"

KNOWN_ANSWER_K = 10


@dataclass(frozen=True)
class _Source:
    """A data folder, opened and cross-checked."""

    folder: DataFolder
    vectors: NDArray[Any]
    catalog: Catalog
    user_vectors: NDArray[Any] | None
    user_ids: Sequence[str]

    @property
    def count(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])


def build_index(config: Config, progress: Progress = silent) -> Generation:
    """Build the index that ``config`` describes and publish it in ``config.output``.

    Whatever index was there stays in use until the last step, and stays on disk for `semrec rollback`.

    Args:
        config: needs ``dataset`` and ``output``.
        progress: told the steps.

    Returns:
        The generation that is now in use.

    Raises:
        ConfigError: no dataset or output, or settings that do not fit the data.
        NotFoundError: the dataset folder does not exist.
        DataError: it is inconsistent.
        DeviceError: FAISS or the GPU cannot do it.
        StorageError: the disk is full or refuses.
        UsageError: the output is something else than an index, or another process writes it.
    """
    if config.dataset is None:
        raise ConfigError("no dataset is given", fix="set dataset: in the config, or --dataset DIR")
    if config.output is None:
        raise ConfigError("no output is given", fix="set output: in the config, or --output DIR")
    device = choose_device(config.device, config.index)
    source = _open_source(config.dataset, progress)
    resolved = resolve(config.index, source.count, source.dim)
    directory = IndexDirectory(config.output)
    with directory.writing(), directory.new_generation() as new:
        known = _write_index(new, resolved, source, device, progress)
        source.catalog.write_parquet(new.folder / ITEMS_NAME)
        new.adopt(ITEMS_NAME)
        _write_users(new, resolved, source, progress)
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
            config=config.model_copy(update={"index": resolved}),
            files=new.files,
            known_answers=known,
            previous=new.previous,
            embedding=read_embedding(source.folder.media_vectors),
        )
        generation = directory.publish(new, manifest)
        progress("publishing", 1, 1)
        return generation


def _open_source(dataset: Path, progress: Progress) -> _Source:
    folder = find_data_folder(dataset)
    vectors = open_vectors(folder.media_vectors)
    catalog = Catalog.from_jsonl(folder.metadata, expect_count=len(vectors), progress=progress)
    if folder.user_vectors is None or folder.user_ids is None:
        return _Source(folder, vectors, catalog, None, ())
    users = open_vectors(folder.user_vectors, expect_dim=vectors.shape[1])
    ids = read_user_ids(folder.user_ids, expect_count=len(users))
    return _Source(folder, vectors, catalog, users, ids)


def _write_index(
    new: NewGeneration, config: IndexConfig, source: _Source, device: Device, progress: Progress
) -> tuple[KnownAnswer, ...]:
    faiss = load_faiss()

    def blocks() -> Any:
        return iter_float32_blocks(source.vectors, normalize=config.normalize, path=source.folder.media_vectors)

    index = build_faiss_index(config, blocks, source.count, source.dim, device, progress)
    originals = None
    if not holds_vectors_exactly(index):
        with new.create(VECTORS_NAME) as file:
            _write_npy(file, blocks, (source.count, source.dim))
        originals = np.load(new.folder / VECTORS_NAME, mmap_mode="r")
    with new.create(INDEX_NAME) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    return _known_answers(VectorIndex(index, config, originals=originals))


def _write_npy(file: HashingFile, blocks: Callable[[], Any], shape: tuple[int, int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for _, block in blocks():
        file.write(np.ascontiguousarray(block, dtype="<f4").data.cast("B"))


def _write_users(new: NewGeneration, config: IndexConfig, source: _Source, progress: Progress) -> None:
    folder, users, path = source.folder, source.user_vectors, source.folder.user_vectors
    if users is None or path is None:
        return

    def blocks() -> Any:
        for first, block in iter_float32_blocks(users, normalize=config.normalize, path=path):
            progress("writing users", first + len(block), len(users))
            yield first, block

    with new.create(USERS_NAME) as file:
        _write_npy(file, blocks, (len(users), source.dim))
    write_user_ids(new, source.user_ids)
    if folder.seen is not None:
        write_seen(new, read_history(folder.seen, source.user_ids, source.catalog))


def _known_answers(index: VectorIndex) -> tuple[KnownAnswer, ...]:
    """Ask for the neighbours of the first, the middle and the last title, on the CPU."""
    rows = sorted({0, index.count // 2, index.count - 1})
    queries = index.vectors(rows)
    found = index.search(queries, KNOWN_ANSWER_K, prepared=True)
    return tuple(
        KnownAnswer(query=tuple(query.tolist()), rows=tuple(rows.tolist()), scores=tuple(scores.tolist()))
        for query, rows, scores in zip(queries, found.rows, found.scores, strict=True)
    )
