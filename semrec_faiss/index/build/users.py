"""Users into a generation: their vectors, given or made of what they have seen, their ids and their history."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.config.index_types import IndexConfig
from semrec_faiss.config.profile import Profile
from semrec_faiss.data.folder.layout import (
    iter_float32_blocks,
    read_float32,
)
from semrec_faiss.data.folder.npy import NpyWriter
from semrec_faiss.data.interactions.profiles import user_vectors, warn_of_scale
from semrec_faiss.data.seen_table import numbered, read_delisted_rows
from semrec_faiss.data.users import History
from semrec_faiss.errors import DataError
from semrec_faiss.index.build.source import Source
from semrec_faiss.index.build.vectors import check_products, write_rows
from semrec_faiss.index.generations.file_names import LIKELESS_NAME, USERS_NAME
from semrec_faiss.index.generations.generation import NewGeneration
from semrec_faiss.index.queries import prepared_block
from semrec_faiss.index.saved.delisted import write_delisted
from semrec_faiss.index.saved.users import write_seen, write_user_ids
from semrec_faiss.progress import Progress


def write_users(
    new: NewGeneration,
    config: IndexConfig,
    profile: Profile | None,
    source: Source,
    progress: Progress,
    *,
    strict: bool,
) -> int:
    """Write the users; return how many rows of their history were ignored."""
    users = source.users
    if users is None:
        return 0
    history = users.history(source.catalog, strict=strict)
    likeless = list[Rows]()
    if users.vectors is None or (profile is not None and history is not None):
        assert history is not None and profile is not None, "users without vectors have a history"
        if users.vectors is None:  # else somebody has weighed them already, and was told
            warn_of_scale(history, profile)
        blocks = _made_users(history, source, config, profile, likeless)
    else:
        blocks = iter_float32_blocks(users.vectors, normalize=config.normalize, path=users.name)
    with new.create(USERS_NAME) as file, NpyWriter(file, (len(users.ids), source.dim), np.float32) as vectors:
        for first, block in blocks:
            check_products(block, first, users.name)
            progress("writing users", first + len(block), len(users.ids))
            vectors.write(block)
    write_user_ids(new, users.ids)
    if history is not None:
        write_seen(new, history)
    if history is not None and history.ignored and users.seen is not None:
        known = numbered(np.array(users.ids, dtype=object)), numbered(source.catalog.all_media_ids())
        write_delisted(new, read_delisted_rows(users.seen, *known), len(users.ids))
    if history is not None and profile is not None:
        write_rows(new, LIKELESS_NAME, np.concatenate(likeless))
    return 0 if history is None else history.ignored


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
    history: History, source: Source, config: IndexConfig, profile: Profile, likeless: list[Rows]
) -> Iterator[tuple[int, Vectors]]:
    """Make users' vectors of what they have seen; those of whom nothing counts get the mean of the others.

    Args:
        history: what they have seen.
        source: the titles.
        config: of the index.
        profile: how histories are weighed.
        likeless: where the rows of those of whom nothing counts are noted, int64, ascending.

    Raises:
        DataError: that is all of them.
    """
    titles = read_float32(source.vectors, normalize=config.normalize, path=source.name)
    for first, block, unknown in user_vectors(history, titles, profile):
        likeless.append(first + np.flatnonzero(unknown))
        if not block[unknown].any() and unknown.any():
            raise DataError(
                f"nobody likes anything: no rating weighs above nothing (profile.weights: {profile.weights})",
                fix="choose other profile.weights, or a lower profile.liked",
            )
        yield first, of_unit_length(block, first) if config.normalize else block
