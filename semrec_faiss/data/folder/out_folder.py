"""Whether a data folder can be made where it is to go, asked before the work."""

from __future__ import annotations

from pathlib import Path

from semrec_faiss.arguments import is_whole
from semrec_faiss.errors import UsageError
from semrec_faiss.places import check_new_folder
from semrec_faiss.storage import recover


def check_name(out: Path) -> None:
    """Refuse what DuckDB cannot open; raises UsageError where the path is not UTF-8."""
    if not is_whole(str(out.absolute())):
        raise UsageError(
            f"{str(out)!r} holds a byte that is not UTF-8, which the file of seen titles cannot have in its path",
            fix="choose another folder, or leave out --seen",
        )


def check_out_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse to write a data folder over a file, over anything without ``overwrite``, and over what is no data folder.

    Raises:
        UsageError: for each of these, and where ``out`` lies under a file.
        StorageError: the disk refuses.
    """
    check_new_folder(out, "OUT")
    if out.parent.is_dir():
        recover(out.resolve())  # what stood there before a run that was killed is not replaced unasked
    if not out.exists():
        return
    found = sorted(path.name for path in out.iterdir())
    if found and not overwrite:
        raise UsageError(
            f"{out} is not empty (it holds {found[0]})", fix="give --overwrite to replace it, or choose another folder"
        )
    foreign = [name for name in found if name not in ("media", "users")]
    if foreign:
        raise UsageError(
            f"{out} holds {foreign[0]}, which is not a part of a data folder, so it is not replaced",
            fix="choose another folder",
        )
