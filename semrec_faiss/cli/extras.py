"""Packages of an extra that is not installed: told with the line that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from semrec_faiss.errors import MissingPackageError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Tell of a package that an import inside lacks; raises MissingPackageError."""
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(
            f"{error.name} is not installed", fix=f"pip install 'semrec-faiss[{extra}]'"
        ) from error
