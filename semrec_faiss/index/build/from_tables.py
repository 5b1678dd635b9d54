"""An index of tables in memory: the same checks and the same build as for a data folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from semrec_faiss.config.reading import config_from_dict, load_config
from semrec_faiss.config.schema import Config
from semrec_faiss.data.tables.columns import TABLE_PARTS
from semrec_faiss.data.tables.histories import HistoryWish, write_histories
from semrec_faiss.data.tables.importing import TableWish, write_media
from semrec_faiss.data.tables.memory import as_table, titles_table
from semrec_faiss.data.tables.people import write_users
from semrec_faiss.errors import UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.generation import Generation
from semrec_faiss.progress import Progress, silent


def build_from_tables(
    vectors: Any,
    metadata: Any,
    *,
    users: Any = None,
    interactions: Any = None,
    columns: Mapping[str, str] | None = None,
    config: Config | Mapping[str, Any] | str | PathLike[str] | None = None,
    output: str | PathLike[str],
    progress: Progress = silent,
) -> Generation:
    """Build and publish an index; see `semrec_faiss.build`."""
    named = dict(columns or {})
    titles = {part: column for part, column in named.items() if part in TABLE_PARTS}
    done = {part: column for part, column in named.items() if part not in TABLE_PARTS}
    table, vector = titles_table(vectors, metadata)
    settings = config_of(config)
    with tempfile.TemporaryDirectory(prefix="semrec-") as scratch:  # the build reads in blocks, as it does any folder
        folder = Path(scratch)
        write_media(table, folder, TableWish(titles, vector), progress=progress)
        ids = None
        if users is not None:
            people = {"user": list(users), "vector": list(users.values())} if _by_id(users) else users
            ids = write_users(as_table(people, "users"), folder, done)
        if interactions is not None:
            write_histories(
                as_table(interactions, "interactions"), folder, HistoryWish(done), users=ids, progress=progress
            )
        built = settings.of(folder).model_copy(update={"output": Path(output)})
        return build_index(built, progress, keep_dataset=False)


def goes_with(owner: object, folder: Path) -> None:
    """Remove ``folder``, which holds an index, together with ``owner``, in the process that made it alone."""
    weakref.finalize(owner, _remove_own, folder, os.getpid())


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def config_of(config: Config | Mapping[str, Any] | str | PathLike[str] | None) -> Config:
    """Return settings as a config, read from a file or a mapping; None: the defaults.

    Raises:
        UsageError: it is none of these.
        ConfigError, NotFoundError: as `load_config`.
    """
    if config is None or isinstance(config, str | PathLike):
        return load_config(None if config is None else Path(config))
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return config_from_dict(dict(config))
    raise UsageError(f"config is {type(config).__name__}; a config is expected", fix="for example: config='ivf_flat'")


def _by_id(users: Any) -> bool:
    """Whether users are a mapping of ids to vectors, and not one of columns."""
    return isinstance(users, Mapping) and not ({"vector", "embedding"} & {str(name) for name in users})
