"""Where the configs are that semrec ships: inside an installed package, or in the source tree."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from semrec_faiss.arguments import did_you_mean
from semrec_faiss.errors import NotFoundError
from semrec_faiss.kinds import what_instead
from semrec_faiss.paths import refuse_special

_PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (_PACKAGE / "shipped_configs", _PACKAGE.parent / "configs")
"""Where they lie: in the wheel, and in a checkout."""


def find_config(path: Path, marks: Collection[str] = ()) -> Path:
    """Return ``path`` where it is a file, else the shipped config of that name.

    ``flat``, ``flat.yaml`` and ``configs/flat.yaml`` all name the shipped ``flat.yaml``; a file of one's own comes
    first.

    Args:
        path: the file, or the name.
        marks: keys of which a file of the wanted kind has one, such as ``index``; none: any kind will do.

    Raises:
        NotFoundError: there is neither; its candidates are the shipped names of that kind.
        UsageError: it is a pipe, a device or a socket.
    """
    given = what_instead(path, "config file")
    if _is_file(path) and given is None:
        return path
    shipped = {file.stem: file for folder in FOLDERS for file in folder.glob("*.yaml")}
    if path.parent in (Path(), Path("configs")) and path.suffix in ("", ".yaml") and path.stem in shipped:
        return shipped[path.stem]
    if given is not None:
        raise NotFoundError(f"{given.told}, not a config file", fix=given.fix)
    names = tuple(name for name, file in sorted(shipped.items()) if not marks or _has_one(file, marks))
    known = "give a file" + (f", or the name of a config that semrec ships: {', '.join(names)}" if names else "")
    if _is_folder(path):
        raise NotFoundError(f"{path} is a folder, not a config file", fix=known, candidates=names)
    refuse_special(path, "a config file")
    raise NotFoundError(
        f"config file {path} does not exist", fix=did_you_mean(path.stem, sorted(shipped)) + known, candidates=names
    )


def _has_one(file: Path, keys: Collection[str]) -> bool:
    lines = file.read_text(encoding="utf-8").splitlines()
    return any(line.partition(":")[0] in keys for line in lines)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
