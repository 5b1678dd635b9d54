"""What an index is built from, of tables in memory: the checks of an import, without a file in between."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from os import PathLike
from typing import Any

from semrec_faiss.config.reading import config_from_dict, load_config
from semrec_faiss.config.schema import Config
from semrec_faiss.data.folder.recipe import PARTS
from semrec_faiss.data.tables.columns import HISTORY_PARTS
from semrec_faiss.data.tables.gathered import gather_histories, gather_titles, gather_users
from semrec_faiss.data.tables.histories import HistoryWish
from semrec_faiss.data.tables.importing import TableWish, plan_media
from semrec_faiss.data.tables.memory import as_table, titles_table
from semrec_faiss.data.tables.people import check_dim
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.errors import DataError, UsageError
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
    try:
        return _source(config, vectors, metadata, users, interactions, _checked(columns or {}))
    except (UsageError, DataError) as error:
        raise type(error)(error.message, fix=None if error.fix is None else as_arguments(error.fix)) from error


def _source(
    config: Config, vectors: Any, metadata: Any, users: Any, interactions: Any, named: Mapping[str, str]
) -> Source:
    parts = config.dataset.fields.parts
    titles = parts | {part: column for part, column in named.items() if part in PARTS}
    done = {part: column for part, column in named.items() if part in HISTORY_PARTS}
    table, vector = titles_table(vectors, metadata, named.get("vector"))
    wish = TableWish(titles, vector)
    held, fields = gather_titles(table, wish)
    catalog = Catalog.of_table(fields, parts=parts)
    people = None
    if users is not None:
        listed = {"user": list(users), "vector": list(users.values())} if _by_id(users) else users
        people = gather_users(as_table(listed, "users"), done)
    if interactions is not None:
        history = HistoryWish(done, None, config.profile, plan_media(table, wish).recipe.columns["media_id"])
        people = gather_histories(as_table(interactions, "interactions"), history, catalog, people)
    if people is None:
        return Source(table.name, held, catalog)
    if people.vectors is not None:
        check_dim("users", int(people.vectors.shape[1]), int(held.shape[1]))
    found = SourceUsers(people.ids, people.vectors, "users", people.seen, people.history)
    return Source(table.name, held, catalog, found, people.profile)


def _checked(columns: Mapping[str, str]) -> Mapping[str, str]:
    known = (*PARTS, "vector", *HISTORY_PARTS)
    for part in columns:
        if part not in known:
            near = get_close_matches(str(part), known, n=1)
            if columns[part] in known:
                raise UsageError(
                    f"columns names {part!r}, which is not a part, but {columns[part]!r} is one",
                    fix=f"the part first: columns={{{columns[part]!r}: {part!r}}}",
                )
            raise UsageError(
                f"columns names {part!r}, which is not a part" + (f"; did you mean {near[0]!r}?" if near else ""),
                fix=f"the parts are {', '.join(known)}",
            )
    return columns


def as_arguments(fix: str) -> str:
    """Return what to do about tables with arguments of Python in the place of options of the command line."""

    def columns(options: re.Match[str]) -> str:
        pairs = re.findall(r"--map (\w+)=(-|\w+)|--(vector) (\w+)", options[0])
        return (
            "columns={" + ", ".join(f'"{part or vector}": "{at or column}"' for part, at, vector, column in pairs) + "}"
        )

    fix = re.sub(r"say which it is: --time-unit \w+", "give datetimes", fix)
    fix = re.sub("choose other --weights", 'choose other weights: config={"profile": {"weights": …}}', fix)
    fix = re.sub(r" when importing, or dataset\.fields: \{\w+: COLUMN\}", "", fix)
    option = r"(?:--map \w+=(?:-|\w+)|--vector \w+)"
    return re.sub(f"{option}(?: {option})*", columns, fix)


def config_of(config: Config | Mapping[str, Any] | str | PathLike[str] | None) -> Config:
    """Return settings as a config, read from a file or a mapping; None: the defaults.

    Raises:
        UsageError: it is none of these.
        ConfigError, NotFoundError: as `load_config`.
    """
    if config is None or isinstance(config, str | PathLike):
        return load_config(config)
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return config_from_dict(dict(config))
    raise UsageError(f"config is {type(config).__name__}; a config is expected", fix="for example: config='ivf_flat'")


def _by_id(users: Any) -> bool:
    """Whether users are a mapping of ids to vectors, and not one of columns."""
    return isinstance(users, Mapping) and not ({"vector", "embedding"} & {str(name) for name in users})
