"""A Parquet table as tools write it: one file, or a folder of parts."""

from __future__ import annotations

from pathlib import Path

from semrec_faiss.data.folder.database import literal_path, quoted_text
from semrec_faiss.errors import DataError, NotFoundError

_FIX = "leave only its .parquet parts there, or write one file"


def parquet_parts(path: Path) -> list[Path]:
    """Return the files of a table, sorted: ``path`` itself, or every .parquet in the folder that it is.

    What writers put beside their parts (``_SUCCESS``, ``.part-0.parquet.crc``) is left out.

    Raises:
        NotFoundError: there is nothing.
        DataError: the folder holds no part, or something else.
    """
    if not path.exists():
        raise NotFoundError(f"there is no table {path}", fix="name a Parquet file, or a folder of .parquet parts")
    if not path.is_dir():
        return [path]
    inside = [each for each in sorted(path.rglob("*")) if not is_aside(each.relative_to(path)) and not each.is_dir()]
    other = [each for each in inside if each.suffix != ".parquet" or not each.is_file()]
    if other:
        raise DataError(f"{path} is a folder with {other[0].relative_to(path)}, which is not a Parquet part", fix=_FIX)
    if not inside:
        raise DataError(f"{path} is a folder without a .parquet part", fix=_FIX)
    return inside


def is_aside(inner: Path) -> bool:
    """Tell whether a path inside a folder is what writers put beside its parts: ``_SUCCESS``, ``.crc`` files."""
    return any(part.startswith(("_", ".")) for part in inner.parts)


def parquet_source(path: Path, *, numbered: bool = False) -> str:
    """Return the SQL that reads a table of one file or of parts; raises as `parquet_parts` does.

    Args:
        path: the file or folder.
        numbered: add the column file_row_number, which counts the rows of each file from 0.
    """
    files = ", ".join(quoted_text(literal_path(part)) for part in parquet_parts(path))
    number = ", file_row_number = true" if numbered else ""
    return f"read_parquet([{files}], hive_partitioning = false{number})"
