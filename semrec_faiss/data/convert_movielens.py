"""A MovieLens download, folder or zip, to a data folder: titles, their vectors, users and what they have seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from typing_extensions import Unpack

from semrec_faiss.data.folder.database import first_line
from semrec_faiss.data.folder.layout import MEDIA_VECTORS, METADATA
from semrec_faiss.data.folder.out_folder import check_out_folder
from semrec_faiss.data.movielens.download import MovieLensSource, check_there, open_movielens
from semrec_faiss.data.movielens.ratings import (
    Raters,
    Scratch,
    add_titles,
    load_genome_scores,
    load_ratings,
    open_scratch,
)
from semrec_faiss.data.movielens.titles import Titles, add_genome, read_genome_tags, read_titles
from semrec_faiss.data.movielens.users import write_users
from semrec_faiss.data.text.embed import EmbedArguments, EmbedReport, embed_folder
from semrec_faiss.data.text.encoder import DEFAULT_MODEL, check_available, find_model
from semrec_faiss.errors import StorageError
from semrec_faiss.locks import only_writer
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import move_over, new_file, sync_folder, sync_tree

GENOME_FIELD = "genome_tags"
"""The field of a title's most relevant genome tags; part of its text beside the users' tags."""

_WORK = ".work"


@dataclass(frozen=True)
class MovieLensReport:
    """What :func:`convert_movielens` made.

    Attributes:
        out: the data folder.
        titles: how many titles it has.
        ratings: how many ratings were read.
        users: how many users it has.
        users_left_out: users who have rated nothing above 1, so that their vector would have no weight.
        tags: how many tags were given by users.
        blank_tags: tags of nothing but blanks, left out.
        genome_titles: titles with genome tags; None where the download has no genome.
        embedding: how the vectors were made; None where none were.
    """

    out: Path
    titles: int
    ratings: int
    users: int
    users_left_out: int
    tags: int
    blank_tags: int
    genome_titles: int | None
    embedding: EmbedReport | None


def convert_movielens(
    path: Path,
    out: Path,
    *,
    overwrite: bool = False,
    without_vectors: bool = False,
    progress: Progress = silent,
    **embedding: Unpack[EmbedArguments],
) -> MovieLensReport:
    """Make the data folder ``out`` of a MovieLens download; it appears only when everything is written.

    The download is read and checked before any vector is made. After an interruption the same call reads it again and
    goes on with the vectors where it was.

    Args:
        path: a folder or zip of ml-latest-small, ml-latest, ml-20m, ml-25m, ml-32m, ml-1m or ml-10M100K.
        out: the folder to make.
        overwrite: replace an earlier data folder at ``out``.
        without_vectors: make none, neither of titles nor of users, for `learn_folder` to make them of what people did.
        progress: told the steps.
        embedding: model, batch_size, dtype, device and encoder, as :func:`embed_folder`.

    Raises:
        NotFoundError: no such download or model.
        UsageError: ``out`` is not empty, or another process makes it.
        DataError: a file is missing, truncated or malformed; the message names file and line.
        MissingPackageError: sentence-transformers is not installed.
        DeviceError: the device is missing or too small.
        StorageError: the disk is full or refuses.
    """
    import duckdb

    check_out_folder(out, overwrite=overwrite)
    check_there(path)
    if not without_vectors and embedding.get("encoder") is None:
        check_available(find_model(embedding.get("model", DEFAULT_MODEL)))
    try:
        with _staging(out.resolve()) as staging:
            if without_vectors:
                shutil.rmtree(staging / "media", ignore_errors=True)  # of an interrupted run
            with open_scratch(staging / _WORK) as scratch:
                source = open_movielens(path, staging / _WORK, progress)
                titles, raters, genome_titles = _read(source, scratch, progress)
                (staging / METADATA).parent.mkdir(exist_ok=True)
                with new_file(staging / METADATA) as file:
                    file.writelines(titles.json_lines())
                embedded = None
                if not without_vectors:
                    embedded = embed_folder(
                        staging,
                        fields=() if genome_titles is None else (GENOME_FIELD,),
                        overwrite=True,
                        progress=progress,
                        **embedding,
                    )
                vectors = None if embedded is None else embedded.path
                users, left_out = write_users(staging, scratch, raters, vectors, progress)
            _publish(staging, out.resolve())
    except (OSError, duckdb.Error) as error:
        raise StorageError(
            f"cannot write {out}: {getattr(error, 'strerror', None) or first_line(error)}",
            fix="free space on that disk, or choose another folder; vectors that are made already are kept",
        ) from error
    return MovieLensReport(
        out,
        len(titles.records),
        int(raters.counts.sum()),
        users,
        left_out,
        titles.tag_rows,
        titles.blank_tags,
        genome_titles,
        None if embedded is None else replace(embedded, path=out / MEDIA_VECTORS),
    )


def _read(source: MovieLensSource, scratch: Scratch, progress: Progress) -> tuple[Titles, Raters, int | None]:
    """Read everything into ``scratch``; return the titles, who has rated, and how many titles have genome tags."""
    titles = read_titles(source, progress)
    add_titles(scratch, titles.movie_ids)
    genome_titles = None
    if source.genome_scores is not None and source.genome_tags is not None:
        tags = read_genome_tags(source.genome_tags)
        load_genome_scores(scratch, source.genome_scores, titles.movie_ids, list(tags), progress)
        genome_titles = add_genome(titles, tags, scratch.db)
    return titles, load_ratings(scratch, source.ratings, titles.movie_ids, progress), genome_titles


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Give the folder beside ``out`` in which it is made, with an empty one for what is not to stay.

    Vectors that are made already stay in it after an error or an interruption; everything else is made again.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f".{out.name}.movielens")
    work = staging / _WORK
    with only_writer(out):
        try:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(staging / "users", ignore_errors=True)
            work.mkdir(parents=True)
            yield staging
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if not _has_vectors(staging):
                shutil.rmtree(staging, ignore_errors=True)


def _has_vectors(staging: Path) -> bool:
    media = staging / "media"
    return (staging / MEDIA_VECTORS).is_file() or any(media.glob(".embedding-*/block-*.npy"))


def _publish(staging: Path, out: Path) -> None:
    shutil.rmtree(staging / _WORK)
    sync_tree(staging)
    move_over(staging, out)
    sync_folder(out.parent)
