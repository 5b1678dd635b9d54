"""Which files a SOURCE is: one file, a folder of parts, a glob, or a dataset that `datasets` has saved to disk."""

from __future__ import annotations

import glob
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semrec_faiss.data.demo import or_demos
from semrec_faiss.data.folder.parquet import is_aside
from semrec_faiss.errors import DataError, NotFoundError, UsageError, quoted
from semrec_faiss.kinds import Format, format_of
from semrec_faiss.paths import refuse_special
from semrec_faiss.storage import read_small

KINDS = "Parquet, Arrow IPC, CSV, JSON lines, a folder or glob of these, or a folder saved by datasets"


AS_JSON_LINES = "write it as JSON lines, an object a line, in a file that ends in .jsonl: jq -c '.[]' does"

_INSTEAD = {
    ".json": AS_JSON_LINES,
    ".npy": "give the table of the titles, and this file with --vectors; users' vectors are a column of their table",
    ".xlsx": "save it as CSV in UTF-8",
    ".xls": "save it as CSV in UTF-8",
}
"""What to do about files of other kinds that hold tables, or a part of one."""


@dataclass(frozen=True)
class TableFiles:
    """The files of one table, in order.

    Attributes:
        name: what the table was asked for as, for messages.
        files: all of one format.
        format: of the files.
        vectors: a .npy that lies beside them; None where there is none.
    """

    name: str
    files: tuple[Path, ...]
    format: Format
    vectors: Path | None

    def notes(self) -> tuple[str, ...]:
        """Say which columns stand in the names of folders alone, ``lang=en``, and so are not read."""
        parts = [part for file in self.files for part in file.parts[len(Path(self.name).parts) : -1]]
        columns = dict.fromkeys(part.partition("=")[0] for part in parts if "=" in part)
        if not columns:
            return ()
        return (f"{', '.join(map(quoted, columns))}: in the names of folders alone, which are not read",)


def promises_another(path: Path, *written: Format) -> bool:
    """Tell a path whose ending promises another format than the ones that are written to it."""
    kind = format_of(path)
    return path.suffix.lower() in (*_INSTEAD, ".npz", ".txt") or (kind is not None and kind not in written)


def find_files(source: Path) -> TableFiles:
    """Find the files of a table.

    Raises:
        NotFoundError: there is nothing at ``source``.
        UsageError: it is no table, or holds files of several formats.
        DataError: a saved dataset that is not complete, or not as it can be read.
    """
    source = or_demos(source)
    refuse_special(source, "a table")
    if source.is_dir():
        return _saved_dataset(source) or _of_one_format(source, _inside(source), _npy_in(source))
    if source.is_file():
        beside = source.with_name(source.name.split(".")[0] + ".npy")
        exact = source.with_suffix(".npy")
        return _of_one_format(source, [source], next((each for each in (exact, beside) if each.is_file()), None))
    tables = [each for each in sorted(_globbed(source)) if each.is_file() and format_of(each)]
    if not tables:
        raise NotFoundError(f"there is no table {source}", fix=f"give {KINDS}")
    return _of_one_format(source, tables, None)


def _globbed(pattern: Path) -> list[Path]:
    if not glob.has_magic(str(pattern)):
        return []
    return [Path(each) for each in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207 (absolute patterns too)


def _inside(folder: Path) -> list[Path]:
    """Return the tables in a folder; what writers put beside their parts, and what is no table, is left aside."""
    inside = [each for each in sorted(folder.rglob("*")) if each.is_file() and not is_aside(each.relative_to(folder))]
    return [each for each in inside if format_of(each)]


def _npy_in(folder: Path) -> Path | None:
    found = sorted(folder.glob("*.npy"))
    if len(found) > 1:
        raise UsageError(
            f"{folder} holds several .npy files: {', '.join(each.name for each in found)}",
            fix="give the one with the titles' vectors with --vectors, and leave the folder only its tables",
        )
    return found[0] if found else None


def _of_one_format(source: Path, files: list[Path], vectors: Path | None) -> TableFiles:
    formats = sorted({str(format_of(each)) for each in files})
    kind = format_of(files[0]) if files else None
    if kind is None or len(formats) > 1:
        held = f"holds files of several formats: {', '.join(formats)}" if len(formats) > 1 else "is no table"
        raise UsageError(f"{source} {held}", fix=_INSTEAD.get(source.suffix.lower(), f"give {KINDS}"))
    return TableFiles(str(source), tuple(files), kind, vectors)


def _saved_dataset(folder: Path) -> TableFiles | None:
    """Return the files of a dataset as `Dataset.save_to_disk` writes it; None where it is no such folder."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = _json(splits).get("splits") or []
        if len(names) != 1:
            raise UsageError(
                f"{folder} holds {len(names)} splits: {', '.join(map(str, names))}",
                fix=f"give one of them, such as {folder / str(names[0] if names else 'train')}",
            )
        return _saved_dataset(folder / str(names[0]))
    state = folder / "state.json"
    if not state.is_file():
        return None
    content = _json(state)
    if content.get("_indices_data_files"):
        raise DataError(f"{folder} is a selection of another dataset", fix="save dataset.flatten_indices() instead")
    files = [folder / str(part.get("filename")) for part in content.get("_data_files") or []]
    missing = [each.name for each in files if not each.is_file() or each.resolve().parent != folder.resolve()]
    if missing or not files:
        raise DataError(
            f"{folder} is not complete: {state.name} names {', '.join(missing) or 'no file'}", fix="save the set again"
        )
    return TableFiles(str(folder), tuple(files), "arrow", _npy_in(folder))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_small(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="save the dataset again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object", fix="save the dataset again")
    return found
