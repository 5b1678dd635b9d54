"""One data folder made of another: its titles with learned vectors, its users as means of what they liked."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Vectors
from semrec_faiss.data.folder.layout import (
    MEDIA_VECTORS,
    METADATA,
    METADATA_TABLE,
    SEEN,
    USER_IDS,
    USER_VECTORS,
    DataFolder,
    find_data_folder,
    open_vectors,
)
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.folder.relation import ParquetRelation
from semrec_faiss.data.folder.vectors import vector_norms
from semrec_faiss.data.interactions.divided import HERE, Workers
from semrec_faiss.data.interactions.factors import check_installed
from semrec_faiss.data.interactions.hybrid import LearnSettings, learn
from semrec_faiss.data.interactions.profiles import profile_weights, user_vectors, warn_of_scale, weight_matrix
from semrec_faiss.data.interactions.source import write_seen
from semrec_faiss.data.interactions.transformation_file import has_transformation, write_transformation
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.users import History, read_history, read_user_ids
from semrec_faiss.errors import DataError, StorageError, UsageError
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_folder, save_json


@dataclass(frozen=True)
class LearnReport:
    """What was made.

    Attributes:
        out: the data folder.
        titles: how many titles it has.
        unrated_titles: of these, those that nobody has rated: their texts gave them vectors.
        users: how many users.
        users_without_likes: of these, those who like nothing; they get the mean of the others.
        interactions: how many were read.
        ignored: further rows, of titles or users that are not known.
        rank: dimensions of the collaborative part.
        text_dim: dimensions of the text part; 0 without texts.
        text_scale: what the text part is multiplied by.
        fit_seconds: what learning took, reading and writing left out.
        seconds: the whole.
    """

    out: Path
    titles: int
    unrated_titles: int
    users: int
    users_without_likes: int
    interactions: int
    ignored: int
    rank: int
    text_dim: int
    text_scale: float
    fit_seconds: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"out": str(self.out)}


def learn_folder(
    folder: Path,
    out: Path,
    settings: LearnSettings,
    *,
    interactions: Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    workers: Workers = HERE,
) -> LearnReport:
    """Make the data folder ``out``; it appears only when everything is written.

    Args:
        folder: a data folder: its metadata, its text vectors where it has some, its users' seen titles.
        out: the folder to make.
        settings: how to learn.
        interactions: what people did, instead of the folder's users/seen.parquet; see `write_seen`.
        overwrite: replace an earlier data folder at ``out``.
        progress: told the steps.
        workers: who does what divides into blocks; see `learn`.

    Raises:
        NotFoundError: no such folder or file.
        UsageError: ``out`` is not empty, or the folder's vectors are learned ones.
        DataError: the folder is inconsistent, holds no interactions, or nobody likes anything.
        MissingPackageError: scipy or scikit-learn is missing.
        StorageError: the disk is full or refuses.
    """
    started = time.perf_counter()
    check_installed()
    source = find_data_folder(folder, need_vectors=False)
    _check(source, out, interactions, overwrite)
    texts = _texts(source)
    catalog = Catalog.read(source.metadata, expect_count=None if texts is None else len(texts), progress=progress)
    try:
        with new_folder(out) as made:
            (made / "users").mkdir()
            (made / "media").mkdir()
            ids = _write_ids_and_seen(source, interactions, made, catalog)
            told = str(interactions or source.seen)
            history = read_history(ParquetRelation(made / SEEN, told), ids, catalog)
            warn_of_scale(history, settings.profile)
            _check_history(history, settings, told)
            fitting = time.perf_counter()
            titles = catalog.count if texts is None else texts
            vectors, transformation = learn(history, titles, settings, progress, workers)
            fitted = time.perf_counter() - fitting
            _write_vectors(made, vectors, history, settings)
            write_transformation(made / "media", transformation, made / MEDIA_VECTORS)
            shutil.copyfile(source.metadata, made / "media" / source.metadata.name)
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or error}", fix="free space on that disk, or choose another folder"
        ) from error
    likes = np.diff(weight_matrix(history, profile_weights(history, settings.profile), catalog.count).indptr)
    return LearnReport(
        out=out,
        titles=catalog.count,
        unrated_titles=int((np.bincount(history.rows, minlength=catalog.count) == 0).sum()),
        users=len(ids),
        users_without_likes=int((likes == 0).sum()),
        interactions=len(history.rows),
        ignored=history.ignored,
        rank=transformation.rank,
        text_dim=transformation.dim - transformation.rank,
        text_scale=round(transformation.text_scale, 6),
        fit_seconds=round(fitted, 3),
        seconds=round(time.perf_counter() - started, 3),
    )


def _check(source: DataFolder, out: Path, interactions: Path | None, overwrite: bool) -> None:
    if out.resolve() == source.root.resolve() or out.resolve() in source.root.resolve().parents:
        raise UsageError(f"{out} holds the folder that is read", fix="name another OUT")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; OUT is a folder", fix="name another OUT")
    is_data = any((out / name).is_file() for name in (METADATA, METADATA_TABLE))
    if out.is_dir() and any(out.iterdir()) and not (overwrite and is_data):
        fix = "pass --overwrite to replace it" if is_data else "name a new or empty folder"
        raise UsageError(f"{out} exists and is not empty", fix=fix)
    if has_transformation(source.media_vectors.parent):
        raise UsageError(
            f"{source.root} holds learned vectors already; they are learned from those of texts",
            fix="give the folder that it was made of, and --interactions for what people did since",
        )
    if interactions is None and source.seen is None:
        raise DataError(
            f"{source.root} does not say what people did: it lacks {SEEN}",
            fix="add it, or give --interactions a .parquet or .csv file with the columns user_id and media_id",
        )


def _texts(source: DataFolder) -> NDArray[Any] | None:
    if not source.media_vectors.is_file():
        return None
    texts = open_vectors(source.media_vectors)
    vector_norms(texts, path=source.media_vectors)  # refuses NaN and zeros, and names the row
    return texts


def _write_ids_and_seen(source: DataFolder, interactions: Path | None, made: Path, catalog: Catalog) -> list[str]:
    if interactions is not None:
        ids = write_seen(interactions, made / SEEN, catalog.all_media_ids())
    else:
        assert source.seen is not None and source.user_ids is not None  # `_check` and `find_data_folder` saw to it
        (shutil.copytree if source.seen.is_dir() else shutil.copyfile)(source.seen, made / SEEN)
        ids = read_user_ids(source.user_ids)
    save_json(made / USER_IDS, ids)
    return ids


def _check_history(history: History, settings: LearnSettings, path: str) -> None:
    if not (profile_weights(history, settings.profile) > 0).any():
        raise DataError(
            f"{path}: nobody has rated anything {settings.profile.liked:g} or better, so that nothing is liked",
            fix="lower --liked",
        )


def _write_vectors(made: Path, vectors: Vectors, history: History, settings: LearnSettings) -> None:
    with (made / MEDIA_VECTORS).open("wb") as file, NpyWriter(file, vectors.shape, np.float32) as writer:
        writer.write(vectors)
    shape = (len(history.offsets) - 1, vectors.shape[1])
    with (made / USER_VECTORS).open("wb") as file, NpyWriter(file, shape, np.float32) as writer:
        for _, block, _ in user_vectors(history, vectors, settings.profile):
            writer.write(block)
