"""A Parquet table as tools write it: one file, or a folder of parts."""

from __future__ import annotations

from pathlib import Path

from semrec_faiss.data.folder.database import literal_path, quoted_text
from semrec_faiss.data.odd_row import Place
from semrec_faiss.errors import DataError, NotFoundError
from semrec_faiss.paths import refuse_special

_MAGIC = b"PAR1"
_SHOWN_BYTES = 24

_FIX = "leave only its .parquet parts there, or write one file"


def parquet_parts(path: Path) -> list[Path]:
    """Return the files of a table, sorted: ``path`` itself, or every .parquet in the folder that it is.

    What writers put beside their parts (``_SUCCESS``, ``.part-0.parquet.crc``) is left out.

    Raises:
        NotFoundError: there is nothing.
        UsageError: it is a pipe, a device or a socket.
        DataError: the folder holds no part, or something else, or a file is of another format or not whole.
    """
    if not path.exists():
        raise NotFoundError(f"there is no table {path}", fix="name a Parquet file, or a folder of .parquet parts")
    refuse_special(path, "a Parquet file")
    if not path.is_dir():
        _check_format(path)
        return [path]
    inside = [each for each in sorted(path.rglob("*")) if not is_aside(each.relative_to(path)) and not each.is_dir()]
    other = [each for each in inside if each.suffix != ".parquet" or not each.is_file()]
    if other:
        raise DataError(f"{path} is a folder with {other[0].relative_to(path)}, which is not a Parquet part", fix=_FIX)
    if not inside:
        raise DataError(f"{path} is a folder without a .parquet part", fix=_FIX)
    for each in inside:
        _check_format(each)
    return inside


def _check_format(path: Path) -> None:
    """Refuse a file that does not begin and end as Parquet does, and say what it is instead."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            start = file.read(_SHOWN_BYTES)
            file.seek(max(len(_MAGIC), path.stat().st_size - len(_MAGIC)))
            end = file.read(len(_MAGIC))
    except OSError:
        return  # which its reader will tell
    if not start:
        raise DataError(f"{path} is empty; a Parquet file is expected", fix="write it as Parquet")
    if not start.startswith(_MAGIC):
        raise DataError(f"{path} is not a Parquet file: it begins with {start!r}", fix="write it as Parquet")
    if end != _MAGIC:
        raise DataError(f"{path} is a Parquet file whose end is missing", fix="write or copy it again")


def is_aside(inner: Path) -> bool:
    """Tell whether a path inside a folder is what writers put beside its parts: ``_SUCCESS``, ``.crc`` files."""
    return any(part.startswith(("_", ".")) for part in inner.parts)


def row_place(path: Path) -> Place:
    """Return what says where a row of a table is: in which file, and the how manieth there.

    Args:
        path: the file, or a folder of Parquet parts.
    """

    def place(row: int) -> str:
        if not path.is_dir():
            return f"{path}: row {row + 1:,}"
        from pyarrow.parquet import read_metadata

        for part in parquet_parts(path):
            rows = read_metadata(part).num_rows
            if row < rows:
                return f"{part}: row {row + 1:,}"
            row -= rows
        raise AssertionError("the row is in one of the parts")

    return place


def parquet_source(path: Path, *, numbered: bool = False) -> str:
    """Return the SQL that reads a table of one file or of parts; raises as `parquet_parts` does.

    Args:
        path: the file or folder.
        numbered: add the column file_row_number, which counts the rows of each file from 0.
    """
    parts = parquet_parts(path)
    files = ", ".join(quoted_text(literal_path(part)) for part in parts)
    number = ", file_row_number = true" if numbered else ""
    union = ", union_by_name = true" if len(parts) > 1 else ""  # or 4.5 is 4 where the first part has whole numbers
    return f"read_parquet([{files}], hive_partitioning = false{number}{union})"
