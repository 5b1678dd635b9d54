"""What stands at a path, by its name and what is in it, and which command makes of it what was wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from semrec_faiss.paths import as_typed
from semrec_faiss.storage import CURRENT_NAME

Format = Literal["parquet", "arrow", "csv", "jsonl"]

ENDINGS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""Of files that hold tables."""

PACKED = (".gz", ".zst")
"""Endings of compressed CSV and JSON lines."""

Kind = Literal["index", "data folder", "table", "config file", "bundle"]

_BUILD = "semrec build --dataset {0} --output INDEX makes an index of it"
_IMPORT = "semrec dataset import {0} FOLDER makes a data folder of it"
_WAYS: dict[tuple[Kind, Kind], str] = {
    ("index", "data folder"): _BUILD,
    ("index", "table"): f"{_IMPORT}, and {_BUILD.format('FOLDER').removesuffix(' of it')}",
    ("index", "config file"): "semrec build {0} --output INDEX makes an index by it",
    ("index", "bundle"): "semrec unbundle {0} INDEX makes an index of it",
    ("data folder", "table"): _IMPORT,
    ("data folder", "index"): "give the data folder that it was built of; semrec build {0} builds it again of it",
    ("config file", "data folder"): f"give it as --dataset {{0}}, beside a config or without; {_BUILD}",
    ("config file", "table"): f"{_IMPORT}, and {_BUILD.format('FOLDER').removesuffix(' of it')}",
}


def format_of(path: Path) -> Format | None:
    """Tell a table's format by its ending; None where it is none that is known."""
    name = path.name.lower()
    for packed in PACKED:
        if name.endswith(packed):
            found = ENDINGS.get(Path(name.removesuffix(packed)).suffix)
            return found if found in ("csv", "jsonl") else None
    return ENDINGS.get(Path(name).suffix)


def kind_of(path: Path) -> Kind | None:
    """Tell what stands at a path; None where nothing does, or what is unknown."""
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        is_file = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return None
    if not is_file:
        return None
    if path.suffix in (".yaml", ".yml"):
        return "config file"
    return "bundle" if path.name.endswith(".tar.zst") else "table" if format_of(path) else None


def _kind_of_folder(path: Path) -> Kind | None:
    if (path / CURRENT_NAME).is_file():
        return "index"
    media = (path / place / "media" for place in ("", "embeddings", "data/embeddings"))
    return "data folder" if any(each.is_dir() for each in media) else None


def indexes_near(path: Path) -> list[Path]:
    """Return the index that a path lies in, or those in it, sorted, where it is none itself."""
    try:
        near = [path.absolute().parent, *(sorted(path.iterdir()) if path.is_dir() else ())]
        return [each for each in near if kind_of(each) == "index"]
    except OSError:  # which whoever opens it will tell
        return []


class Given(NamedTuple):
    """What was given in the place of something else.

    Attributes:
        told: the path and what stands there.
        fix: the command that makes of it what was wanted.
    """

    told: str
    fix: str


def what_instead(path: Path, wanted: Kind) -> Given | None:
    """Return what stands at a path where something else was wanted; None where no command makes that of it."""
    kind = kind_of(path)
    way = None if kind is None else _WAYS.get((wanted, kind))
    return (
        None
        if way is None
        else Given(f"{path} is {'an' if kind == 'index' else 'a'} {kind}", way.format(as_typed(path)))
    )
