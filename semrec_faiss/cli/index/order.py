"""The index comes first: whoever puts it after what is asked of it, or added to it, is told that."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from semrec_faiss.errors import SemrecError, UsageError
from semrec_faiss.search.living.in_a_cluster import IN_A_CLUSTER


def check_order(index: Path, *asked: str | Path | None) -> None:
    """Refuse, by UsageError, that one of ``asked`` is an index where INDEX is none."""
    if str(index).startswith(IN_A_CLUSTER) or _is_index(index):
        return
    swapped = next((one for one in asked if one and _is_index(one)), None)
    if swapped is not None:
        raise UsageError(
            f"{index} is not an index, but {swapped} is", fix=f'the index comes first: {swapped} "{index}"'
        )


def _is_index(path: Path | str) -> bool:
    from semrec_faiss.index.generations.directory import IndexDirectory

    with suppress(SemrecError, OSError):  # what no directory can be called is no index
        return IndexDirectory(path).holds_an_index
    return False
