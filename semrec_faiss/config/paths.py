"""A path in a file of settings or behind ``--set``, read by the same rule as on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from semrec_faiss.paths import path_from


def _read(value: Any) -> Any:
    """Return a text for a text: JSON that is read strictly holds no paths."""
    if isinstance(value, str):
        return str(path_from(value))
    return path_from(value) if isinstance(value, Path) else value


LocalPath = Annotated[Path, BeforeValidator(_read)]
