"""Seeded data of any size in the layout of a data folder, written a block at a time."""

from __future__ import annotations

import errno
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from semrec_faiss.cores import usable_cores
from semrec_faiss.data.folder.out_folder import check_name, check_out_folder
from semrec_faiss.data.synthetic.tastes import KNOWN_TITLES, TitlePool
from semrec_faiss.data.synthetic.titles import FloatName, forget_known, write_titles
from semrec_faiss.data.synthetic.users import write_seen, write_users
from semrec_faiss.data.synthetic.vectors import directions_bytes
from semrec_faiss.data.synthetic.workers import LINE_BYTES, Workers, processes_for, threads_for
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import new_folder

# name: (least, most)
_LIMITS = {
    "titles": (1, 1_000_000_000),
    "users": (0, 1_000_000_000),
    "dim": (1, 4096),
    "seed": (0, 2**63 - 1),
    "seen_per_user": (0, 1000),
}

# About how many bytes an entry of user_ids.json and a row of seen.parquet (with the table that it is gathered in) take.
_USER_ID_BYTES, _SEEN_BYTES = 18, 24


@dataclass(frozen=True)
class SyntheticReport:
    """What :func:`write_synthetic` wrote, and how fast.

    Attributes:
        bytes: of all files.
        seconds: from the first title to the last byte on the disk.
        bytes_per_second: the one by the other.
        processes: by how many it was made beside this one; 0 for none.
        seen: titles seen, over all users.
    """

    bytes: int
    seconds: float
    bytes_per_second: float
    processes: int
    seen: int


def write_synthetic(
    out: Path,
    *,
    titles: int,
    users: int,
    dim: int,
    seed: int = 7,
    seen_per_user: int = 0,
    user_dtype: FloatName = "float64",
    media_dtype: FloatName = "float32",
    overwrite: bool = False,
    processes: int | None = None,
    progress: Progress = silent,
) -> SyntheticReport:
    """Write a whole data folder of made-up titles and users to ``out``.

    Values depend on ``titles``, ``users``, ``dim`` and ``seed`` alone. Memory stays at a few blocks of vectors,
    whatever the number of titles. ``out`` appears only when everything is written.

    Args:
        out: the folder to make.
        titles: n, vectors of shape (n, dim) and unit length in ``media_dtype``.
        users: m, vectors of shape (m, dim) and unit length in ``user_dtype``; 0 for none.
        dim: dimensions of a vector.
        seed: another seed makes another world.
        seen_per_user: about how many seen titles a user has in seen.parquet, on average; 0 writes none. Of few titles
            fewer are seen, for users keep to their tastes.
        user_dtype: float64 as the guide's users have.
        media_dtype: what titles' vectors are stored as.
        overwrite: replace an earlier data folder at ``out``.
        processes: by how many it is made, 0 for threads; None for what is worth it. It changes no byte.
        progress: told the rows written.

    Returns:
        How much was written and how fast.

    Raises:
        UsageError: an argument out of its limits, ``out`` not empty or named in a way that seen.parquet cannot be.
        StorageError: the disk has too little room, or refused to be written to.
        SemrecError: a process could not be started, or ended before its work did.
        MemoryError: there was too little.
    """
    _check_limits(titles=titles, users=users, dim=dim, seed=seed, seen_per_user=seen_per_user)
    _check_dtypes(user_dtype=user_dtype, media_dtype=media_dtype)
    check_out_folder(out, overwrite=overwrite)
    if seen_per_user:
        check_name(out)
    item_bytes, cores = np.dtype(media_dtype).itemsize, usable_cores()
    made_by = processes_for(titles, dim, item_bytes, cores) if processes is None else processes
    row_bytes = dim * item_bytes
    title_bytes = titles * (row_bytes + LINE_BYTES)
    known_bytes = KNOWN_TITLES * row_bytes if users and titles > KNOWN_TITLES else 0  # written twice, for a while
    user_bytes = users * (dim * np.dtype(user_dtype).itemsize + _USER_ID_BYTES + seen_per_user * _SEEN_BYTES)
    seen = 0
    try:
        _check_room(out, title_bytes + known_bytes + directions_bytes(dim) + user_bytes)
        with new_folder(out) as folder:
            started = time.perf_counter()
            with Workers(made_by, threads_for(dim, item_bytes, cores)) as workers:
                pool = TitlePool(titles) if users else None
                write_titles(folder, (titles, dim), seed, media_dtype, pool, workers, progress)
                if pool is not None:
                    pool.close()
                    write_users(folder, pool, (users, dim), seed, user_dtype, workers, progress)
                    forget_known(folder)
            if pool is not None and seen_per_user:
                seen = write_seen(folder, pool, (users, titles), seed, seen_per_user, progress)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(error.strerror) from error
        fix = "free room on the disk" if error.errno == errno.ENOSPC else "choose a folder that can be written to"
        raise StorageError(f"cannot write {out}: {error.strerror or error}", fix=fix) from error
    seconds = time.perf_counter() - started
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return SyntheticReport(written, seconds, written / seconds, made_by, seen)


def _check_limits(**arguments: int) -> None:
    for name, value in arguments.items():
        least, most = _LIMITS[name]
        if not least <= value <= most:
            raise UsageError(f"{name.replace('_', ' ')} is {value:,}; it must be from {least:,} to {most:,}")


def _check_dtypes(**arguments: str) -> None:
    for name, value in arguments.items():
        if value not in get_args(FloatName):
            allowed = ", ".join(get_args(FloatName))
            raise UsageError(f"{name.replace('_', ' ')} is {value!r}; it must be one of {allowed}")


def _check_room(out: Path, needed: int) -> None:
    place = out.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"{out} would take about {needed:,} bytes; {place} has {free:,} free",
            fix="choose fewer titles or users, or another disk",
        )
