"""Settings that sweep files of every kind have in common."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from semrec_faiss.config.index_types import Settings
from semrec_faiss.errors import UsageError, quoted

DEFAULT_RESULTS = Path("results")


def _folders_name(name: str) -> str:
    """Refuse what is no name of a folder on every system; raises ValueError, as `distinct`."""
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        near = re.sub("[^A-Za-z0-9._-]+", "-", name).strip("._-")[:40] or "sweep"
        raise ValueError(
            f"{quoted(name)} cannot be the name of a folder of results; up to 200 letters A to Z, digits, '.', '_' and"
            f" '-' are taken, and first a letter or a digit: {near!r}, say"
        )
    return name


Name = Annotated[str, AfterValidator(_folders_name)]
"""What results are called."""


def as_list(value: Any) -> Any:
    """Take one value for a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a value that is given twice; raises ValueError, which pydantic tells with the field."""
    if len(set(values)) < len(values):
        told = quoted([str(one) if isinstance(one, Path) else one for one in values])
        raise ValueError(f"{told} holds a value twice")
    return values


def told_apart(folders: tuple[Path, ...], what: str) -> tuple[Path, ...]:
    """Refuse folders of one name; raises ValueError, as `distinct`."""
    names = [folder.name for folder in folders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two {what} are called {twice!r}, so that results could not tell them apart")
    return folders


MOST_SEED = 2**31 - 1
"""FAISS holds a seed in 32 bits, with a sign."""


MOST_COUNT = 10**9


Seed = Annotated[int, Field(ge=0, le=MOST_SEED, strict=True)]


Seconds = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]


class QuerySettings(Settings):
    """Which questions are asked: titles, which are then not in the index, and users, drawn apart by one seed."""

    titles: Annotated[int, Field(ge=0, strict=True)] = 200
    users: Annotated[int, Field(ge=0, strict=True)] = 200
    seed: Seed = 7

    @model_validator(mode="after")
    def _some(self) -> QuerySettings:
        if not self.titles + self.users:
            raise ValueError("at least one title or user must be asked")
        return self


def query_settings(*, titles: int, users: int, seed: int) -> QuerySettings:
    """Make query settings from a command's options; raises UsageError when nothing is asked."""
    if not titles + users:
        raise UsageError("at least one title or user must be asked", fix="--titles 200, say")
    return QuerySettings(titles=titles, users=users, seed=seed)
