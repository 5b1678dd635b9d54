"""What a MovieLens download holds, as a folder or as the zip it came in, with the names that messages use."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from semrec_faiss.errors import DataError, NotFoundError, UsageError
from semrec_faiss.paths import refuse_special
from semrec_faiss.progress import Progress, silent

Form = Literal["csv", "dat"]

_CHUNK = 1 << 20

MOST_TIMES = 100
"""How many times their packed size files may take: those of MovieLens take 3 to 10 times."""

MOST_UNPACKED = 64 << 20
"""What any zip may unpack to."""

_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError),
)
_SNIFFED_BYTES = 64 << 20

# The files of each form that are read; the first two must be there.
_STEMS: dict[Form, tuple[str, ...]] = {
    "csv": ("movies", "ratings", "tags", "genome-scores", "genome-tags"),
    "dat": ("movies", "ratings", "tags"),
}
_KNOWN = "ml-latest-small, ml-latest, ml-20m, ml-25m, ml-32m (.csv), ml-1m or ml-10M100K (.dat)"


@dataclass(frozen=True)
class SourceFile:
    """One file of a download.

    Attributes:
        path: where it can be read, unpacked.
        shown: the name for messages: inside the zip that it came in.
        form: ``csv`` with a header, or ``dat`` with ``::`` between the values.
        encoding: of its text.
    """

    path: Path
    shown: str
    form: Form
    encoding: str


@dataclass(frozen=True)
class MovieLensSource:
    """The files of a download; None where it has no such file."""

    movies: SourceFile
    ratings: SourceFile
    tags: SourceFile | None
    genome_scores: SourceFile | None
    genome_tags: SourceFile | None


def open_movielens(path: Path, scratch: Path, progress: Progress = silent) -> MovieLensSource:
    """Find the files of the download at ``path``, unpacked into ``scratch`` where it is a zip.

    Args:
        path: a folder with movies.csv or movies.dat in it or one level below, or a zip of such a folder.
        scratch: an existing folder to unpack into; as large as the unpacked files.
        progress: told the bytes unpacked.

    Raises:
        NotFoundError: there is nothing at ``path``.
        UsageError: it holds several data sets.
        DataError: it is no MovieLens download, or a file is missing, damaged, truncated or of another encoding.
    """
    check_there(path)
    if path.is_dir():
        entries = [entry for pattern in ("*", "*/*") for entry in path.glob(pattern)]
        names = {PurePosixPath(entry.relative_to(path).as_posix()): entry.is_file() for entry in entries}
        found, form = _choose(names, path)
        files = {stem: path / inner for stem, inner in found.items()}
        shown = {stem: str(place) for stem, place in files.items()}
    else:
        files, shown, form = _unpack(path, scratch, progress)
    _check_ends(files, shown)
    sources = {stem: SourceFile(files[stem], shown[stem], form, _encoding(files[stem], form)) for stem in files}
    scores, tags = sources.get("genome-scores"), sources.get("genome-tags")
    if (scores is None) != (tags is None):
        raise DataError(
            f"{path} has {'genome-tags.csv' if scores is None else 'genome-scores.csv'} without the other genome file",
            fix="unpack the whole download, or leave both genome files out",
        )
    return MovieLensSource(sources["movies"], sources["ratings"], sources.get("tags"), scores, tags)


def check_there(path: Path) -> None:
    """Raise NotFoundError when there is nothing at ``path``, and UsageError where it is no file nor folder."""
    refuse_special(path, "the folder or zip of a MovieLens download")
    if not path.exists():
        raise NotFoundError(f"there is no {path}", fix=f"give the folder or zip of {_KNOWN}, from grouplens.org")


def _choose(names: Mapping[PurePosixPath, bool], path: Path) -> tuple[dict[str, PurePosixPath], Form]:
    """Choose the files of the one data set among ``names``, which are told whether they are files: stem to name."""
    there = {
        name
        for name, is_file in names.items()
        if is_file and "__MACOSX" not in name.parts and not name.name.startswith("._")
    }
    homes: dict[PurePosixPath, Form] = {}
    for form in ("dat", "csv"):
        homes |= {name.parent: form for name in there if name.name == f"movies.{form}"}
    if not homes:
        raise DataError(
            f"{path} holds no movies.csv and no movies.dat, so it is not a known MovieLens download",
            fix=f"give the folder or zip of {_KNOWN}",
        )
    if len(homes) > 1:
        raise UsageError(
            f"{path} holds several data sets: {', '.join(sorted(map(str, homes)))}", fix="give the folder of one"
        )
    (home, form), *_ = homes.items()
    wanted = {stem: home / f"{stem}.{form}" for stem in _STEMS[form]}
    for name in wanted.values():
        if not names.get(name, True):
            raise DataError(
                f"{path}/{name} is not a file, but a folder or a link to nothing", fix="unpack the download anew"
            )
    found = {stem: name for stem, name in wanted.items() if name in there}
    if "ratings" not in found:
        raise DataError(f"{path} has {found['movies']} but no ratings.{form} beside it", fix="unpack it anew")
    return found, form


def _unpack(path: Path, scratch: Path, progress: Progress) -> tuple[dict[str, Path], dict[str, str], Form]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {PurePosixPath(member.filename): member for member in archive.infolist() if not member.is_dir()}
            folders = {PurePosixPath(member.filename) for member in archive.infolist() if member.is_dir()}
            folders.update(*(name.parents for name in members))
            found, form = _choose(dict.fromkeys(folders, False) | dict.fromkeys(members, True), path)
            total = sum(members[inner].file_size for inner in found.values())
            packed_bytes = sum(members[inner].compress_size for inner in found.values())
            if total > MOST_UNPACKED + MOST_TIMES * packed_bytes:
                raise DataError(
                    f"{path} would unpack from {packed_bytes:,} to {total:,} bytes, over {MOST_TIMES} times as many",
                    fix="download it again, or give the unpacked folder",
                )
            done = 0
            files: dict[str, Path] = {}
            for stem, inner in found.items():
                files[stem] = scratch / f"{stem}.{form}"
                with archive.open(members[inner]) as packed, files[stem].open("wb") as file:
                    while chunk := packed.read(_CHUNK):
                        file.write(chunk)
                        done += len(chunk)
                        progress("unpacking", done, total)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # bz2 tells of damage by an OSError without number
            raise
        raise DataError(
            f"{path} is not a whole zip file: {str(error) or type(error).__name__}", fix="download it again"
        ) from error
    return files, {stem: f"{path}/{inner}" for stem, inner in found.items()}, form


def _check_ends(files: dict[str, Path], shown: dict[str, str]) -> None:
    """Refuse empty files, and files whose last line has no end: what is cut inside a number still looks like one."""
    for stem, path in files.items():
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 1))
            last = file.read(1)
        if size == 0:
            raise DataError(f"{shown[stem]}:1: the file is empty", fix="download it again")
        if last not in (b"\n", b"\r"):
            raise DataError(
                f"{shown[stem]}:{_line_count(path) + 1}: the file ends in the middle of this line",
                fix="download it again; if the line is whole, end it with a line break",
            )


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))


def _encoding(path: Path, form: Form) -> str:
    """CSV is UTF-8, with or without a byte order mark; of the .dat files ml-10M's are UTF-8 and ml-1m's Latin-1."""
    if form == "csv":
        return "utf-8-sig"
    with path.open("rb") as file:
        start = file.read(_SNIFFED_BYTES)
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut by the end of what was read says nothing; anything before it is not UTF-8.
        return "latin-1" if error.start < len(start) - 3 or len(start) < _SNIFFED_BYTES else "utf-8"
    return "utf-8"
