"""The data folder: where its files are, and its arrays mapped; :mod:`.vectors` reads what they hold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from semrec_faiss.data.demo import or_demos
from semrec_faiss.data.folder.vectors import NormStats, iter_float32_blocks, read_float32, vector_norms
from semrec_faiss.errors import DataError, NotFoundError
from semrec_faiss.kinds import format_of, what_instead
from semrec_faiss.paths import refuse_special

__all__ = [
    "MEDIA_VECTORS",
    "METADATA",
    "METADATA_TABLE",
    "SEEN",
    "USER_IDS",
    "USER_VECTORS",
    "DataFolder",
    "NormStats",
    "find_data_folder",
    "iter_float32_blocks",
    "open_vectors",
    "read_float32",
    "rows_partner",
    "vector_norms",
]

MEDIA_VECTORS = "media/content_vectors.npy"
METADATA = "media/metadata.jsonl"
METADATA_TABLE = "media/metadata.parquet"
USER_VECTORS = "users/preference_vectors.npy"
USER_IDS = "users/user_ids.json"
SEEN = "users/seen.parquet"

_LAYOUT = f"""The layout is:
  {MEDIA_VECTORS}      a vector a title
  {METADATA}           a line a title, in the same order; or {Path(METADATA_TABLE).name}, a row a title
  {USER_VECTORS}   optional: a vector a user; without it, they are made of what users have seen
  {USER_IDS}            optional: the users' ids, in the same order
  {SEEN}             optional: user_id, media_id, and rating and timestamp where they are known; a file,
                                 or a folder of .parquet parts"""

# What a count or a dimension of one file is compared with, for messages that name both.
_ROWS_PARTNER = {
    Path(MEDIA_VECTORS).name: Path(METADATA).name,
    Path(METADATA).name: Path(MEDIA_VECTORS).name,
    Path(METADATA_TABLE).name: Path(MEDIA_VECTORS).name,
    Path(USER_VECTORS).name: Path(USER_IDS).name,
    Path(USER_IDS).name: Path(USER_VECTORS).name,
}
_AS_FLOATS = {
    "uint16": "if they are bfloat16 numbers kept as their bits, save"
    " (vectors.astype('uint32') << 16).view('float32'); float16 as bits, vectors.view('float16')",
    "int16": "if they are bfloat16 numbers kept as their bits, save"
    " (vectors.view('uint16').astype('uint32') << 16).view('float32'); float16 as bits, vectors.view('float16')",
    "uint8": "they are codes of a quantiser, or numbers times a scale: decode them, and save float32",
    "int8": "they are codes of a quantiser, or numbers times a scale: decode them, and save float32",
}


@dataclass(frozen=True)
class DataFolder:
    """The files of a data folder; a path is None where the optional file does not exist; ``seen`` may be a folder."""

    root: Path
    media_vectors: Path
    metadata: Path
    user_vectors: Path | None
    user_ids: Path | None
    seen: Path | None


def find_data_folder(root: str | Path, *, need_vectors: bool = True) -> DataFolder:
    """Find the files of the data folder at ``root``, or at its ``embeddings/`` or ``data/embeddings/``.

    Args:
        root: the folder.
        need_vectors: whether content_vectors.npy must exist; False before the vectors are made.

    Raises:
        NotFoundError: there is no such folder.
        DataError: a file is missing; the message lists what was expected.
    """
    given = or_demos(Path(root))
    if (other := what_instead(given, "data folder")) is not None:
        raise NotFoundError(f"{other.told}, not a data folder", fix=other.fix)
    if not given.is_dir():
        problem = f"{given} is a file, not a data folder" if given.exists() else f"there is no data folder {given}"
        raise NotFoundError(problem, fix=f"give the folder that holds media/ and users/. {_LAYOUT}")
    places = (given, given / "embeddings", given / "data" / "embeddings")
    folder = next((place for place in places if (place / "media").is_dir()), given)
    metadata = METADATA_TABLE if os.path.lexists(folder / METADATA_TABLE) else METADATA
    if metadata == METADATA_TABLE and os.path.lexists(folder / METADATA):
        raise DataError(f"{folder} has {METADATA} and {METADATA_TABLE}", fix="remove the one that is not meant")
    required = [metadata, MEDIA_VECTORS] if need_vectors else [metadata]
    missing = [name for name in required if not (folder / name).is_file()]
    if missing:
        odd = [name for name in missing if os.path.lexists(folder / name)]
        problem = f"{folder / odd[0]} is not a file" if odd else f"{folder} lacks {' and '.join(missing)}"
        make = "semrec dataset embed makes vectors of texts, semrec dataset learn of what people did. "
        raise DataError(problem, fix=make * (missing == [MEDIA_VECTORS] and not odd) + _LAYOUT)
    if os.path.lexists(folder / "users") and not (folder / "users").is_dir():
        raise DataError(f"{folder / 'users'} is not a folder", fix=f"make it one, or remove it. {_LAYOUT}")
    user_vectors, user_ids = _optional(folder / USER_VECTORS), _optional(folder / USER_IDS)
    seen = folder / SEEN if (folder / SEEN).is_dir() else _optional(folder / SEEN)
    if seen is None:
        refuse_another_seen(folder)
    if user_vectors is not None and user_ids is None:
        raise DataError(f"{folder} has {USER_VECTORS} but no {USER_IDS}", fix=f"add the ids, or remove it. {_LAYOUT}")
    if user_ids is not None and user_vectors is None and seen is None:
        raise DataError(
            f"{folder} has {USER_IDS} but neither {USER_VECTORS} nor {SEEN}",
            fix=f"add the users' vectors, or what they have seen. {_LAYOUT}",
        )
    if seen is not None and user_ids is None:
        raise DataError(f"{folder} has {SEEN} but no {USER_IDS}", fix=f"add the users, or remove {SEEN}. {_LAYOUT}")
    return DataFolder(folder, folder / MEDIA_VECTORS, folder / metadata, user_vectors, user_ids, seen)


def refuse_another_seen(folder: Path) -> None:
    """Refuse a table of seen titles in a format that is not read: it would be passed over without a word.

    Raises:
        DataError: there is one in users/.
    """
    another = next((each for each in sorted((folder / "users").glob("seen.*")) if format_of(each)), None)
    if another is not None:
        raise DataError(f"{another} is not read, {SEEN} is", fix=f"write it as {SEEN}, or name it otherwise")


def rows_partner(path: Path) -> str:
    """Name the file whose count must equal that of ``path``, ready to stand behind a number: " in PATH", or ""."""
    name = _ROWS_PARTNER.get(path.name)
    if name == Path(METADATA).name and (path.parent / Path(METADATA_TABLE).name).exists():
        name = Path(METADATA_TABLE).name
    return "" if name is None else f" in {path.parent / name}"


def open_vectors(
    path: Path, *, expect_rows: int | None = None, expect_dim: int | None = None, what: str = "vectors"
) -> NDArray[Any]:
    """Map a .npy of float16, float32 or float64 read-only, shape (n, d), without reading the vectors.

    Either byte order and either memory order are accepted; values are checked when they are read.

    Args:
        path: the file.
        expect_rows: n, where it is known already.
        expect_dim: d, where it is known already.
        what: what the vectors are, for messages.

    Raises:
        NotFoundError: there is no such file.
        DataError: not a .npy, pickled objects, truncated, another shape or dtype, or other counts.
    """
    refuse_special(path, "a .npy file")
    try:
        with path.open("rb") as file:
            shape, fortran, dtype, offset = _read_header(file, path)
            size = file.seek(0, 2)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}", fix="give a .npy file, as numpy.save writes it") from error
    except OSError as error:
        raise DataError(f"{path}: cannot read the {what}: {error.strerror or error}") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise DataError(
            f"{path}: the {what} have dtype {dtype}; float16, float32 or float64 is expected",
            fix=_AS_FLOATS.get(dtype.name, "save them again: numpy.save(path, vectors.astype('float32'))"),
        )
    if len(shape) != 2:
        raise DataError(
            f"{path}: the {what} have shape {shape}; two dimensions, (count, dim), are expected",
            fix="save a row for each of them: numpy.save(path, vectors.reshape(count, dim))",
        )
    rows, dim = shape
    if rows < 1 or dim < 1:
        raise DataError(
            f"{path}: the {what} have shape {shape}; at least one vector of one dimension is expected",
            fix="save them again, or leave the file out",
        )
    _check_size(path, size, offset + rows * dim * dtype.itemsize, shape, dtype)
    if expect_rows is not None and rows != expect_rows:
        raise DataError(
            f"{path} has {rows:,} {what}, but there are {expect_rows:,} entries{rows_partner(path)}",
            fix="the two files must have one entry each for the same things, in the same order.",
        )
    if expect_dim is not None and dim != expect_dim:
        raise DataError(
            f"{path}: the {what} have {dim} dimensions, but {expect_dim} are expected{_dim_partner(path)}",
            fix="vectors can only be compared when the same model made them.",
        )
    try:
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot map the {what}: {error}") from error


def _read_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether column-major, dtype and the data's offset of an open .npy."""
    start = file.read(6)
    if start != b"\x93NUMPY":
        kind = {b"PK\x03\x04": "a .npz or .zip archive", b"\x80\x04\x95": "a Python pickle"}
        found = next((name for magic, name in kind.items() if start.startswith(magic)), f"it begins with {start!r}")
        raise DataError(f"{path} is not a .npy file: {found}", fix="save the array with numpy.save(path, array).")
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except Exception as error:  # a damaged header makes numpy raise almost anything, SyntaxError and KeyError included
        raise DataError(f"{path}: the .npy header is damaged: {error}", fix="save the array again.") from error
    if any(type(length) is not int or not 0 <= length < 1 << 62 for length in shape):
        raise DataError(f"{path}: the .npy header is damaged: no array has its shape", fix="save the array again.")
    if dtype.hasobject:
        raise DataError(
            f"{path} holds pickled Python objects, which are never loaded: unpickling runs code from the file",
            fix="save numbers: numpy.save(path, numpy.stack(vectors).astype('float32'))",
        )
    return shape, fortran, dtype, file.tell()


def _check_size(path: Path, size: int, expected: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if size != expected:
        problem = "is truncated" if size < expected else "goes on after its array"
        raise DataError(
            f"{path} {problem}: {size:,} bytes, but shape {shape} of {dtype} takes {expected:,}",
            fix="copy or save the file again.",
        )


def _optional(path: Path) -> Path | None:
    """Return a file that may be left out; anything else under its name is refused, not passed over."""
    if path.is_file():
        return path
    if os.path.lexists(path):
        raise DataError(f"{path} is not a file", fix=f"write the file, or remove what stands there. {_LAYOUT}")
    return None


def _dim_partner(path: Path) -> str:
    """Name the title vectors that user vectors are compared with, as `rows_partner`; an update may have none."""
    titles = path.parent.parent / MEDIA_VECTORS
    return f" in {titles}" if path.name == Path(USER_VECTORS).name and titles.is_file() else ""
