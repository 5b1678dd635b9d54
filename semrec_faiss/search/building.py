"""From arrays and frames to an open index, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from semrec_faiss.arguments import path_of
from semrec_faiss.config.schema import Config
from semrec_faiss.index.build.from_tables import config_of, source_of_tables
from semrec_faiss.index.build.run import build_index
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender


def build(
    vectors: Any = None,
    metadata: Any = None,
    *,
    users: Any = None,
    interactions: Any = None,
    columns: Mapping[str, str] | None = None,
    config: Config | Mapping[str, Any] | str | PathLike[str] | None = None,
    output: str | PathLike[str],
    progress: Progress = silent,
) -> Recommender:
    """Build an index from what is in memory, publish it in ``output`` and open it; nothing else is written.

    Tables are pandas or polars DataFrames, Arrow tables, dicts of columns, lists of dicts, or paths of files.

    Args:
        vectors: float (n, d), a row for each title; a series of vectors; a frame of numbers; None where ``metadata``
            has a column of them.
        metadata: a table with a row for each vector; None: titles are named by their row.
        users: a table of user ids and vectors, or a dict of vectors by id.
        interactions: a table of who did what: user, item, and rating and time where they are known. Without ``users``
            it makes them, as means of what they liked, in which the latest weighs most. Items that are no titles count
            as soon as an update brings them.
        columns: the column that plays a part, such as ``{"media_id": "sku", "title": "name", "user": "customer"}``,
            or ``{"vector": "embedding"}``; ``"-"`` for no time or no rating; common names are guessed.
        config: a `Config`, a mapping with the keys of a config file, the path of one, or the name of one that is
            shipped; ``flat`` by default.
        output: the index directory.
        progress: told the steps.

    Returns:
        The index, open.

    Raises:
        UsageError: an argument that is no table or no config, or columns that cannot be guessed.
        ConfigError: settings that do not fit the data.
        DataError: rows that cannot be used, the first ten with row and column.
        MissingPackageError: FAISS is missing.
        DeviceError: the GPU cannot do it.
        StorageError: the disk is full or refuses.

    Example:
        >>> import numpy as np, tempfile, semrec_faiss
        >>> vectors = np.eye(4, 3, dtype="float32") + 0.1
        >>> songs = {"sku": ["a", "b", "c", "d"], "name": ["Intro", "Waltz", "March", "Outro"]}
        >>> plays = {"user": ["eve", "eve"], "sku": ["a", "b"]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shop = semrec_faiss.build(vectors, songs, interactions=plays, output=f"{folder}/index")
        ...     [(song.media_id, song.title) for song in shop.recommend("eve", k=2)]
        [('d', 'Outro'), ('c', 'March')]
    """
    settings, place = config_of(config), path_of(output, "output")
    source = source_of_tables(settings, vectors, metadata, users, interactions, columns)
    build_index(settings.model_copy(update={"output": place}), progress, source=source)
    return Recommender.open(place)
