"""The users of a MovieLens download: weighted means of what they rated, and what they have seen."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.arrays import Mask
from semrec_faiss.data.folder.database import quoted_text
from semrec_faiss.data.folder.layout import SEEN, USER_IDS, USER_VECTORS, open_vectors
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.movielens.ratings import Raters, Scratch, histories
from semrec_faiss.errors import DataError
from semrec_faiss.progress import Progress, silent
from semrec_faiss.storage import save_json


def user_id(number: int) -> str:
    """Name a user as user_id."""
    return f"user_{number:08d}"


def rating_weights(ratings: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Weigh ratings, float (n,), as the guide does: (rating - 1) / 4, nothing below 0; float64 (n,)."""
    return np.maximum((ratings.astype(np.float64) - 1.0) / 4.0, 0.0)


def write_users(
    folder: Path, scratch: Scratch, raters: Raters, titles: Path | None, progress: Progress = silent
) -> tuple[int, int]:
    """Write the users' vectors, ids and seen titles into the data folder.

    A user's vector, float64 and of unit length, is the mean of the vectors of the rated titles, weighted by
    (rating - 1) / 4. Where these are made, users who have rated nothing above 1 have no weight at all and are left out.

    Args:
        folder: the data folder.
        scratch: with the table ``history``.
        raters: who is in it.
        titles: content_vectors.npy, a row per title; None makes no vectors of users either.
        progress: told the users written.

    Returns:
        How many users were written, and how many left out.

    Raises:
        DataError: a user's titles cancel each other out.
    """
    kept = (rating_weights(raters.highest) > 0) | (titles is None)
    users = int(kept.sum())
    if not users:
        return 0, len(kept)
    (folder / USER_IDS).parent.mkdir(exist_ok=True)
    if titles is not None:
        _write_vectors(folder / USER_VECTORS, scratch, raters, kept, open_vectors(titles), progress)
    ids = [user_id(number) for number in raters.ids[kept].tolist()]
    save_json(folder / USER_IDS, ids)
    _write_seen(folder / SEEN, scratch, raters.ids[~kept])
    return users, len(kept) - users


def _write_vectors(
    path: Path, scratch: Scratch, raters: Raters, kept: Mask, titles: NDArray[Any], progress: Progress
) -> None:
    with path.open("wb") as file, NpyWriter(file, (int(kept.sum()), titles.shape[1]), np.float64) as writer:
        for block in raters.blocks():
            means = _means(histories(scratch, raters, block), titles)
            writer.write(means[kept[block]])
            progress("users", block.stop, len(kept))


def _means(found: dict[str, NDArray[Any]], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the unit vectors (users, dim) of a run of users; those without weight get zeros."""
    rows, weights = found["title_row"], rating_weights(found["rating"])
    bounds = np.flatnonzero(np.diff(found["user_id"], prepend=-1))
    edges = [*bounds.tolist(), len(rows)]
    means = np.zeros((len(bounds), vectors.shape[1]))
    for user, (first, last) in enumerate(itertools.pairwise(edges)):
        weight = weights[first:last]
        liked = weight > 0
        means[user] = weight[liked] @ vectors[rows[first:last][liked]].astype(np.float64)
        length = np.sqrt(means[user] @ means[user])
        if length > 0:
            means[user] /= length
        elif liked.any():
            raise DataError(
                f"the titles that {user_id(int(found['user_id'][first]))} rated cancel each other out",
                fix="make the titles' vectors from more text",
            )
    return means


def _write_seen(path: Path, scratch: Scratch, left_out: NDArray[np.int64]) -> None:
    """Write user_id, media_id, rating and timestamp (seconds since 1970, UTC) of everybody who is not left out."""
    scratch.db.register("ids", {"left_out": left_out})
    scratch.db.execute("SET preserve_insertion_order = true")  # history is sorted
    keep = "WHERE user_id NOT IN (SELECT left_out FROM ids)" if len(left_out) else ""
    scratch.db.execute(
        "COPY (SELECT format('user_{:08d}', user_id) AS user_id, format('ml_{:08d}', movie_id) AS media_id,"
        f" rating, rated_at AS timestamp FROM history {keep})"
        f" TO {quoted_text(str(path))} (FORMAT parquet, COMPRESSION zstd)"
    )
    scratch.db.unregister("ids")
