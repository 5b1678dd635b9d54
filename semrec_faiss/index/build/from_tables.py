"""What an index is built from, of tables in memory: the checks of an import, without a file in between."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from semrec_faiss.config.reading import config_from_dict, load_config
from semrec_faiss.config.schema import Config
from semrec_faiss.data.tables.columns import TABLE_PARTS
from semrec_faiss.data.tables.gathered import gather_histories, gather_titles, gather_users
from semrec_faiss.data.tables.histories import HistoryWish
from semrec_faiss.data.tables.importing import TableWish
from semrec_faiss.data.tables.memory import as_table, titles_table
from semrec_faiss.data.tables.people import check_dim
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import UsageError
from semrec_faiss.index.build.source import Source, SourceUsers


def source_of_tables(
    config: Config, vectors: Any, metadata: Any, users: Any, interactions: Any, columns: Mapping[str, str] | None
) -> Source:
    """Check tables in memory and hold them against one another.

    Args:
        config: says which fields play a part under another name.
        vectors, metadata, users, interactions, columns: see `semrec_faiss.build`.

    Raises:
        UsageError, DataError: as there.
    """
    parts, named = config.dataset.fields.parts, dict(columns or {})
    titles = parts | {part: column for part, column in named.items() if part in TABLE_PARTS}
    done = {part: column for part, column in named.items() if part not in TABLE_PARTS}
    table, vector = titles_table(vectors, metadata)
    held, fields = gather_titles(table, TableWish(titles, vector))
    catalog = Catalog.of_table(fields, parts=parts)
    people = None
    if users is not None:
        listed = {"user": list(users), "vector": list(users.values())} if _by_id(users) else users
        people = gather_users(as_table(listed, "users"), done)
    if interactions is not None:
        people = gather_histories(as_table(interactions, "interactions"), HistoryWish(done), catalog, people)
    if people is None:
        return Source(table.name, held, catalog)
    if people.vectors is not None:
        check_dim("users", int(people.vectors.shape[1]), int(held.shape[1]))
    found = SourceUsers(people.ids, people.vectors, "users", people.history)
    return Source(table.name, held, catalog, found, people.profile)


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
