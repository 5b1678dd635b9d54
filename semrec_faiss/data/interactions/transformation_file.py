"""The transformation on disk: arrays in an .npz, everything else and their digests in JSON; nothing is unpickled."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from semrec_faiss.data.interactions.hybrid import LearnSettings, Transformation
from semrec_faiss.data.interactions.text_part import TextProjection
from semrec_faiss.errors import DataError
from semrec_faiss.storage import read_small, sha256_of_file

JSON_NAME = "transformation.json"
ARRAYS_NAME = "transformation.npz"
_MOST_BYTES = 1 << 30
"""More than matrices of 4,096 by 4,096 numbers take."""

_FIX = "learn the vectors again: semrec dataset learn FOLDER OUT"


class _About(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["transformation-1"] = "transformation-1"
    settings: LearnSettings
    text_scale: float
    arrays_sha256: str
    vectors_sha256: str
    """Of the vectors that it was learned with, as `semrec dataset learn` wrote them."""


def write_transformation(folder: Path, transformation: Transformation, vectors: Path) -> None:
    """Write both files into ``folder``, which holds ``vectors``."""
    arrays = {"to_factors": transformation.to_factors}
    if transformation.projection is not None:
        arrays |= {"mean": transformation.projection.mean, "components": transformation.projection.components}
    np.savez(folder / ARRAYS_NAME, **arrays)  # type: ignore[arg-type]
    about = _About(
        settings=transformation.settings,
        text_scale=transformation.text_scale,
        arrays_sha256=sha256_of_file(folder / ARRAYS_NAME),
        vectors_sha256=sha256_of_file(vectors),
    )
    (folder / JSON_NAME).write_text(about.model_dump_json(indent=1) + "\n", encoding="utf-8")


def has_transformation(folder: Path) -> bool:
    """Tell whether vectors in ``folder`` were learned."""
    return (folder / JSON_NAME).is_file()


def read_transformation(path: Path, arrays_path: Path, *, vectors: Path | None = None) -> Transformation:
    """Read both files.

    Args:
        path: JSON_NAME.
        arrays_path: ARRAYS_NAME.
        vectors: the vectors beside them, to be held against their digest; None where they are known to belong to it.

    Raises:
        DataError: a file is missing, damaged or not what this version reads, or the vectors are others.
    """
    try:
        about = _About.model_validate_json(read_small(path))
        content = read_small(arrays_path, _MOST_BYTES)
    except ValidationError as error:
        raise DataError(f"{path} is none that this version reads: {error.errors()[0]['msg']}", fix=_FIX) from error
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror or error}", fix=_FIX) from error
    if hashlib.sha256(content).hexdigest() != about.arrays_sha256:
        raise DataError(f"{arrays_path} has changed since it was written: its SHA-256 is not {path.name}'s", fix=_FIX)
    if vectors is not None and sha256_of_file(vectors) != about.vectors_sha256:
        raise DataError(f"{vectors} holds other vectors than {path} was learned with", fix=_FIX)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name], dtype=np.float32) for name in arrays.files}
        projection = TextProjection(found["mean"], found["components"]) if "mean" in found else None
        return Transformation(about.settings, projection, found["to_factors"], about.text_scale)
    except (ValueError, KeyError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise DataError(f"{arrays_path} does not hold a transformation: {error}", fix=_FIX) from error
